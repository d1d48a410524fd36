"""The index of a corpus: what dedup keeps of each document beside its text, and where the text is.

A document is named by one number, its shard's in the upper half and its row in the lower.
"""

import datetime
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.artifact import Artifact
from tasks.errors import DataFault
from tasks.ingest.comparable import comparables
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.shingles import SKETCH, SKETCH_BATCH, band_keys, flat_shingles, text_digest
from tasks.shards import read_batches
from tasks.storage import join

ROW_BITS = 32
_HEX_ID = re.compile(r"[0-9a-f]{16}")
_LENGTH = (1 << 31) - 1
_EPOCH = (1 << 33) - 1  # seconds, until the year 2242


@dataclass(frozen=True)
class Shard:
    """One file of documents: of the corpus at hand, or of an older one whose documents stay whatever comes."""

    number: int
    path: str  # in its artifact, without the folder: 00000.parquet
    index_url: str
    text_urls: tuple[str, ...]
    old: bool = False


@dataclass(frozen=True)
class Ranks:
    """The total order of documents: whoever comes first is kept. Old ones, then by `first`, `second`, `third`."""

    docs: np.ndarray
    old: bool
    first: np.ndarray  # uint64: age and length
    second: np.ndarray  # uint64: the id
    third: np.ndarray  # uint64: the text, should two ids look alike


def index_schema(config: DedupConfig) -> pa.Schema:
    """Columns of index/*.parquet: a row for each document that was read, kept or not, in its order."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("length", pa.int64(), nullable=False),  # characters of the comparable text
            pa.field("digest", pa.binary(32), nullable=False),  # of the comparable text
            pa.field("crawl_time", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("bands", pa.binary(8 * config.bands)),  # keys, little-endian; none of a text without shingles
        ]
    )


def sketch(url: str, config: DedupConfig) -> pa.Table:
    """The index of one shard. Memory holds one batch of texts and the index itself."""
    schema = index_schema(config)
    parts: list[pa.RecordBatch] = []
    for batch in read_batches(url, ["id", "source", "crawl_time", "text"]):
        for start in range(0, batch.num_rows, SKETCH_BATCH):
            rows = batch.slice(start, SKETCH_BATCH)
            texts = comparables(rows.column("text").to_pylist())
            hashes, offsets = flat_shingles(texts, config.ngram, config.shingle)
            keys = band_keys(hashes, offsets, (config.bands, config.rows), config.seed)
            columns = {
                "id": rows.column("id"),
                "length": pa.array(list(map(len, texts)), pa.int64()),
                "digest": pa.array([text_digest(text) for text in texts], pa.binary(32)),
                "crawl_time": rows.column("crawl_time"),
                "source": rows.column("source"),
                "bands": _fixed(keys, offsets[1:] > offsets[:-1]),
            }
            parts.append(
                pa.record_batch([columns[name].cast(schema.field(name).type) for name in schema.names], schema)
            )
    return pa.Table.from_batches(parts, schema)


def _fixed(keys: np.ndarray, valid: np.ndarray) -> pa.Array:
    bits = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    data = pa.py_buffer(np.ascontiguousarray(keys).tobytes())
    return pa.Array.from_buffers(pa.binary(8 * keys.shape[1]), len(keys), [bits, data])


def new_shard(url: str, docs_url: str, name: str, number: int = 0) -> Shard:
    """A shard of the documents that the artifact at `url` is made of."""
    return Shard(number, name, join(url, "data", "index", name), (join(docs_url, name),))


def old_shards(artifact: Artifact, config: DedupConfig, first_number: int) -> list[Shard]:
    """The shards of a finished dedup artifact, numbered from `first_number` on.

    Raises:
        DataFault: its sketches were made otherwise, or it has none.
    """
    theirs = DedupConfig.model_validate(artifact.manifest.config).identity() if artifact.files("index/") else {}
    version = artifact.manifest.extra.get("sketch", "")
    if theirs != config.identity() or version != SKETCH:
        raise DataFault(
            f"against {artifact.url}: its index is {theirs or 'absent'}, sketch {version!r}; this run makes "
            f"{config.identity()}, sketch {SKETCH!r}: bands of different sketches never meet, so nothing would be "
            "found. Give this run the same values, or make that artifact again with these."
        )
    names = [entry.path.removeprefix("index/") for entry in artifact.files("index/")]
    return [
        Shard(
            number=first_number + i,
            path=name,
            index_url=artifact.file_url(f"index/{name}"),
            text_urls=tuple(artifact.file_url(f"{part}/{name}") for part in ("train", "heldout")),
            old=True,
        )
        for i, name in enumerate(names)
    ]


def read_index(shard: Shard, columns: list[str]) -> tuple[pa.Table, np.ndarray]:
    """Columns of a shard's index and the number of each document; of an old shard, those that were kept."""
    wanted = columns if "id" in columns or not shard.old else [*columns, "id"]
    batches = list(read_batches(shard.index_url, wanted))
    if not batches:
        return pa.table({name: pa.array([]) for name in wanted}), np.zeros(0, np.int64)
    table = pa.Table.from_batches(batches).combine_chunks()
    docs = (np.int64(shard.number) << ROW_BITS) + np.arange(table.num_rows)
    if shard.old:
        rows = (batch for url in shard.text_urls for batch in read_batches(url, ["id"]))
        ids = {name for batch in rows for name in batch.column("id").to_pylist()}
        kept = np.array([name in ids for name in table["id"].to_pylist()], bool)
        return table.filter(pa.array(kept)).combine_chunks(), docs[kept]
    return table, docs


def shard_of(docs: np.ndarray) -> np.ndarray:
    """The number of the shard that each document is in."""
    return docs >> ROW_BITS


def row_of(docs: np.ndarray) -> np.ndarray:
    """The row of each document in its shard."""
    return docs & ((1 << ROW_BITS) - 1)


def fixed_words(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """A fixed-size binary column as uint64 of shape [rows, width]; zeros where it is null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) and array.num_chunks else array
    if not len(array):
        return np.zeros((0, width), np.uint64)
    data = np.frombuffer(array.buffers()[1], np.uint64)
    return data[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)


RANK_COLUMNS = ["id", "length", "crawl_time", "digest"]


def ranks(table: pa.Table, docs: np.ndarray, config: DedupConfig, old: bool) -> Ranks:
    """The order of documents, from RANK_COLUMNS of their index."""
    length = np.minimum(table["length"].to_numpy(), _LENGTH).astype(np.uint64)
    first = np.uint64(_LENGTH) - length
    if config.keep == "newest":
        age = [_EPOCH - _seconds(when) for when in table["crawl_time"].to_pylist()]
        first |= np.array(age, np.uint64) << np.uint64(31)
    second = np.array([_id_number(name) for name in table["id"].to_pylist()], np.uint64)
    return Ranks(docs, old, first, second, fixed_words(table["digest"], 4)[:, 0])


def _id_number(name: str) -> int:
    """Ids of this project in their own order; any other id by a hash."""
    if _HEX_ID.fullmatch(name):
        return int(name, 16)
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _seconds(when: str) -> int:
    """Seconds since 1970 of an ISO 8601 time (UTC when it names no zone); 0 when it is unknown."""
    try:
        time = datetime.datetime.fromisoformat(when)
    except ValueError:
        return 0
    zoned = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
    return min(max(int(zoned.timestamp()), 0), _EPOCH)


def texts_of(shard: Shard, docs: np.ndarray, ids: list[str] | None = None) -> Iterator[tuple[np.ndarray, list[str]]]:
    """The wanted documents of a shard (sorted numbers) with their comparable texts, a batch at a time.

    Args:
        ids: of the wanted documents; needed for an old shard, whose texts are found by id.
    """
    wanted = row_of(docs)
    by_id = dict(zip(ids or [], docs.tolist(), strict=False))
    row = 0
    for url in shard.text_urls:
        for batch in read_batches(url, ["id", "text"]):
            if shard.old:
                here = [by_id.get(name) for name in batch.column("id").to_pylist()]
                found = np.array([doc for doc in here if doc is not None], np.int64)
                rows = np.array([i for i, doc in enumerate(here) if doc is not None], np.int64)
            else:
                low, high = np.searchsorted(wanted, (row, row + batch.num_rows))
                found, rows = docs[low:high], wanted[low:high] - row
                row += batch.num_rows
            for start in range(0, len(rows), SKETCH_BATCH):
                some = batch.column("text").take(pa.array(rows[start : start + SKETCH_BATCH]))
                yield found[start : start + SKETCH_BATCH], comparables(some.to_pylist())
