"""Records of web archives: WARC 0.x to 1.1 and ARC 1 to 2, plain or packed, to pages.

A damaged gzip member costs the records in it: reading goes on at the next whole one. Any other damaged file is read to
its last good record, and the rest is one reject.
"""

import contextlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from tasks.ingest.decode import decode
from tasks.ingest.sources.compressed import BROKEN, Gzip, next_member, open_stream
from tasks.ingest.sources.source import Page, Rejected

CONTENT_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
PAGES = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
MAX_RECORD_BYTES = 1 << 28  # a larger record is a reject before it is read
MAX_ARC_LINE = 1 << 16
NOT_PAGES = ("metadata:", "urn:", "dns:", "whois:")  # what crawlers say about themselves
_GZIP = b"\x1f\x8b"  # how a member begins
_UNPACKED = (OSError, EOFError, ValueError, zlib.error, zstandard.ZstdError)


def records(name: str, path: Path) -> Iterator[Page | Rejected]:
    """Every page of an archive in its order; all else that was answered, and what cannot be read, is a reject."""
    start: int | None = 0
    after, cut = "the beginning", False  # the last page or reject; whether it was cut off, which is counted then
    while start is not None:
        with open_stream(path, start) as file:
            stream = _UpToDamage(file)
            items = _arc(name, stream) if stream.begins_with(b"filedesc://") else _warc(name, stream)
            for item in items:
                yield item
                after, cut = item.url, isinstance(item, Rejected) and item.reason == "truncated"
                if cut:
                    stream.damage = stream.damage or EOFError("the record before ends too soon")
            packed = getattr(file, "raw", None)
            member = packed.member if isinstance(packed, Gzip) else None
        if stream.damage is None:
            return
        start = next_member(path, member + 1) if member is not None else None
        said = f"{type(stream.damage).__name__}: {stream.damage}"
        if start is None and not cut:
            yield Rejected("damaged_rest", name, f"nothing can be read after {after}: {said}")
        elif not cut:
            yield Rejected("damaged_record", f"{name}@{member}", f"goes on at byte {start:,}, after {after}: {said}")


def record(name: str, packed: bytes) -> Page | Rejected:
    """The page of one record (a gzip member, as an index of Common Crawl names it)."""
    try:
        plain = zlib.decompressobj(31).decompress(packed, MAX_RECORD_BYTES)
    except zlib.error as error:
        return Rejected("unreadable", name, str(error))
    stream = _UpToDamage(cast(io.BufferedIOBase, io.BufferedReader(cast(io.RawIOBase, io.BytesIO(plain)))))
    items = list(_arc(name, stream) if stream.begins_with(b"filedesc://") else _warc(name, stream))
    said = stream.damage or "no response, resource or conversion record"
    return items[0] if items else Rejected("unreadable", name, str(said))


class _UpToDamage:
    """A stream that ends where the file's damage begins, and remembers what it was."""

    def __init__(self, stream: io.BufferedIOBase):
        self._stream = stream
        self.damage: Exception | None = None
        self.tail = b""
        self.ended = False
        self._position = 0

    def begins_with(self, magic: bytes) -> bool:
        with contextlib.suppress(*BROKEN):  # reading it will say so again
            return cast(io.BufferedReader, self._stream).peek(len(magic)).startswith(magic)
        return False

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if self.damage is not None:
            return b""
        try:
            data = self._stream.read1(size)  # not read(): that loses what it had before the damage
        except BROKEN as error:
            self.damage = error
            data = b""
        self.ended = self.ended or not data
        self.tail = (self.tail + data[-4:])[-4:]
        self._position += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """So many bytes, or fewer where the stream ends."""
        parts: list[bytes] = []
        while size and (data := self.read(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def line(self) -> bytes:
        """Up to and with the next line break; at most MAX_ARC_LINE bytes."""
        if self.damage is not None:
            return b""
        try:
            return self._stream.readline(MAX_ARC_LINE)
        except BROKEN as error:
            self.damage = error
            return b""


def _warc(name: str, stream: _UpToDamage) -> Iterator[Page | Rejected]:
    magic = stream.begins_with(b"WARC/")
    try:
        for found in ArchiveIterator(cast(BinaryIO, stream), record_types=PAGES, auto_decode="none"):
            url = str(found.headers.get("WARC-Target-URI") or f"{name}@{found.stream_pos}").strip("<>")
            item = _page(found, url)
            if isinstance(item, Rejected) and stream.ended and len(found.reader.read()) < found.content_length:
                item = Rejected("truncated", url, "the file ends in the middle of this record")
            yield item
    except OSError as error:
        stream.damage = stream.damage or error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how FastWARC's Rust core reports a fault of its own
            raise
        stream.damage = stream.damage or OSError(str(error))
    if stream.damage is None and not magic:
        stream.damage = OSError("begins neither with 'WARC/' nor with 'filedesc://'")
    if stream.damage is None and not stream.tail.endswith((b"\r\n\r\n", b"\n\n")):
        stream.damage = EOFError("the file ends in the middle of a record")


def _arc(name: str, stream: _UpToDamage) -> Iterator[Page | Rejected]:
    """Records of an ARC file: a line with URL, address, date, type and (last) length, then what the server said."""
    number = 0
    while line := stream.line():
        if not line.strip():
            continue
        # A URL may hold blanks; version 1 has five fields, version 2 ten. The last is the length in both.
        fields = line.decode("utf-8", "replace").split()
        length = fields[-1] if len(fields) >= 5 else ""
        if not length.isdecimal():
            stream.damage = OSError(f"the head of record {number} has no length: {line[:200]!r}")
            return
        body = stream.exactly(min(int(length), MAX_RECORD_BYTES + 1))
        url = fields[0] if len(fields) >= 10 else " ".join(fields[:-4])
        if len(body) < int(length):
            reason = "too_large" if len(body) > MAX_RECORD_BYTES else "truncated"
            yield Rejected(reason, url, f"{len(body):,} of {int(length):,} bytes, then the file ends")
            stream.damage = stream.damage or EOFError("the file ends in the middle of a record")
            return
        number += 1
        if not url.startswith("filedesc://"):
            yield _arc_page(url, fields[2] if len(fields) >= 10 else fields[-3], body)


def _arc_page(url: str, date: str, body: bytes) -> Page | Rejected:
    time = f"{date[:4]}-{date[4:6]}-{date[6:8]}T{date[8:10]}:{date[10:12]}:{date[12:14]}Z" if len(date) == 14 else ""
    for found in ArchiveIterator(io.BytesIO(_response(url, time, body)), record_types=PAGES, auto_decode="none"):
        return _page(found, url)
    return Rejected("not_http", url)


def _page(found: WarcRecord, url: str) -> Page | Rejected:
    headers = found.http_headers
    if url.startswith(NOT_PAGES):
        return Rejected("not_a_page", url)
    is_http = found.record_type == WarcRecordType.response
    if is_http and headers is None:
        return Rejected("not_http", url)
    declared = str((headers if headers is not None else found.headers).get("Content-Type") or "")
    if headers is not None and headers.status_code != 200:
        return Rejected("http_status", url, f"status {headers.status_code}")
    if declared and declared.split(";")[0].strip().lower() not in CONTENT_TYPES:
        return Rejected("content_type", url, declared)
    length = found.content_length
    if length > MAX_RECORD_BYTES:
        return Rejected("too_large", url, f"{length:,} bytes")
    content = found.reader.read()
    if len(content) < length:
        return Rejected("truncated", url, f"{len(content):,} of {length:,} bytes, then the file ends")
    if headers is not None:
        try:
            content = _unchunked(content) if _says(headers, "Transfer-Encoding", "chunked") else content
            content = _unpacked(content, str(headers.get("Content-Encoding") or "").strip().lower())
        except _UNPACKED as error:
            return Rejected("content_encoding", url, f"{headers.get('Content-Encoding')}: {error}")
    date = found.record_date.isoformat() if found.record_date else ""
    return Page(url, content, declared or "text/html", date)


def _says(headers: object, name: str, word: str) -> bool:
    return word in str(cast(dict[str, str], headers).get(name) or "").lower()


def _unchunked(body: bytes) -> bytes:
    """The body without the lengths of its chunks; as it is where the header lies and there are none."""
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        end = body.find(b"\r\n", at, at + 1000)
        try:
            size = int(body[at:end].split(b";")[0], 16) if end >= 0 else -1
        except ValueError:
            size = -1
        if size < 0:
            return body if not parts else b"".join([*parts, body[at:]])
        if not size:
            break
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


def _unpacked(body: bytes, encoding: str) -> bytes:
    """The body as its Content-Encoding says, or as it is where that is a lie (crawlers often store unpacked bodies)."""
    unpack = {"gzip": _inflated, "x-gzip": _inflated, "deflate": _inflated, "br": _brotli, "zstd": _zstd}.get(encoding)
    if unpack is None or not body:
        return body
    try:
        return unpack(body)
    except _UNPACKED:
        if decode(body) is None:  # not text either: it is what the header says, and damaged
            raise
        return body


def _inflated(body: bytes) -> bytes:
    """What was packed with gzip (all members), zlib or bare deflate; of a body that was cut off, what there is."""
    for window in (47, -15):
        plain, rest = b"", body
        with contextlib.suppress(zlib.error):
            while rest and len(plain) < MAX_RECORD_BYTES:
                member = zlib.decompressobj(window)
                plain += member.decompress(rest, MAX_RECORD_BYTES - len(plain))
                rest = member.unused_data if member.unused_data.startswith(_GZIP) else b""
        if plain:
            return plain
    raise ValueError("cannot be unpacked")


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(body, max_output_size=MAX_RECORD_BYTES)


def _brotli(body: bytes) -> bytes:
    made = _response("x:", "", b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n" + body)
    return b"".join(found.reader.read() for found in ArchiveIterator(io.BytesIO(made), auto_decode="all"))


def _response(url: str, time: str, body: bytes) -> bytes:
    """A WARC record of a server's answer."""
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\n" + (f"WARC-Date: {time}\r\n" if time else "")
    head += f"Content-Type: application/http\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("utf-8", "replace") + body + b"\r\n\r\n"
