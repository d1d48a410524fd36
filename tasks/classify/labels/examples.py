"""What a classifier learns from: the schema of examples, a sample that no order of shards changes, and the split."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import xxhash

from tasks.artifact import Artifact
from tasks.classify.text import to_line
from tasks.errors import ConfigError
from tasks.shards import read_batches

EXAMPLES = "examples/"
EXAMPLE = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),  # 0 is the lowest value
        pa.field("source", pa.string(), nullable=False),
        pa.field("heldout", pa.bool_(), nullable=False),
    ]
)
FOLDERS = ("train/", "docs/")  # what dedup writes; what clean, synth and cut write


def document_shards(artifact: Artifact) -> list[str]:
    """Paths of an artifact's shards of documents, in order; never its held-out ones.

    Raises:
        ConfigError: it holds no documents.
    """
    for folder in FOLDERS:
        if paths := [entry.path for entry in artifact.files(folder) if entry.path.endswith(".parquet")]:
            return paths
    raise ConfigError(
        f"{artifact.url} has no shards under {' or '.join(FOLDERS)}, its files are "
        f"{[entry.path for entry in artifact.files()][:5]}: classify reads documents. Give the reference of a step "
        "that makes them, for example ingest/tiny:ja."
    )


def ranks(ids: Iterable[str], seed: int) -> np.ndarray:
    """A place (uint64) for each id in an order that depends on nothing but the id and the seed."""
    return np.fromiter((xxhash.xxh3_64_intdigest(i.encode(), seed) for i in ids), np.uint64)


def sample_limit(batches: Iterable[np.ndarray], count: int) -> int:
    """The greatest rank that belongs to a sample of `count`; -1 of nothing. Memory holds twice the sample.

    What has a rank up to the limit is the sample, whatever the order of the batches.
    """
    held = np.empty(0, np.uint64)
    for batch in batches:
        held = np.concatenate([held, batch])
        if len(held) > 2 * count:
            held = np.partition(held, count - 1)[:count]
    if not len(held):
        return -1
    place = min(count, len(held)) - 1
    return int(np.partition(held, place)[place])


def text_key(text: str) -> int:
    """A number that texts share when fastText reads the same of them."""
    return xxhash.xxh3_64_intdigest(to_line(text).encode())


def is_heldout(key: int, fraction: float) -> bool:
    """Whether a text is for evaluation. It depends on the text alone, so equal texts never part."""
    draw = xxhash.xxh3_64_intdigest(key.to_bytes(8, "big"), 1)  # another draw than the order of training
    return draw < fraction * 2**64


def id_ranks(artifact: Artifact, sources: Sequence[str], seed: int) -> Iterator[np.ndarray]:
    """The ranks of all documents of these sources (none named: of all)."""
    for path in document_shards(artifact):
        for batch in read_batches(artifact.file_url(path), ["id", "source"]):
            yield ranks(_of_sources(batch, sources)["id"].to_pylist(), seed)


def sampled_rows(url: str, sources: Sequence[str], seed: int, limit: int) -> Iterator[dict[str, str]]:
    """The documents (id, text, source) of one shard that belong to a sample, in the order of the shard."""
    for batch in read_batches(url, ["id", "text", "source"]):
        mine = _of_sources(batch, sources)
        chosen = ranks(mine["id"].to_pylist(), seed) <= np.uint64(max(limit, 0))
        if limit >= 0 and chosen.any():
            yield from mine.filter(pa.array(chosen)).to_pylist()


def _of_sources(batch: pa.RecordBatch, sources: Sequence[str]) -> pa.RecordBatch:
    if not sources:
        return batch
    names = set(sources)
    return batch.filter(pa.array([name in names for name in batch["source"].to_pylist()], pa.bool_()))
