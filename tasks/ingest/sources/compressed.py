"""Open plain, gzip, zstd and bzip2 files as one stream that says when it ends too soon.

The first bytes decide, not the name: a page called `.gz` may be plain, and a dump without a suffix packed.
"""

import bz2
import io
import zlib
from pathlib import Path
from typing import IO, Any

import zstandard

READ_BYTES = 1 << 20
GZIP, ZSTD, BZIP2 = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh"
BROKEN = (OSError, EOFError, zlib.error, zstandard.ZstdError)  # what reading a damaged or truncated stream raises


def open_stream(path: Path, start: int = 0) -> io.BufferedIOBase:
    """The bytes of a file from an offset on (gzip), unpacked. Reading past the end of a truncated one raises EOFError.

    Memory holds one megabyte, however much a few packed bytes grow.
    """
    file = path.open("rb")
    file.seek(start)
    magic = file.read(4)
    file.seek(start)
    if magic.startswith(GZIP):
        return io.BufferedReader(Gzip(file), READ_BYTES)
    if magic.startswith(ZSTD):
        return io.BufferedReader(_Zstd(file), READ_BYTES)
    if magic.startswith(BZIP2):
        file.close()
        return bz2.open(path, "rb")
    return file


class Gzip(io.RawIOBase):
    """All members of a gzip file. `member` is the offset of the one being read: after damage, the next may be whole."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._frame: Any = None
        self._packed = b""
        self.member = file.tell()
        self._read = file.tell()  # packed bytes that were taken from the file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            packed = self._packed or self._take()
            if self._frame is None:
                packed = packed.lstrip(b"\0")  # padding between members, and after the last
                if not packed and not (packed := self._take().lstrip(b"\0")):
                    return 0
                self.member = self._read - len(packed)
                self._frame = zlib.decompressobj(31)
            if not packed:
                raise EOFError("gzip stream ended in the middle of a member")
            plain = self._frame.decompress(packed, len(buffer))
            self._packed = self._frame.unused_data if self._frame.eof else self._frame.unconsumed_tail
            self._frame = None if self._frame.eof else self._frame
            if plain:
                buffer[: len(plain)] = plain
                return len(plain)

    def _take(self) -> bytes:
        packed = self._file.read(1 << 16)
        self._read += len(packed)
        return packed

    def close(self) -> None:
        self._file.close()
        super().close()


class _Zstd(io.RawIOBase):
    """All frames of a zstd file. The library's own reader takes a truncated frame for a whole one."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._frame: Any = None
        self._packed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            packed = self._packed or self._file.read(1 << 16)
            if not packed:
                if self._frame is not None:
                    raise EOFError("zstd stream ended in the middle of a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._plain = memoryview(self._frame.decompress(packed))
            self._packed = self._frame.unused_data if self._frame.eof else b""
            self._frame = None if self._frame.eof else self._frame
        size = min(len(buffer), len(self._plain))
        buffer[:size] = self._plain[:size]
        self._plain = self._plain[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def next_member(path: Path, start: int) -> int | None:
    """The offset of the next gzip member at or after `start` whose first bytes can be unpacked; None at the end."""
    with path.open("rb") as file:
        while True:
            file.seek(start)
            block = file.read(READ_BYTES)
            found = block.find(GZIP)
            if found < 0:
                if len(block) < READ_BYTES:
                    return None
                start += len(block) - len(GZIP) + 1
                continue
            start += found
            file.seek(start)
            try:
                if zlib.decompressobj(31).decompress(file.read(1 << 16), 64):
                    return start
            except zlib.error:
                pass  # three bytes that only look like a head
            start += 1
