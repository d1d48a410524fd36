"""Exact and near duplicates out of the documents, and a held-out part that no training document comes near.

Documents are taken in one total order (longest first, then by id), and each is compared with those that were kept: a
document goes only when a kept one was measured to be its duplicate. So no chain of matches can take a source with it,
and neither the order of shards nor the number of workers shows in the result.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.artifact import Artifact, Stage, Unit, Workspace
from tasks.errors import DataFault
from tasks.ingest.config import DedupConfig
from tasks.ingest.shingles import SKETCH, band_keys, comparable, jaccard, shingles, text_digest
from tasks.progress import track
from tasks.records import DOCUMENT, table
from tasks.shards import read_batches

SKETCH_BATCH = 256
SMALL_SOURCE = 20  # a share of fewer documents says nothing


@dataclass(frozen=True)
class Evidence:
    """Why a document goes: the reason, the kept document, and how alike the two are."""

    reason: str
    kept_id: str
    similarity: float


@dataclass
class Index:
    """What is known of each document, by its position in the order of shards and rows."""

    ids: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    bands: list[np.ndarray] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)  # shard -> position of its first row

    def order(self) -> list[int]:
        """Who is asked first, and so kept: longest, then smallest id, then first position."""
        return sorted(range(len(self.ids)), key=lambda i: (-self.lengths[i], self.ids[i], i))


@dataclass(frozen=True)
class Decision:
    """What becomes of each document: dropped with evidence, held out, or (all others) trained on."""

    index: Index
    dropped: dict[int, Evidence]
    heldout: frozenset[int]


def run(workspace: Workspace, config: DedupConfig, inputs: dict[str, Artifact]) -> None:
    """Write train/*.parquet and heldout/*.parquet, a unit of work for each shard of documents.

    Raises:
        DataFault: a source loses more than `max_source_loss` of its documents.
    """
    docs = inputs["docs"]
    shards = {entry.path: docs.file_url(entry.path) for entry in docs.files("docs/")}
    decision = decide(shards, config, workspace.name)
    workspace.note(sketch=SKETCH, heldout=len(decision.heldout))
    with track(f"dedup {workspace.name}", len(shards), "shards") as bar:
        for path, url in shards.items():
            if workspace.unit_record(path) is None:
                with workspace.unit(path) as unit:
                    _write(unit, path, url, decision)
            bar.advance()


def decide(shards: dict[str, str], config: DedupConfig, name: str = "") -> Decision:
    """What becomes of each document. A pure function of the documents and the config.

    Args:
        shards: path -> URL of Parquet files of documents; the order of paths does not matter for what is kept.
    """
    index = _read(shards, config, name)
    dropped = duplicates(index, shards, config)
    _guard(index, dropped, config)
    heldout = choose_heldout(index, dropped, config)
    dropped |= _overlapping(index, dropped, heldout, shards, config)
    return Decision(index, dropped, heldout)


def duplicates(index: Index, shards: dict[str, str], config: DedupConfig) -> dict[int, Evidence]:
    """Documents of which a kept one is an exact copy, or shares a bucket and is alike by `min_jaccard` or more."""
    order = index.order()
    dropped: dict[int, Evidence] = {}
    first: dict[bytes, int] = {}
    for i in order:
        kept = first.setdefault(index.digests[i], i)
        if kept != i:
            dropped[i] = Evidence("exact_duplicate", index.ids[kept], 1.0)
    crowded = _crowded(index, dropped)
    if not crowded:
        return dropped
    sets = {i: shingles(text, config.ngram) for i, text in _texts(shards, index, set(crowded))}
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in order:
        if i not in crowded:
            continue
        candidates = sorted({j for key in crowded[i] for j in buckets[key]})
        alike = ((jaccard(sets[i], sets[j]), -j) for j in candidates)
        best, j = max(alike, default=(0.0, 0))
        if best >= config.min_jaccard:
            dropped[i] = Evidence("near_duplicate", index.ids[-j], round(best, 4))
        else:
            for key in crowded[i]:
                buckets[key].append(i)
    return dropped


def choose_heldout(index: Index, dropped: dict[int, Evidence], config: DedupConfig) -> frozenset[int]:
    """Documents whose hash falls below `heldout_fraction`: the choice depends on the text alone. At least one."""
    if not config.heldout_fraction:
        return frozenset()
    kept = [i for i in range(len(index.ids)) if i not in dropped]
    draws = {i: _draw(index.digests[i], config.seed) for i in kept}
    chosen = frozenset(i for i in kept if draws[i] < config.heldout_fraction)
    return chosen or frozenset(sorted(kept, key=lambda i: draws[i])[: len(kept) > 1])


def _draw(digest: bytes, seed: int) -> float:
    return text_fraction(digest + seed.to_bytes(8, "big"))


def text_fraction(data: bytes) -> float:
    """A number in [0, 1) drawn from bytes."""
    return int.from_bytes(text_digest(data.hex())[:8], "big") / 2**64


def _overlapping(
    index: Index, dropped: dict[int, Evidence], heldout: frozenset[int], shards: dict[str, str], config: DedupConfig
) -> dict[int, Evidence]:
    """Training documents that are alike a held-out one, or hold too much of it. Every pair is measured."""
    if not heldout:
        return {}
    training = set(range(len(index.ids))) - set(dropped) - heldout
    texts = dict(_texts(shards, index, set(heldout)))
    alike = HeldoutIndex(texts, config.ngram)
    passages = HeldoutIndex(texts, config.overlap_ngram)
    found: dict[int, Evidence] = {}
    for i, text in _texts(shards, index, training):
        own = shingles(text, config.ngram)
        shared = alike.shared(own)
        similarity = shared / np.maximum(alike.sizes + len(own) - shared, 1)
        overlap = passages.shared(shingles(text, config.overlap_ngram)) / np.maximum(passages.sizes, 1)
        nearest, holder = int(np.argmax(similarity)), int(np.argmax(overlap))
        if similarity[nearest] >= config.min_jaccard:
            found[i] = Evidence("heldout_duplicate", index.ids[alike.members[nearest]], round(similarity[nearest], 4))
        elif overlap[holder] > config.max_heldout_overlap:
            found[i] = Evidence("heldout_overlap", index.ids[alike.members[holder]], round(overlap[holder], 4))
    return found


class HeldoutIndex:
    """The shingles of the held-out documents, to count those that another document shares with each of them."""

    def __init__(self, texts: dict[int, str], ngram: int):
        self.members = sorted(texts)
        sets = [shingles(texts[i], ngram) for i in self.members]
        self.sizes = np.array([len(own) for own in sets])
        flat = np.concatenate(sets)
        order = np.argsort(flat, kind="stable")
        self._hashes = flat[order]
        self._owners = np.repeat(np.arange(len(sets)), self.sizes)[order]

    def shared(self, own: np.ndarray) -> np.ndarray:
        """How many of a sorted set's shingles each held-out document has, in the order of `members`."""
        low = np.searchsorted(self._hashes, own, "left")
        high = np.searchsorted(self._hashes, own, "right")
        hits = np.flatnonzero(high > low)
        counts = high[hits] - low[hits]
        before = np.cumsum(counts) - counts
        positions = np.repeat(low[hits] - before, counts) + np.arange(counts.sum())
        return np.bincount(self._owners[positions], minlength=len(self.members))


def _read(shards: dict[str, str], config: DedupConfig, name: str) -> Index:
    index = Index()
    with track(f"dedup {name}: sketches", len(shards), "shards") as bar:
        for path, url in shards.items():
            index.starts[path] = len(index.ids)
            for batch in read_batches(url, ["id", "source", "text"]):
                texts = [comparable(text) for text in batch.column("text").to_pylist()]
                index.ids += batch.column("id").to_pylist()
                index.sources += batch.column("source").to_pylist()
                index.lengths += map(len, texts)
                index.digests += map(text_digest, texts)
                for start in range(0, len(texts), SKETCH_BATCH):
                    sets = [shingles(text, config.ngram) for text in texts[start : start + SKETCH_BATCH]]
                    index.bands += list(band_keys(sets, config.bands, config.rows, config.seed))
            bar.advance()
    return index


def _crowded(index: Index, dropped: dict[int, Evidence]) -> dict[int, list[tuple[int, int]]]:
    """Documents that share a bucket with another one -> those buckets, as (band, key)."""
    alive = np.array([i for i in range(len(index.ids)) if i not in dropped], np.int64)
    crowded: dict[int, list[tuple[int, int]]] = defaultdict(list)
    if len(alive) < 2:
        return crowded
    keys = np.stack(index.bands)[alive]
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable")
        ordered = keys[order, band]
        same = ordered[1:] == ordered[:-1]
        shared = np.concatenate((same, [False])) | np.concatenate(([False], same))
        for i, key in zip(alive[order[shared]].tolist(), ordered[shared].tolist(), strict=True):
            crowded[i].append((band, key))
    return crowded


def _texts(shards: dict[str, str], index: Index, wanted: set[int]) -> Iterator[tuple[int, str]]:
    """Position and comparable text of the wanted documents; one batch of texts in memory."""
    for path, url in shards.items():
        position = index.starts[path]
        for batch in read_batches(url, ["text"]):
            texts = batch.column("text")
            for row in range(batch.num_rows):
                if position + row in wanted:
                    yield position + row, comparable(texts[row].as_py())
            position += batch.num_rows


def _guard(index: Index, dropped: dict[int, Evidence], config: DedupConfig) -> None:
    total = Counter(index.sources)
    lost = Counter(index.sources[i] for i in dropped)
    for source, count in sorted(lost.items()):
        if total[source] >= SMALL_SOURCE and count > config.max_source_loss * total[source]:
            pairs = [f"{index.ids[i]} ~ {e.kept_id} ({e.similarity})" for i, e in dropped.items()]
            own = [pair for i, pair in zip(dropped, pairs, strict=True) if index.sources[i] == source]
            raise DataFault(
                f"source {source!r} would lose {count:,} of {total[source]:,} documents "
                f"({count / total[source]:.0%}) as duplicates; max_source_loss={config.max_source_loss:.0%}: so many "
                f"are more often a fault (pages without their text, one template) than real. Pairs: "
                f"{', '.join(own[:3])}. Look at them, then leave the source out, raise min_jaccard "
                f"({config.min_jaccard}), or raise max_source_loss if they are duplicates."
            )


def _write(unit: Unit, path: str, url: str, decision: Decision) -> None:
    index, train, heldout = decision.index, list[dict[str, Any]](), list[dict[str, Any]]()
    position = index.starts[path]
    for batch in read_batches(url):
        for row in batch.to_pylist():
            unit.count(rows_in=1)
            if evidence := decision.dropped.get(position):
                facts = {"kept_id": evidence.kept_id, "similarity": evidence.similarity}
                unit.drop(evidence.reason, {key: row[key] for key in ("id", "url", "source", "text")} | facts)
            else:
                (heldout if position in decision.heldout else train).append(row)
            position += 1
    unit.count(rows_out=len(train) + len(heldout))
    name = path.removeprefix("docs/")
    unit.write_parquet(f"train/{name}", table(train, DOCUMENT))
    unit.write_parquet(f"heldout/{name}", table(heldout, DOCUMENT))


DEDUP = Stage(
    name="dedup",
    version="1",
    run=run,
    code=("tasks.ingest.dedup", "tasks.ingest.shingles", "tasks.ingest.texts", "tasks.records", "tasks.shards"),
)
