"""Near copies: each document against those that were kept before it and share a bucket with it, measured exactly.

Components of documents are packed into parts that fit in memory. A part is decided in the total order. One that does
not fit (a template over half of a source) is decided in blocks: the best documents that fit are decided among
themselves, then all later ones are compared with those of them that stay. The outcome is that of one pass over
everything, whatever the block.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.ingest.dedup.buckets import Crowd
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.dedup.corpus import DROP, NEAR, OLD, Corpus
from tasks.ingest.dedup.index import RANK_COLUMNS, fixed_words, ranks, read_index, texts_of
from tasks.ingest.dedup.spill import Rows, num_parts, read_rows
from tasks.ingest.shingles import flat_shingles, jaccard

_CHAR_BYTES = 24  # of a character of a document that is being compared: its text, its shingle, room to intersect
_BAND_BYTES = 200  # of a band of a document that is kept: a key and a list in Python
HISTOGRAM = 20  # bins of the similarity of measured pairs


@dataclass
class Tally:
    """What comparing came to."""

    comparisons: int = 0
    cut_short: int = 0  # documents with more candidates than max_comparisons
    blocks: int = 0
    similarities: np.ndarray = field(default_factory=lambda: np.zeros(HISTOGRAM, np.int64))

    def __iadd__(self, other: "Tally") -> "Tally":
        self.comparisons += other.comparisons
        self.cut_short += other.cut_short
        self.blocks += other.blocks
        self.similarities += other.similarities
        return self


def gather(corpus: Corpus, crowd: Crowd) -> Rows:
    """The texts of documents that share a bucket, whole components in one part. Each text is read once."""
    part = _parts(corpus, crowd)
    rows = Rows(corpus.scratch / "texts", corpus.buffer_bytes)
    for shard in corpus.shards:
        here = crowd.of(shard)
        if here.start == here.stop:
            continue
        docs, parts = crowd.docs[here], part[here]
        table, all_docs = read_index(shard, [*RANK_COLUMNS, "bands"])
        table = table.take(pa.array(np.searchsorted(all_docs, docs))).combine_chunks()
        order = ranks(table, docs, corpus.config, shard.old)
        fixed = {
            "doc": pa.array(docs),
            "first": pa.array(order.first),
            "second": pa.array(order.second),
            "third": pa.array(order.third),
            "length": table["length"],
            "bands": table["bands"],
        }
        facts = pa.table(fixed)
        for found, texts in texts_of(shard, docs, table["id"].to_pylist()):
            at = np.searchsorted(docs, found)
            rows.add(facts.take(pa.array(at)).append_column("text", pa.array(texts, pa.large_string())), parts[at])
    rows.flush()
    return rows


def _parts(corpus: Corpus, crowd: Crowd) -> np.ndarray:
    """The part of each document: components side by side, about as much text in each part as fits in memory."""
    cost = np.zeros(len(crowd.docs), np.int64)
    for shard in corpus.shards:
        here = crowd.of(shard)
        if here.start < here.stop:
            table, docs = read_index(shard, ["length"])
            cost[here] = costs(table["length"].to_numpy()[np.searchsorted(docs, crowd.docs[here])], corpus.config)
    if not len(cost):
        return cost
    whole = np.bincount(crowd.labels, cost).astype(np.int64)
    budget = part_bytes(corpus.worker_config)
    before = np.cumsum(whole) - whole
    parts = num_parts(int(whole.sum()), budget)
    return np.minimum(before // max(budget, -(-int(whole.sum()) // parts)), parts - 1)[crowd.labels]


def costs(lengths: np.ndarray, config: DedupConfig) -> np.ndarray:
    """Bytes that documents of these lengths take while they are compared."""
    return lengths * _CHAR_BYTES + config.bands * _BAND_BYTES


def part_bytes(config: DedupConfig) -> int:
    """What the documents of one block may take."""
    return config.memory_bytes // 2


def near_copies(folder: Path, config: DedupConfig, first_old: int) -> tuple[np.ndarray, Tally]:
    """Drops of one part of the gathered texts."""
    part = _Part(folder, config, first_old)
    while part.decide_block():
        pass
    return part.drops(), part.tally


class _Part:
    """The documents of one part, by their place in the total order, and what is decided of them."""

    def __init__(self, folder: Path, config: DedupConfig, first_old: int):
        self._folder, self._config = folder, config
        names = ("doc", "first", "second", "third", "length")
        columns = {name: [] for name in names}
        for batch in read_rows(folder):
            for name in names:
                columns[name].append(batch.column(name).to_numpy())
        doc, first, second, third, length = (np.concatenate(columns[name]) for name in names)
        order = np.lexsort((doc, third, second, first, doc < first_old))
        self._place = np.empty(len(order), np.int64)  # of each row as it stands in the files
        self._place[order] = np.arange(len(order))
        self._docs, self._costs = doc[order], costs(length[order], config)
        self._old = self._docs >= first_old
        self._kept_by = np.full(len(order), -1, np.int64)  # place of the one that is kept instead
        self._similarity = np.zeros(len(order))
        self._compared = np.zeros(len(order), np.int64)
        self._next = 0
        self.tally = Tally()

    def decide_block(self) -> bool:
        """Decide the best undecided documents that fit in memory; whether there were any."""
        waiting = self._next + np.flatnonzero(self._kept_by[self._next :] < 0)
        if not len(waiting):
            self.tally.cut_short = int(((self._compared >= self._config.max_comparisons) & (self._kept_by < 0)).sum())
            return False
        fits = max(1, int(np.searchsorted(np.cumsum(self._costs[waiting]), part_bytes(self._config), "right")))
        block = waiting[:fits]
        last = int(block[-1])
        rows = {place: (own, keys) for place, own, keys in self._rows(self._next, last)}
        kept = _Kept(self._config)
        for place in block.tolist():
            own, keys = rows.pop(place)
            if self._old[place] or not self._compare(place, own, keys, kept):
                kept.add(place, own, keys)
        self._next = last + 1
        self.tally.blocks += 1
        if len(waiting) > fits:
            for place, own, keys in self._rows(self._next, len(self._docs)):
                if not self._old[place]:
                    self._compare(place, own, keys, kept)
        return True

    def _compare(self, place: int, own: np.ndarray, keys: list[int], kept: "_Kept") -> bool:
        """Whether the document goes for one of these kept ones."""
        allowed = self._config.max_comparisons - int(self._compared[place])
        for other in kept.candidates(keys, allowed):
            self._compared[place] += 1
            similarity = kept.similarity(other, own)
            self.tally.comparisons += 1
            self.tally.similarities[min(int(similarity * HISTOGRAM), HISTOGRAM - 1)] += 1
            if similarity >= self._config.min_jaccard:
                self._kept_by[place], self._similarity[place] = other, similarity
                return True
        return False

    def _rows(self, low: int, high: int) -> Iterator[tuple[int, np.ndarray, list[int]]]:
        """Undecided documents from place `low` to `high` (inclusive): place, shingles, band keys."""
        config, row = self._config, 0
        for batch in read_rows(self._folder):
            places = self._place[row : row + batch.num_rows]
            row += batch.num_rows
            wanted = np.flatnonzero((places >= low) & (places <= high) & (self._kept_by[places] < 0))
            if not len(wanted):
                continue
            some = batch.take(pa.array(wanted))
            keys = fixed_words(some.column("bands"), config.bands).tolist()
            hashes, offsets = flat_shingles(some.column("text").to_pylist(), config.ngram, config.shingle)
            ends = offsets.tolist()
            for i, place in enumerate(places[wanted].tolist()):
                yield place, np.unique(hashes[ends[i] : ends[i + 1]]), keys[i]

    def drops(self) -> np.ndarray:
        """Every document that goes, with its evidence."""
        goes = np.flatnonzero(self._kept_by >= 0)
        found = np.empty(len(goes), DROP)
        found["doc"], found["kept"] = self._docs[goes], self._docs[self._kept_by[goes]]
        found["similarity"] = self._similarity[goes]
        found["reason"] = np.where(self._old[self._kept_by[goes]], OLD, NEAR)
        return found


class _Kept:
    """Documents that stay, by bucket, in the total order."""

    def __init__(self, config: DedupConfig):
        self._min_jaccard = config.min_jaccard
        self._sets: dict[int, np.ndarray] = {}
        self._buckets: dict[int, list[int]] = {}

    def add(self, place: int, own: np.ndarray, keys: list[int]) -> None:
        self._sets[place] = own
        for key in keys:
            self._buckets.setdefault(key, []).append(place)

    def candidates(self, keys: list[int], most: int) -> list[int]:
        """The first `most` documents that share one of these buckets."""
        found = {place for key in keys for place in self._buckets.get(key, ())[:most]}
        return heapq.nsmallest(most, found) if len(found) > most else sorted(found)

    def similarity(self, place: int, own: np.ndarray) -> float:
        """Exact Jaccard similarity; 0 where sizes alone rule a duplicate out."""
        other = self._sets[place]
        if min(len(own), len(other)) / max(len(own), len(other)) < self._min_jaccard:
            return 0.0
        return jaccard(own, other)
