"""A small honest bucket on the loopback interface: what the store uses of the JSON API, preconditions included.

(`gcp-storage-emulator`, which the development requirements bring, ignores `ifGenerationMatch`.)
"""

import contextlib
import datetime
import hashlib
import itertools
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = 3  # objects a listing page, small so that paging is always exercised


@dataclass
class Bucket:
    """All objects of all buckets: (bucket, name) -> (generation, bytes, time of writing)."""

    objects: dict[tuple[str, str], tuple[int, bytes, str]] = field(default_factory=dict)
    uploads: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    generations: Iterator[int] = field(default_factory=lambda: itertools.count(1_700_000_000_000_000))
    log: list[str] = field(default_factory=list)
    lose_answers: int = 0  # so many of the next uploads are stored, and then answered with 503
    outage: int = 0  # so many of the next requests are answered with 503
    read_only: bool = False  # every write is answered with 403
    delay_s: float = 0.0  # before every answer to a write

    def put(self, bucket: str, name: str, data: bytes, match: str | None) -> dict[str, Any] | None:
        """Store an object; None when the precondition fails."""
        with self.lock:
            current = self.objects[bucket, name][0] if (bucket, name) in self.objects else 0
            if match is not None and int(match) != current:
                return None
            updated = datetime.datetime.now(datetime.UTC).isoformat()
            self.objects[bucket, name] = (next(self.generations), data, updated)
            return self.describe(bucket, name)

    def describe(self, bucket: str, name: str) -> dict[str, Any]:
        generation, data, updated = self.objects[bucket, name]
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "generation": str(generation),
            "size": str(len(data)),
            "updated": updated,
            "md5": hashlib.md5(data).hexdigest(),
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer; two would wait for the delayed acknowledgement
    store: Bucket

    def log_message(self, format: str, *args: Any) -> None:
        self.store.log.append(format % args)

    def _answer(self, status: int, body: bytes | dict[str, Any] = b"", **headers: str) -> None:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _target(self) -> tuple[list[str], dict[str, str]]:
        parts = urllib.parse.urlsplit(self.path)
        path = [urllib.parse.unquote(part) for part in parts.path.strip("/").split("/")]
        return path, dict(urllib.parse.parse_qsl(parts.query))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _refuse(self) -> None:
        self._answer(412, {"error": {"code": 412, "message": "At least one of the pre-conditions did not hold."}})

    def _absent(self) -> None:
        self._answer(404, {"error": {"code": 404, "message": "Not Found"}})

    def _is_refused(self, is_write: bool) -> bool:
        with self.store.lock:
            is_out = self.store.outage > 0
            self.store.outage -= is_out
        time.sleep(self.store.delay_s * is_write)
        if is_out or (self.store.read_only and is_write):
            self._body()
            status = 503 if is_out else 403
            self._answer(status, {"error": {"code": status, "message": "Service Unavailable" if is_out else "No."}})
            return True
        return False

    def do_GET(self) -> None:
        if self._is_refused(is_write=False):
            return
        path, query = self._target()
        bucket = path[path.index("b") + 1]
        if path[-1] == "o":
            self._list(bucket, query)
            return
        name = path[-1]
        with self.store.lock:
            found = self.store.objects.get((bucket, name))
            if found is None or query.get("generation", str(found[0])) != str(found[0]):
                self._absent()
            elif query.get("alt") == "media":
                span = self.headers.get("Range")
                if span:
                    first, last = span.removeprefix("bytes=").split("-")
                    self._answer(206, found[1][int(first) : int(last) + 1])
                else:
                    self._answer(200, found[1])
            else:
                self._answer(200, self.store.describe(bucket, name))

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        with self.store.lock:
            names = sorted(n for b, n in self.store.objects if b == bucket and n.startswith(prefix))
            folders = set()
            if delimiter:
                folders = {prefix + n[len(prefix) :].split("/")[0] + "/" for n in names if "/" in n[len(prefix) :]}
                names = [n for n in names if "/" not in n[len(prefix) :]]
            start = int(query.get("pageToken", "0"))
            entries = [("o", n) for n in names] + [("p", f) for f in sorted(folders)]
            page = entries[start : start + PAGE]
            answer: dict[str, Any] = {
                "items": [self.store.describe(bucket, n) for kind, n in page if kind == "o"],
                "prefixes": [n for kind, n in page if kind == "p"],
            }
            if start + PAGE < len(entries):
                answer["nextPageToken"] = str(start + PAGE)
        self._answer(200, answer)

    def do_POST(self) -> None:
        if self._is_refused(is_write=True):
            return
        path, query = self._target()
        body = self._body()
        bucket = path[path.index("b") + 1]
        if query.get("uploadType") == "resumable":
            session = hashlib.sha1(f"{len(self.store.uploads)}".encode()).hexdigest()
            name = json.loads(body)["name"]
            self.store.uploads[session] = {
                "bucket": bucket,
                "name": name,
                "match": query.get("ifGenerationMatch"),
                "data": b"",
            }
            host = self.headers["Host"]
            self._answer(200, Location=f"http://{host}/upload/storage/v1/b/{bucket}/o?upload_id={session}")
            return
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
        parts = body.split(b"--" + boundary)
        name = json.loads(parts[1].partition(b"\r\n\r\n")[2])["name"]
        data = (b"--" + boundary).join(parts[2:-1]).partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        stored = self.store.put(bucket, name, data, query.get("ifGenerationMatch"))
        if stored is None:
            self._refuse()
        elif self.store.lose_answers:
            self.store.lose_answers -= 1
            self._answer(503, {"error": {"code": 503, "message": "the answer was lost"}})
        else:
            self._answer(200, stored)

    def do_PUT(self) -> None:
        if self._is_refused(is_write=True):
            return
        _, query = self._target()
        upload = self.store.uploads[query["upload_id"]]
        upload["data"] += self._body()
        total = int(self.headers["Content-Range"].rpartition("/")[2])
        if len(upload["data"]) < total:
            self._answer(308, Range=f"bytes=0-{len(upload['data']) - 1}")
            return
        stored = self.store.put(upload["bucket"], upload["name"], upload["data"], upload["match"])
        if stored is None:
            self._refuse()
        else:
            self._answer(200, stored)

    def do_DELETE(self) -> None:
        if self._is_refused(is_write=True):
            return
        path, query = self._target()
        key = (path[path.index("b") + 1], path[-1])
        with self.store.lock:
            found = self.store.objects.get(key)
            if found is None:
                self._absent()
            elif query.get("ifGenerationMatch", str(found[0])) != str(found[0]):
                self._refuse()
            else:
                del self.store.objects[key]
                self._answer(204)


@contextlib.contextmanager
def serve() -> Iterator[tuple[str, Bucket]]:
    """A server for the block: its base URL (for STORAGE_EMULATOR_HOST) and what it holds."""
    store = Bucket()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"store": store}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
