"""WARC files (plain, gzip or zstd): the HTML and text responses. A damaged file is read to its last good record."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from tasks.ingest.sources.compressed import BROKEN, open_stream
from tasks.ingest.sources.source import (
    Page,
    Part,
    Rejected,
    Source,
    SourceConfig,
    declared_notice,
    files_state,
    limited,
    list_files,
    relative,
)

PATTERNS = ("*.warc", "*.warc.gz", "*.warc.zst")
CONTENT_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
MAX_RECORD_BYTES = 1 << 28  # a larger record is a reject before it is read


def parts(config: SourceConfig) -> list[Part]:
    """One part a file."""
    return [Part(relative(config, path), (str(path),)) for path in list_files(config, PATTERNS)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a response with status 200 and a type of CONTENT_TYPES; all else that was answered is a reject.

    When the file is damaged or ends too soon, everything before that point is read, and the rest is one reject.
    """
    return limited(config, _records(part.key, Path(part.items[0])))


def _records(name: str, path: Path) -> Iterator[Page | Rejected]:
    with open_stream(path) as file:
        stream = _UpToDamage(file)
        after = "the beginning"
        try:
            for record in ArchiveIterator(
                cast(BinaryIO, stream), record_types=WarcRecordType.response, auto_decode="all"
            ):
                url = str(record.headers.get("WARC-Target-URI") or f"{name}@{record.stream_pos}").strip("<>")
                item = _page(record, url)
                yield item
                if isinstance(item, Rejected) and item.reason == "truncated":
                    return
                after = url
        except OSError as error:
            stream.damage = stream.damage or error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # how FastWARC's Rust core reports a fault of its own
                raise
            stream.damage = stream.damage or OSError(str(error))
    if stream.damage is None and stream.head[:5] != b"WARC/":
        stream.damage = OSError(f"begins with {stream.head!r}, not with 'WARC/'")
    if stream.damage is None and not stream.tail.endswith((b"\r\n\r\n", b"\n\n")):
        stream.damage = EOFError("the file ends in the middle of a record")
    if stream.damage is not None:
        detail = f"nothing can be read after {after}: {type(stream.damage).__name__}: {stream.damage}"
        yield Rejected("damaged_rest", name, detail)


class _UpToDamage:
    """A stream that ends where the file's damage begins, and remembers what it was."""

    def __init__(self, stream: io.BufferedIOBase):
        self._stream = stream
        self.damage: Exception | None = None
        self.head = self.tail = b""
        self._position = 0

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if self.damage is not None:
            return b""
        try:
            data = self._stream.read1(size)  # not read(): that loses what it had before the damage
        except BROKEN as error:
            self.damage = error
            return b""
        self.head = self.head or data[:5]
        self.tail = (self.tail + data[-4:])[-4:]
        self._position += len(data)
        return data


def _page(record: WarcRecord, url: str) -> Page | Rejected:
    headers = record.http_headers
    if headers is None:
        return Rejected("not_http", url)
    declared = str(headers.get("Content-Type") or "")
    if headers.status_code != 200:
        return Rejected("http_status", url, f"status {headers.status_code}")
    if declared and declared.split(";")[0].strip().lower() not in CONTENT_TYPES:
        return Rejected("content_type", url, declared)
    length = record.content_length
    if length > MAX_RECORD_BYTES:
        return Rejected("too_large", url, f"{length:,} bytes")
    encoded = headers.get("Content-Encoding") or headers.get("Transfer-Encoding")
    content = record.reader.read()
    if len(content) < length and not encoded:
        return Rejected("truncated", url, f"{len(content):,} of {length:,} bytes, then the file ends")
    date = record.record_date.isoformat() if record.record_date else ""
    return Page(url, content, declared or "text/html", date)


SOURCE = Source(parts, read, lambda config: files_state(config, PATTERNS), declared_notice)
