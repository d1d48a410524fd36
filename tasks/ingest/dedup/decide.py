"""Which documents go, and for which kept one: the steps of deduplication after the sketches, on disk."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.ingest.dedup.buckets import Crowd, crowd
from tasks.ingest.dedup.corpus import DROP, REASONS, Corpus, DropReader
from tasks.ingest.dedup.exact import exact_copies
from tasks.ingest.dedup.index import Shard, read_index, row_of, shard_of
from tasks.ingest.dedup.near import Tally, gather, near_copies
from tasks.ingest.dedup.spill import Records, Rows, read_rows
from tasks.ingest.dedup.workers import side_by_side
from tasks.progress import track

VERDICT = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # in the shard
        pa.field("id", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("kept_id", pa.string(), nullable=False),  # of a document that stays
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Decision:
    """What goes, on disk by group of shards, and how it was found."""

    corpus: Corpus
    drops: Records
    crowd: Crowd
    tally: Tally


def decide(corpus: Corpus) -> Decision:
    """What becomes of each document: a function of the documents and the semantic config alone."""
    exact = exact_copies(corpus)
    found = crowd(corpus, exact)
    texts = gather(corpus, found)
    near, tally = corpus.records("near", DROP), Tally()
    folders = sorted(path for path in texts.folder.iterdir())
    calls = [(folder, corpus.worker_config, corpus.first_old) for folder in folders]
    with track("dedup: compare", len(calls), "parts") as bar:
        for drops, counts in side_by_side(near_copies, calls, corpus.config.workers, "dedup"):
            near.add(drops, corpus.group_of(drops["doc"]))
            tally += counts
            bar.advance()
    near.flush()
    texts.remove()
    drops = _final(corpus, exact, near)
    exact.remove()
    near.remove()
    return Decision(corpus, drops, found, tally)


def _final(corpus: Corpus, exact: Records, near: Records) -> Records:
    """All drops by group. A copy of a document that went itself goes for the one that stays of that."""
    by_kept = corpus.records("exact-by-kept", DROP)
    for group in sorted(exact.counts):
        copies = exact.read(group)
        by_kept.add(copies, corpus.group_of(copies["kept"]))
    by_kept.flush()
    drops = corpus.records("drops", DROP)
    for group in range(corpus.num_groups):
        gone, copies = near.read(group), by_kept.read(group)
        gone.sort(order="doc")
        if len(gone) and len(copies):
            at = np.minimum(np.searchsorted(gone["doc"], copies["kept"]), len(gone) - 1)
            moved = gone["doc"][at] == copies["kept"]
            for name in ("kept", "similarity", "reason"):
                copies[name][moved] = gone[name][at[moved]]
        for some in (gone, copies):
            drops.add(some, corpus.group_of(some["doc"]))
    drops.flush()
    by_kept.remove()
    return drops


def verdicts(decision: Decision) -> Iterator[tuple[Shard, pa.Table, pa.Table]]:
    """Each new shard with its verdicts (rows that go, in order) and its index (id, source, digest)."""
    corpus = decision.corpus
    names = _kept_names(decision)
    reader, group, kept = DropReader(corpus, decision.drops), -1, pa.table({})
    for shard in corpus.shards:
        if shard.old:
            break
        if shard.number // corpus.shards_per_group != group:
            group = shard.number // corpus.shards_per_group
            kept = _of_group(names, group)
        drops = reader.of(shard)
        index, _ = read_index(shard, ["id", "source", "digest"])
        rows = row_of(drops["doc"])
        at = np.searchsorted(kept["doc"].to_numpy(), drops["doc"]) if len(drops) else rows
        columns = [
            pa.array(rows),
            index["id"].take(pa.array(rows)) if len(rows) else pa.array([], pa.string()),
            pa.array([REASONS[reason] for reason in drops["reason"].tolist()], pa.string()),
            kept["kept_id"].take(pa.array(at)) if len(rows) else pa.array([], pa.string()),
            pa.array(np.round(drops["similarity"], 4)),
        ]
        yield shard, pa.table(columns, schema=VERDICT), index
    names.remove()


def _kept_names(decision: Decision) -> Rows:
    """For each drop the id of the kept document, by group of the dropped one."""
    corpus = decision.corpus
    by_kept = corpus.records("by-kept", DROP)
    for group in sorted(decision.drops.counts):
        drops = decision.drops.read(group)
        by_kept.add(drops, corpus.group_of(drops["kept"]))
    by_kept.flush()
    names = Rows(corpus.scratch / "names", corpus.buffer_bytes)
    for group in sorted(by_kept.counts):
        drops = by_kept.read(group)
        drops.sort(order="kept")
        for number in np.unique(shard_of(drops["kept"])).tolist():
            some = drops[shard_of(drops["kept"]) == number]
            index, docs = read_index(corpus.shards[number], ["id"])
            kept_id = index["id"].take(pa.array(np.searchsorted(docs, some["kept"])))
            names.add(pa.table({"doc": pa.array(some["doc"]), "kept_id": kept_id}), corpus.group_of(some["doc"]))
    names.flush()
    by_kept.remove()
    return names


def _of_group(names: Rows, group: int) -> pa.Table:
    batches = list(read_rows(names.path(group)))
    if not batches:
        return pa.table({"doc": pa.array([], pa.int64()), "kept_id": pa.array([], pa.string())})
    return pa.Table.from_batches(batches).sort_by("doc").combine_chunks()
