"""A metadata server like Google's, on loopback, that also misbehaves."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse


class FakeMetadata:
    """`with FakeMetadata() as fake: fake.host; fake.set("preempted", "TRUE")`."""

    def __init__(self) -> None:
        self.values = {"preempted": "FALSE", "maintenance-event": "NONE"}
        self.requests: list[str] = []
        self.trouble: list[str] = []
        """How the next requests are answered: drop, 503, 404, stranger, slow, hasty."""
        self.changed = threading.Condition()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"

    def set(self, key: str, value: str) -> None:
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlparse(handler.path)
        key, query = url.path.rpartition("/")[2], parse_qs(url.query)
        with self.changed:
            self.requests.append(handler.path)
            trouble = self.trouble.pop(0) if self.trouble else ""
        if trouble == "drop" or handler.headers.get("Metadata-Flavor") != "Google":
            handler.connection.close()
            return
        if trouble == "slow":
            time.sleep(1.5)
        if trouble in ("503", "404"):
            handler.send_response(int(trouble))
            handler.send_header("Metadata-Flavor", "Google")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        with self.changed:
            if trouble != "hasty":
                self.changed.wait_for(lambda: query["last_etag"] != [self.values[key]], float(query["timeout_sec"][0]))
            body = self.values[key]
        handler.send_response(200)
        if trouble != "stranger":
            handler.send_header("Metadata-Flavor", "Google")
        handler.send_header("ETag", body)
        handler.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):  # who asked may have been killed
            handler.end_headers()
            handler.wfile.write(body.encode())

    def __enter__(self) -> "FakeMetadata":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
