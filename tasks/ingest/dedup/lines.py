"""Lines that many documents share: kept in the first document, cut out of all others."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import xxhash

from tasks.ingest.dedup.config import LineConfig
from tasks.ingest.dedup.corpus import Corpus
from tasks.ingest.dedup.exact import repeated
from tasks.ingest.dedup.index import RANK_COLUMNS, ROW_BITS, Shard, ranks, read_index, row_of
from tasks.ingest.dedup.spill import num_parts, part_of
from tasks.shards import read_batches

CUT = pa.schema([pa.field("row", pa.int64(), nullable=False), pa.field("line", pa.binary(16), nullable=False)])
_LINE = np.dtype([("a", "<u8"), ("b", "<u8"), ("first", "<u8"), ("second", "<u8"), ("doc", "<i8")])
_CUT = np.dtype([("doc", "<i8"), ("a", "<u8"), ("b", "<u8")])
_WORK = 3
_LINE_CHARS = 40  # assumed length of a line, to choose how many parts there are; costs nothing but time if wrong


def line_digest(line: str) -> bytes:
    """Identity of a line without the blanks around it."""
    return xxhash.xxh3_128_digest(line.strip().encode("utf-8", "surrogatepass"))


def without(text: str, digests: set[bytes], config: LineConfig) -> str:
    """A text without the lines of these digests; unchanged when it has none of them."""
    lines = text.split("\n")
    kept = [line for line in lines if len(line.strip()) < config.min_chars or line_digest(line) not in digests]
    return text if len(kept) == len(lines) else "\n".join(kept).strip("\n")


def repeated_lines(corpus: Corpus, config: LineConfig, gone: dict[str, str]) -> Iterator[tuple[Shard, pa.Table]]:
    """For each new shard the lines to cut (row, digest), by row; partitioned by digest on disk.

    Args:
        gone: path of a shard -> URL of its verdicts; those documents neither count nor lose lines.
    """
    lines = corpus.records("lines", _LINE)
    new = [shard for shard in corpus.shards if not shard.old]
    characters = 0
    for shard in new:
        characters += int(np.sum(read_index(shard, ["length"])[0]["length"].to_numpy()))
    parts = num_parts(characters // _LINE_CHARS * _LINE.itemsize * _WORK, corpus.config.memory_bytes // 2)
    for shard in new:
        for found in _lines_of(shard, corpus, config, gone.get(shard.path)):
            lines.add(found, part_of(found["a"], parts))
    lines.flush()
    cuts = corpus.records("cuts", _CUT)
    for part in sorted(lines.counts):
        found = _later(lines.read(part), config)
        cuts.add(found, corpus.group_of(found["doc"]))
    cuts.flush()
    lines.remove()
    group, of_group = -1, np.zeros(0, _CUT)
    for shard in new:
        if shard.number // corpus.shards_per_group != group:
            group = shard.number // corpus.shards_per_group
            of_group = np.sort(cuts.read(group), order=("doc", "a", "b"))
        low, high = np.searchsorted(of_group["doc"], (shard.number << ROW_BITS, (shard.number + 1) << ROW_BITS))
        some = of_group[low:high]
        digests = np.stack((some["a"], some["b"]), axis=1).tobytes()
        column = pa.Array.from_buffers(pa.binary(16), len(some), [None, pa.py_buffer(digests)])
        yield shard, pa.table([pa.array(row_of(some["doc"])), column], schema=CUT)
    cuts.remove()


def _lines_of(shard: Shard, corpus: Corpus, config: LineConfig, gone: str | None) -> Iterator[np.ndarray]:
    table, docs = read_index(shard, RANK_COLUMNS)
    if not len(docs):
        return
    order = ranks(table, docs, corpus.config, old=False)
    stays = np.ones(len(docs), bool)
    if gone:
        for batch in read_batches(gone, ["row"]):
            stays[batch.column("row").to_numpy()] = False
    row = 0
    for batch in read_batches(shard.text_urls[0], ["text"]):
        digests: list[bytes] = []
        rows: list[int] = []
        for i, text in enumerate(batch.column("text").to_pylist(), row):
            if stays[i]:
                own = {line_digest(line) for line in text.split("\n") if len(line.strip()) >= config.min_chars}
                digests += own
                rows += [i] * len(own)
        row += batch.num_rows
        pairs, owners = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2), np.array(rows, np.int64)
        found = np.empty(len(owners), _LINE)
        found["a"], found["b"] = pairs[:, 0], pairs[:, 1]
        found["first"], found["second"], found["doc"] = order.first[owners], order.second[owners], docs[owners]
        yield found


def _later(lines: np.ndarray, config: LineConfig) -> np.ndarray:
    """The lines of enough documents, in every document but the first."""
    some = lines[repeated(lines["a"])]
    some = some[np.lexsort((some["doc"], some["second"], some["first"], some["b"], some["a"]))]
    begins = np.ones(len(some), bool)
    begins[1:] = (some["a"][1:] != some["a"][:-1]) | (some["b"][1:] != some["b"][:-1])
    group = np.cumsum(begins) - 1
    enough = np.bincount(group, minlength=1)[group] >= config.min_documents if len(some) else begins
    cut = some[enough & ~begins]
    found = np.empty(len(cut), _CUT)
    for name in ("doc", "a", "b"):
        found[name] = cut[name]
    return found
