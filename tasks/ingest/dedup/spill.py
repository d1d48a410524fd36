"""What does not fit in memory, in files: fixed records and rows of text, divided into parts."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

MAX_PARTS = 4096


def num_parts(total_bytes: int, part_bytes: int) -> int:
    """Into how many parts of about `part_bytes` something is divided."""
    return max(1, min(MAX_PARTS, -(-total_bytes // max(part_bytes, 1))))


def part_of(hashes: np.ndarray, parts: int) -> np.ndarray:
    """The part that each evenly spread 64-bit hash belongs to."""
    return ((hashes >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)).astype(np.int64)


class Records:
    """Records of one numpy dtype in a file for each part, in the order they were added.

    At most `buffer_bytes` wait in memory. A part is read after `flush`.
    """

    def __init__(self, folder: Path, dtype: np.dtype, buffer_bytes: int):
        shutil.rmtree(folder, ignore_errors=True)  # of a run that died
        folder.mkdir(parents=True)
        self.dtype = dtype
        self.counts: dict[int, int] = {}
        self._folder = folder
        self._buffer_bytes = buffer_bytes
        self._waiting: dict[int, list[np.ndarray]] = {}
        self._waiting_bytes = 0

    def add(self, records: np.ndarray, parts: np.ndarray | int = 0) -> None:
        """Add records, each to its part (or all to one)."""
        if isinstance(parts, int) or not parts.any():
            self._add(parts if isinstance(parts, int) else 0, records)
        else:
            order = np.argsort(parts.astype(np.uint16), kind="stable")
            ordered = records[order]
            counts = np.bincount(parts)
            ends = np.cumsum(counts)
            for part in np.flatnonzero(counts).tolist():
                self._add(part, ordered[ends[part] - counts[part] : ends[part]])
        if self._waiting_bytes > self._buffer_bytes:
            self.flush()

    def _add(self, part: int, records: np.ndarray) -> None:
        if len(records):
            self.counts[part] = self.counts.get(part, 0) + len(records)
            self._waiting.setdefault(part, []).append(records)
            self._waiting_bytes += records.nbytes

    def flush(self) -> None:
        """Write what waits."""
        for part, arrays in self._waiting.items():
            with self._path(part).open("ab") as file:
                for records in arrays:
                    records.tofile(file)
        self._waiting, self._waiting_bytes = {}, 0

    def __len__(self) -> int:
        return sum(self.counts.values())

    def read(self, part: int = 0) -> np.ndarray:
        """All records of a part."""
        path = self._path(part)
        return np.fromfile(path, self.dtype) if path.exists() else np.zeros(0, self.dtype)

    def chunks(self, rows: int, part: int = 0) -> Iterator[np.ndarray]:
        """The records of a part, `rows` at a time."""
        path = self._path(part)
        if path.exists():
            with path.open("rb") as file:
                while len(records := np.fromfile(file, self.dtype, rows)):
                    yield records

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self._folder)

    def _path(self, part: int) -> Path:
        return self._folder / f"{part:05d}.bin"


class Rows:
    """Arrow tables in a folder for each part, one file for each flush. At most `buffer_bytes` wait in memory."""

    def __init__(self, folder: Path, buffer_bytes: int):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self._buffer_bytes = buffer_bytes
        self._waiting: dict[int, list[pa.Table]] = {}
        self._waiting_bytes = 0
        self._flushes = 0

    def add(self, rows: pa.Table, parts: np.ndarray) -> None:
        """Add rows, each to its part."""
        for part in np.unique(parts).tolist():
            own = rows.take(pa.array(np.flatnonzero(parts == part)))
            self._waiting.setdefault(part, []).append(own)
            self._waiting_bytes += own.nbytes
        if self._waiting_bytes > self._buffer_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        for part, tables in self._waiting.items():
            home = self.path(part)
            home.mkdir(exist_ok=True)
            whole = pa.concat_tables(tables)
            with (
                pa.OSFile(str(home / f"{self._flushes:08d}.arrow"), "wb") as sink,
                pa.ipc.new_stream(sink, whole.schema) as writer,
            ):
                writer.write_table(whole, max_chunksize=READ_ROWS)
        self._waiting, self._waiting_bytes = {}, 0
        self._flushes += 1

    def path(self, part: int) -> Path:
        """The folder of a part; it is there when the part has rows."""
        return self.folder / f"{part:05d}"

    def remove(self) -> None:
        """Delete the files."""
        shutil.rmtree(self.folder)


READ_ROWS = 256


def read_rows(folder: Path) -> Iterator[pa.RecordBatch]:
    """The rows of one part in the order they were added, READ_ROWS at a time."""
    for path in sorted(folder.glob("*.arrow")):
        with pa.OSFile(str(path), "rb") as source, pa.ipc.open_stream(source) as reader:
            yield from reader
