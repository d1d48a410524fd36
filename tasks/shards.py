"""Read and write shards (files of documents) at any URL; the same rows always give the same bytes."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import is_local, local_path, storage_for

ROW_GROUP_ROWS = 4096  # a row group of documents stays in the tens of megabytes
ROW_GROUP_BYTES = 16 << 20  # of texts that a writer holds before it lets a row group go
READ_ROWS = 1024
_FORMAT: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "version": "2.6",
    "data_page_version": "2.0",
    "write_statistics": True,
    "use_dictionary": True,
}


class Shard(Protocol):
    """What a manifest says of one file."""

    @property
    def path(self) -> str: ...


class ShardSource(Protocol):
    """What is needed of an artifact to read its shards."""

    def files(self, prefix: str = "") -> Sequence[Shard]: ...

    def file_url(self, path: str) -> str: ...


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet + zstd. Equal rows in equal order give equal bytes, however the table was chunked."""
    sink = io.BytesIO()
    plain = table.combine_chunks().replace_schema_metadata(None)
    pq.write_table(plain, sink, row_group_size=ROW_GROUP_ROWS, **_FORMAT)
    return sink.getvalue()


class ShardWriter:
    """One shard written as its rows come. Use it in `with`; memory holds one row group of ROW_GROUP_BYTES and a batch.

    The same tables in the same order give the same bytes: those of `parquet_bytes` of all rows, while they are fewer
    than fill a row group.
    """

    def __init__(self, sink: BinaryIO, schema: pa.Schema):
        self.rows = 0
        self._schema = schema.remove_metadata()
        self._writer = pq.ParquetWriter(sink, self._schema, **_FORMAT)
        self._held: list[pa.Table] = []
        self._held_rows = self._held_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and (self._held or not self.rows):
            self._flush()
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Add rows; their schema is the shard's."""
        if table.num_rows:
            self.rows += table.num_rows
            self._held.append(table.replace_schema_metadata(None))
            self._held_rows += table.num_rows
            self._held_bytes += table.nbytes
            if self._held_rows >= ROW_GROUP_ROWS or self._held_bytes >= ROW_GROUP_BYTES:
                self._flush()

    def _flush(self) -> None:
        group = pa.concat_tables(self._held) if self._held else self._schema.empty_table()
        self._writer.write_table(group.combine_chunks(), row_group_size=max(1, group.num_rows))
        self._held, self._held_rows, self._held_bytes = [], 0, 0


def read_batches(url: str, columns: Sequence[str] | None = None, *, rows: int = READ_ROWS) -> Iterator[pa.RecordBatch]:
    """The record batches of one Parquet file, in order, `rows` at most in memory (plus one row group)."""
    if is_local(url):
        with pq.ParquetFile(local_path(url)) as file:
            yield from file.iter_batches(batch_size=rows, columns=list(columns) if columns else None)
    else:
        with pq.ParquetFile(pa.BufferReader(storage_for(url).read(url))) as file:
            yield from file.iter_batches(batch_size=rows, columns=list(columns) if columns else None)


def read_documents(
    artifact: ShardSource, prefix: str = "", columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """All rows of an artifact's Parquet shards under a prefix, in the order of the paths."""
    for path in sorted(entry.path for entry in artifact.files(prefix) if entry.path.endswith(".parquet")):
        yield from read_batches(artifact.file_url(path), columns)


def read_table(artifact: ShardSource, prefix: str = "", columns: Sequence[str] | None = None) -> pa.Table:
    """`read_documents` as one table.

    Raises:
        ValueError: no Parquet shard is there (without one there is no schema either).
    """
    batches = list(read_documents(artifact, prefix, columns))
    shards = [entry.path for entry in artifact.files(prefix) if entry.path.endswith(".parquet")]
    if not shards:
        raise ValueError(
            f"prefix={prefix!r} holds no Parquet shard among {[entry.path for entry in artifact.files()][:5]}: "
            "a table needs a schema. Name a prefix that the stage wrote."
        )
    if batches:
        return pa.Table.from_batches(batches)
    url = artifact.file_url(shards[0])
    with pq.ParquetFile(pa.BufferReader(storage_for(url).read(url))) as file:
        return file.schema_arrow.empty_table()
