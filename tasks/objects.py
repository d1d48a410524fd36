"""Object stores: `gs://` with its generation preconditions, and any other fsspec protocol as best effort.

gcsfs brings the session, the credentials and the retries. The requests are made here, through its `call`, because only
the JSON API itself lets a write or a delete demand a generation, and because listings must never come from a cache.
"""

import datetime
import functools
import json
import logging
import mmap
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.storage import ABSENT, FsspecStorage, Source, is_private, join

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 2**20  # of a resumable upload or a long download; a multiple of 256 KiB, as the JSON API wants
SIMPLE_BYTES = 8 * 2**20  # up to this size one request uploads a file


@functools.cache
def object_storage(protocol: str) -> FsspecStorage:
    """The store of a protocol, made once."""
    if protocol in ("gs", "gcs"):
        return GcsStorage(protocol)
    log.warning("%s:// has no compare-and-swap here: see to it yourself that one run writes at a time", protocol)
    return FsspecStorage(protocol)


class GcsStorage(FsspecStorage):
    """Google Cloud Storage: a version is a generation, and a write or delete may demand one."""

    def __init__(self, protocol: str):
        # No project is named: objects need none, and gcsfs would compare it with the one of the credentials.
        super().__init__(protocol, project="", use_listings_cache=False)

    def read(self, url: str) -> bytes:
        bucket, key = _split(url)
        _, data = self._call("GET", "b/{}/o/{}", bucket, key, alt="media")
        return data

    def write(self, url: str, source: Source) -> None:
        self._upload(url, source, {})

    def upload(self, url: str, source: Path) -> None:
        self._upload(url, source, {})

    def is_transient(self, error: Exception) -> bool:
        """Whether the store was away or too busy (5xx, 408, 429, a broken connection); a refusal (403) is for good."""
        from gcsfs.retry import is_retriable

        return is_retriable(error) or isinstance(error, TimeoutError | ConnectionError)

    def version(self, url: str) -> str:
        return str(found["generation"]) if (found := self._object(url)) else ABSENT

    def write_if(self, url: str, source: Source, version: str) -> bool:
        try:
            self._upload(url, source, {"ifGenerationMatch": version or "0"})
        except FileExistsError:  # gcsfs's name for 412
            return self._is_mine(url, source)
        return True

    def remove_if(self, url: str, version: str) -> bool:
        bucket, key = _split(url)
        try:
            self._call("DELETE", "b/{}/o/{}", bucket, key, ifGenerationMatch=version or "0")
        except FileNotFoundError:
            return True
        except FileExistsError:
            return False
        return True

    def size(self, url: str) -> int | None:
        return int(found["size"]) if (found := self._object(url)) else None

    def modified(self, url: str) -> float:
        found = self._object(url)
        if found is None:
            raise FileNotFoundError(url)
        return datetime.datetime.fromisoformat(found["updated"]).timestamp()

    def find(self, url: str) -> dict[str, int]:
        items, _ = self._list(url, delimiter=None)
        return {name: size for name, size in sorted(items.items()) if not is_private(name)}

    def children(self, url: str) -> list[str]:
        _, folders = self._list(url, delimiter="/")
        return sorted(name for name in folders if not name.startswith("."))

    def download(self, url: str, target: Path) -> None:
        """Fetch in pieces of one generation, so that a long file is never held in memory nor mixed of two versions."""
        found = self._object(url)
        if found is None:
            raise FileNotFoundError(url)
        bucket, key = _split(url)
        size, pinned = int(found["size"]), {"alt": "media", "generation": found["generation"]}
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            for start in range(0, size, CHUNK_BYTES):
                span = f"bytes={start}-{min(size, start + CHUNK_BYTES) - 1}"
                _, piece = self._call("GET", "b/{}/o/{}", bucket, key, headers={"Range": span}, **pinned)
                file.write(piece)

    def remove(self, url: str) -> None:
        bucket, key = _split(url)
        try:
            self._call("DELETE", "b/{}/o/{}", bucket, key)
        except FileNotFoundError:
            return

    def remove_tree(self, url: str) -> None:
        items, _ = self._list(url, delimiter=None)
        for name in items:
            self.remove(join(url, name))

    def _call(self, method: str, path: str, *args: str, **kwargs: Any) -> Any:
        return self.fs.call(method, path, *args, **kwargs)

    def _object(self, url: str) -> dict[str, Any] | None:
        bucket, key = _split(url)
        try:
            return self._call("GET", "b/{}/o/{}", bucket, key, json_out=True)
        except FileNotFoundError:
            return None

    def _list(self, url: str, delimiter: str | None) -> tuple[dict[str, int], list[str]]:
        """Objects (relative name -> bytes) and, with a delimiter, folder names below a URL."""
        bucket, key = _split(url)
        prefix = f"{key.rstrip('/')}/" if key else ""
        items: dict[str, int] = {}
        folders: list[str] = []
        page: str | None = None
        while True:
            query = {"prefix": prefix or None, "delimiter": delimiter, "pageToken": page}
            try:
                answer = self._call("GET", "b/{}/o", bucket, json_out=True, **query)
            except FileNotFoundError:
                return items, folders
            items |= {item["name"].removeprefix(prefix): int(item["size"]) for item in answer.get("items", ())}
            folders += [name.removeprefix(prefix).rstrip("/") for name in answer.get("prefixes", ())]
            page = answer.get("nextPageToken")
            if not page:
                return {name: size for name, size in items.items() if name}, folders

    def _upload(self, url: str, source: Source, condition: dict[str, str]) -> None:
        bucket, key = _split(url)
        path = f"{self.fs._location}/upload/storage/v1/b/{quote(bucket)}/o"
        if isinstance(source, Path) and source.stat().st_size > SIMPLE_BYTES:
            self._upload_in_chunks(path, key, source, condition)
            return
        data = source.read_bytes() if isinstance(source, Path) else source
        boundary = uuid.uuid4().hex
        body = b"".join(
            [
                f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode(),
                json.dumps({"name": key}).encode(),
                f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n".encode(),
                data,
                f"\r\n--{boundary}--".encode(),
            ]
        )
        headers = {"Content-Type": f'multipart/related; boundary="{boundary}"'}
        self._call("POST", path, uploadType="multipart", headers=headers, data=body, **condition)

    def _upload_in_chunks(self, path: str, key: str, source: Path, condition: dict[str, str]) -> None:
        """A resumable upload: the condition is part of its session, so it is demanded when the last piece comes."""
        size = source.stat().st_size
        kind = {"X-Upload-Content-Type": "application/octet-stream"}
        answer, _ = self._call("POST", path, uploadType="resumable", json={"name": key}, headers=kind, **condition)
        with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            start = 0
            while start < size:
                piece = view[start : start + CHUNK_BYTES]
                span = {"Content-Range": f"bytes {start}-{start + len(piece) - 1}/{size}"}
                got, _ = self._call("PUT", str(answer["Location"]), headers=span, data=piece)
                start += len(piece)
                if start < size and "Range" in got:  # the store may have kept less than it was sent
                    start = int(str(got["Range"]).rpartition("-")[2]) + 1

    def _is_mine(self, url: str, source: Source) -> bool:
        """After a refusal: whether the object is what we sent, because the answer to an earlier attempt was lost.

        Leases are unique texts, so an equal one is ours; an equal data file is as good as ours.
        """
        if isinstance(source, Path) and self.size(url) != source.stat().st_size:
            return False
        data = source.read_bytes() if isinstance(source, Path) else source
        try:
            return self.read(url) == data
        except FileNotFoundError:
            return False


def _split(url: str) -> tuple[str, str]:
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key
