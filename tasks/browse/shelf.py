"""What an artifact holds that a person can read: shards of documents or conversations, and rows at a place."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artifact import Artifact
from tasks.errors import ConfigError
from tasks.storage import is_local, local_path, storage_for

BODIES = ("text", "messages")  # the column that is read: of documents, of conversations
BATCH_ROWS = 256


@dataclass(frozen=True, order=True)
class Place:
    """A row of an artifact: a shard and the number of the row in it. Written `docs/00000.parquet:17`."""

    path: str
    row: int

    @classmethod
    def parse(cls, text: str) -> "Place":
        """The place that was written.

        Raises:
            ConfigError: it is none.
        """
        path, _, row = text.rpartition(":")
        if not path or not row.isdecimal() or len(row) > 12:
            raise ConfigError(
                f"place {text[:80]!r}: a row is found by its shard and number. Write it like docs/00000.parquet:17."
            )
        return cls(path, int(row))

    def __str__(self) -> str:
        return f"{self.path}:{self.row}"


@dataclass(frozen=True)
class Shelf:
    """A finished artifact, opened for reading."""

    artifact: Artifact

    @cached_property
    def folders(self) -> dict[str, tuple[str, ...]]:
        """Folder -> its shards, for those whose rows have an id and a body; found by the schema of the first shard."""
        found: dict[str, list[str]] = {}
        for entry in self.artifact.files():
            if entry.path.endswith(".parquet"):
                found.setdefault(entry.path.rpartition("/")[0], []).append(entry.path)
        return {folder: tuple(paths) for folder, paths in found.items() if self._body_in(paths[0])}

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """All shards of the folders, in order."""
        return tuple(path for paths in self.folders.values() for path in paths)

    @cached_property
    def body(self) -> str:
        """`text` or `messages`; `text` where there is nothing to read."""
        return self._body_in(self.shards[0]) if self.shards else BODIES[0]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns of the shards that hold words."""
        return self._strings(self.shards[0]) if self.shards else ()

    def rows_of(self, path: str) -> int:
        """How many rows a shard has."""
        known = self.artifact.entry(path).rows
        if known is not None:
            return known
        with self.open(path) as file:
            return file.metadata.num_rows

    def after(self, path: str, row: int) -> Place | None:
        """The place of a row, or of the first one of the next shard where the shard ends before; None at the end."""
        if row < self.rows_of(path):
            return Place(path, row)
        later = self.shards[self.shards.index(path) + 1 :] if path in self.shards else ()
        return next((Place(shard, 0) for shard in later if self.rows_of(shard)), None)

    def draw(self, seed: int, count: int) -> list[Place]:
        """Places drawn over all rows, each row as likely as any other; the same seed draws the same."""
        ends = np.cumsum([self.rows_of(path) for path in self.shards])
        total = int(ends[-1]) if len(ends) else 0
        drawn = np.sort(np.random.default_rng(seed).choice(total, min(count, total), replace=False, shuffle=False))
        shards = np.searchsorted(ends, drawn, side="right").tolist()
        firsts = [0, *ends.tolist()]
        return [Place(self.shards[n], row - firsts[n]) for n, row in zip(shards, drawn.tolist(), strict=True)]

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[pq.ParquetFile]:
        """A shard that is part of the artifact.

        Raises:
            ConfigError: it is not; what a page asks for is never a path of its own choice.
        """
        if not any(entry.path == path for entry in self.artifact.manifest.files) or not path.endswith(".parquet"):
            raise ConfigError(
                f"{path[:120]!r} is no shard of {self.artifact.url}: only what its manifest lists can be read. "
                "Start from the list of shards."
            )
        url = self.artifact.file_url(path)
        source = str(local_path(url)) if is_local(url) else pa.BufferReader(storage_for(url).read(url))
        with pq.ParquetFile(source) as file:
            yield file

    def rows(self, place: Place, count: int, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Rows from a place on, at most `count`, none beyond the shard; reads the row groups they are in."""
        found: list[dict[str, Any]] = []
        for first, batch in self.batches(place.path, columns, place.row):
            skipped = max(0, place.row - first)
            found += batch.slice(skipped, count - len(found)).to_pylist()
            if len(found) >= count:
                break
        return found

    def batches(
        self, path: str, columns: Sequence[str] | None = None, start: int = 0
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(number of the first row, batch) of a shard, from the row group that holds the row `start`."""
        with self.open(path) as file:
            first, groups = 0, list(range(file.num_row_groups))
            while groups and first + (size := file.metadata.row_group(groups[0]).num_rows) <= start:
                first += size
                groups.pop(0)
            for batch in file.iter_batches(BATCH_ROWS, groups, list(columns) if columns else None) if groups else ():
                if first + batch.num_rows > start:
                    yield first, batch
                first += batch.num_rows

    def _strings(self, path: str) -> tuple[str, ...]:
        with self.open(path) as file:
            return tuple(field.name for field in file.schema_arrow if pa.types.is_string(field.type))

    def _body_in(self, path: str) -> str:
        names = self._strings(path)
        return next((body for body in BODIES if body in names and "id" in names), "")
