"""Open plain, gzip and zstd files as one stream that says when it ends too soon."""

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

import zstandard

READ_BYTES = 1 << 20
BROKEN = (OSError, EOFError, zlib.error, zstandard.ZstdError)  # what reading a damaged or truncated stream raises


def open_stream(path: Path) -> io.BufferedIOBase:
    """The bytes of a file, unpacked by its suffix. Reading past the end of a truncated one raises EOFError."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        return io.BufferedReader(_Zstd(path.open("rb")), READ_BYTES)
    return path.open("rb")


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
            packed = self._packed or self._file.read(READ_BYTES)
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
