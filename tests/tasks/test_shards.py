"""Shards: equal rows give equal bytes, and every row comes back."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import shards as shards_module
from tasks.artifact import Artifact, Stage, Workspace, produce
from tasks.config import StageConfig
from tasks.records import DOCUMENT, document_id, table
from tasks.shards import READ_ROWS, ROW_GROUP_ROWS, ShardWriter, parquet_bytes, read_documents, read_table

texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


def document(number: int, text: str) -> dict[str, str]:
    return {
        "id": document_id("s", str(number), text),
        "text": text,
        "url": str(number),
        "source": "s",
        "language": "ja",
        "licence": "CC0-1.0",
        "crawl_time": "",
        "meta": "{}",
    }


@given(st.lists(texts, max_size=40), st.integers(1, 7))
def test_bytes_depend_on_rows_alone_not_on_how_the_table_was_put_together(rows: list[str], size: int):
    whole = table([document(n, text) for n, text in enumerate(rows)], DOCUMENT)
    pieces = [whole.slice(start, size) for start in range(0, len(rows), size)] or [whole]
    chunked = pa.concat_tables(pieces).replace_schema_metadata({"made": "otherwise"})
    assert parquet_bytes(chunked) == parquet_bytes(whole) == parquet_bytes(whole)
    assert pq.read_table(pa.BufferReader(parquet_bytes(whole))).equals(whole)


class ShardConfig(StageConfig):
    rows: tuple[int, ...]


def shards(ws: Workspace, config: ShardConfig, inputs: dict[str, Artifact]) -> None:
    for shard, rows in enumerate(config.rows):
        with ws.unit(str(shard)) as unit:
            documents = [document(shard * 100_000 + n, f"text {n}") for n in range(rows)]
            unit.write_parquet(f"docs/{shard:05}.parquet", table(documents, DOCUMENT))
            unit.write_bytes(f"docs/{shard:05}.txt", b"not a shard")


SHARDS = Stage("shards", "1", shards, ("tasks.shards",))


def test_all_rows_come_back_in_order_from_any_store(any_store: str):
    sizes = (3, 0, ROW_GROUP_ROWS + 1)
    artifact = produce(any_store, SHARDS, "x", ShardConfig(rows=sizes), {})
    batches = list(read_documents(artifact, "docs/"))
    assert max(batch.num_rows for batch in batches) <= READ_ROWS
    urls = [int(url) for batch in batches for url in batch.column("url").to_pylist()]
    assert urls == [shard * 100_000 + n for shard, rows in enumerate(sizes) for n in range(rows)]
    assert [entry.rows for entry in artifact.files() if entry.path.endswith("parquet")] == list(sizes)
    ids = read_table(artifact, columns=["id"])
    assert ids.schema.names == ["id"]
    assert ids.num_rows == sum(sizes)


def test_an_artifact_of_empty_shards_still_has_a_schema(store: str):
    artifact = produce(store, SHARDS, "x", ShardConfig(rows=(0,)), {})
    assert read_table(artifact, "docs/").schema.names == DOCUMENT.names
    with pytest.raises(ValueError, match="holds no Parquet shard"):
        read_table(artifact, "pages/")


@given(st.lists(texts, max_size=40), st.integers(1, 7))
def test_a_shard_written_as_it_comes_has_the_bytes_of_one_written_whole(rows: list[str], size: int):
    whole = table([document(n, text) for n, text in enumerate(rows)], DOCUMENT)
    sink = io.BytesIO()
    with ShardWriter(sink, DOCUMENT) as writer:
        for start in range(0, len(rows), size):
            writer.write(whole.slice(start, size))
    assert sink.getvalue() == parquet_bytes(whole)
    assert writer.rows == len(rows)


@pytest.mark.parametrize(("rows", "groups"), [(ROW_GROUP_ROWS - 1, 1), (ROW_GROUP_ROWS, 1), (ROW_GROUP_ROWS + 1, 2)])
def test_a_row_group_ends_when_it_has_its_rows(rows: int, groups: int):
    sink = io.BytesIO()
    with ShardWriter(sink, pa.schema([("n", pa.int64())])) as writer:
        for start in range(0, rows, 128):
            writer.write(pa.table({"n": list(range(start, min(start + 128, rows)))}))
    file = pq.ParquetFile(pa.BufferReader(sink.getvalue()))
    assert (file.num_row_groups, file.read().column("n").to_pylist()) == (groups, list(range(rows)))


def test_a_row_group_ends_when_it_has_its_bytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shards_module, "ROW_GROUP_BYTES", 1000)
    sink = io.BytesIO()
    with ShardWriter(sink, pa.schema([("t", pa.string())])) as writer:
        for _ in range(10):
            writer.write(pa.table({"t": ["x" * 496]}))  # 500 with its offsets, or a little more
    file = pq.ParquetFile(pa.BufferReader(sink.getvalue()))
    assert file.num_row_groups == 5
