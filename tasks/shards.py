"""Read and write shards (files of documents) at any URL; the same rows always give the same bytes."""

import io
from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import is_local, local_path, storage_for

ROW_GROUP_ROWS = 4096  # a row group of documents stays in the tens of megabytes
READ_ROWS = 1024


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
    pq.write_table(
        plain,
        sink,
        compression="zstd",
        compression_level=3,
        version="2.6",
        data_page_version="2.0",
        row_group_size=ROW_GROUP_ROWS,
        write_statistics=True,
        use_dictionary=True,
    )
    return sink.getvalue()


def read_batches(url: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The record batches of one Parquet file, in order, READ_ROWS at most in memory (plus one row group)."""
    if is_local(url):
        with pq.ParquetFile(local_path(url)) as file:
            yield from file.iter_batches(batch_size=READ_ROWS, columns=list(columns) if columns else None)
    else:
        with pq.ParquetFile(pa.BufferReader(storage_for(url).read(url))) as file:
            yield from file.iter_batches(batch_size=READ_ROWS, columns=list(columns) if columns else None)


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
