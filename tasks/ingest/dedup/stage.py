"""The dedup stage: exact and near duplicates out, repeated lines cut, a held-out part that nothing is near.

Documents are taken in one total order, and each is compared with those that were kept: a document goes only when a kept
one was measured to be its duplicate. So no chain of matches can take a source with it, and neither the order of shards
nor the number of workers nor the memory shows in the result. What grows with the corpus waits on disk.
"""

import heapq
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from tasks.artifact import Artifact, Stage, Workspace
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.dedup.corpus import Corpus
from tasks.ingest.dedup.decide import decide, verdicts
from tasks.ingest.dedup.heldout import draws, save_blocks
from tasks.ingest.dedup.index import ROW_BITS, Shard, new_shard, old_shards, read_index, sketch, texts_of
from tasks.ingest.dedup.lines import repeated_lines
from tasks.ingest.dedup.recall import measure_recall
from tasks.ingest.dedup.report import Losses, figures, guard, largest_component
from tasks.ingest.dedup.write import Sources, heldout_texts, write_heldout, write_shard
from tasks.ingest.shingles import SKETCH
from tasks.shard_workers import Opener, ShardJob, Work, Workers, each_shard, require_every_row
from tasks.storage import join

SMALL_CORPUS = 5000  # documents that one process compares in seconds
_SAMPLE_CHARS = (200, 20_000)  # documents of such a length are taken to measure recall


def run(workspace: Workspace, config: DedupConfig, inputs: dict[str, Artifact]) -> None:
    """Write index/, verdicts/, cuts/, train/ and heldout/ (a file for each shard of documents) and dedup.json.

    Units: each shard's sketch, the decision, the lines, each shard's held-out documents, and its training documents.

    Raises:
        DataFault: a source loses more than its share; an old artifact's sketches are of another kind.
    """
    entries, docs_url = inputs["docs"].files("docs/"), inputs["docs"].file_url("docs")
    rows = {entry.path.removeprefix("docs/"): entry.rows or 0 for entry in entries}
    if not config.workers and config.runner == "local" and sum(rows.values()) < SMALL_CORPUS:
        config = config.with_changes({"workers": 1})  # to start others would take longer
    scratch, here = workspace.scratch / "dedup", Workers(config.workers)  # here: where scratch is
    workspace.expect_units(3 * len(rows) + 1 + bool(config.lines))

    def job(kind: str, label: str, opener: Opener) -> ShardJob:
        keys = {f"{kind}/{name}": count for name, count in rows.items()}
        return ShardJob(f"dedup {workspace.name}: {label}", keys, opener)

    workers = Workers(config.workers, config.runner, config.shared_disk)
    each_shard(workspace, job("sketch", "sketches", partial(open_sketching, workspace, config, docs_url)), workers)
    new = [new_shard(workspace.url, docs_url, name, number) for number, name in enumerate(rows)]
    against = [inputs[role] for role in sorted(inputs, key=_number) if role.startswith("against.")]
    old: list[Shard] = []
    for artifact in against:
        old += old_shards(artifact, config, len(new) + len(old))
    corpus = Corpus.of(new, old, config, scratch)
    sources = Sources.of(workspace, config, _decide(workspace, corpus))
    if config.lines:
        _lines(workspace, corpus)
    holding = partial(open_writing, partial(write_heldout, workspace, sources), workspace.url, docs_url)
    each_shard(workspace, job("heldout", "held out", holding), here)
    folders = save_blocks(heldout_texts(sources, new, against), scratch / "heldout", corpus.worker_config)
    writing = partial(open_writing, partial(write_shard, workspace, sources, folders), workspace.url, docs_url)
    each_shard(workspace, job("docs", "write", writing), here)
    require_every_row(f"dedup {workspace.name}", sum(rows.values()), workspace.units())
    facts = [record.facts for record in workspace.units()]
    workspace.note(
        sketch=SKETCH,
        heldout=sum(fact.get("heldout", 0) for fact in facts),
        cut_chars=sum(fact.get("cut_chars", 0) for fact in facts),
        cut_lines=sum(fact.get("cut_lines", 0) for fact in facts),
    )
    shutil.rmtree(scratch, ignore_errors=True)


def _number(role: str) -> int:
    return int(role.partition(".")[2] or 0)


@contextmanager
def open_sketching(workspace: Workspace, config: DedupConfig, docs_url: str) -> Iterator[Work]:
    """Make the index of a shard: a unit of work."""

    def work(key: str) -> None:
        name = key.removeprefix("sketch/")
        with workspace.unit(key) as unit:
            unit.write_parquet(f"index/{name}", sketch(join(docs_url, name), config))

    yield work


@contextmanager
def open_writing(write: Callable[[Shard], None], url: str, docs_url: str) -> Iterator[Work]:
    """Write the documents of a shard: a unit of work."""
    yield lambda key: write(new_shard(url, docs_url, key.partition("/")[2]))


def _decide(workspace: Workspace, corpus: Corpus) -> str:
    """Write verdicts/ and dedup.json; "SHARD#ROW" of the document to hold out where no draw held one out."""
    if record := workspace.unit_record("decide"):
        return record.facts["heldout_alone"]
    decision, losses = decide(corpus), Losses()
    largest = largest_component(corpus, decision.crowd)
    kept, chosen, best = 0, 0, (2.0, "")
    with workspace.unit("decide") as unit:
        for shard, found, index in verdicts(decision):
            losses.add(found, index)
            if found.num_rows:
                unit.write_parquet(f"verdicts/{shard.path}", found)
            stays = np.ones(index.num_rows, bool)
            stays[found["row"].to_numpy()] = False
            kept += int(stays.sum())
            if corpus.config.heldout_fraction and not chosen and stays.any():
                drawn = draws(index["digest"].filter(stays).to_pylist(), corpus.config.seed)
                chosen += int((drawn < corpus.config.heldout_fraction).sum())
                first = int(np.argmin(drawn))
                best = min(best, (float(drawn[first]), f"{shard.path}#{np.flatnonzero(stays)[first]}"))
        guard(losses, largest, corpus.config)
        report = figures(decision, losses, largest)
        if recall := measure_recall(corpus.config, _sample(corpus), corpus.config.seed):
            report["recall"] = recall
        unit.write_json("dedup.json", report)
        alone = best[1] if corpus.config.heldout_fraction and not chosen and kept > 1 else ""
        unit.note(heldout_alone=alone)
    decision.drops.remove()
    return alone


def _sample(corpus: Corpus) -> list[str]:
    """Texts to plant pairs in: those of the smallest digests, a fair sample that no order of shards changes."""
    if not corpus.config.recall_pairs:
        return []
    chosen: list[tuple[bytes, int]] = []
    for shard in corpus.shards:
        index, docs = read_index(shard, ["digest", "length"])
        if shard.old or not len(docs):
            continue
        fits = [_SAMPLE_CHARS[0] <= length <= _SAMPLE_CHARS[1] for length in index["length"].to_pylist()]
        rows = zip(index["digest"].to_pylist(), docs.tolist(), fits, strict=True)
        chosen = heapq.nsmallest(corpus.config.recall_pairs, [*chosen, *((d, doc) for d, doc, fit in rows if fit)])
    wanted = np.array(sorted(doc for _, doc in chosen), np.int64)
    digest_of = {doc: digest for digest, doc in chosen}
    found: list[tuple[bytes, str]] = []
    for shard in corpus.shards:
        low, high = np.searchsorted(wanted, (shard.number << ROW_BITS, (shard.number + 1) << ROW_BITS))
        if low < high:
            for docs, texts in texts_of(shard, wanted[low:high]):
                found += [(digest_of[doc], text) for doc, text in zip(docs.tolist(), texts, strict=True)]
    return [text for _, text in sorted(found)]


def _lines(workspace: Workspace, corpus: Corpus) -> None:
    """Write cuts/: the lines that go, a unit of work."""
    if workspace.unit_record("lines") is not None or corpus.config.lines is None:
        return
    gone = {shard.path: url for shard in corpus.shards if (url := Sources.verdicts_url(workspace, shard.path))}
    with workspace.unit("lines") as unit:
        for shard, cuts in repeated_lines(corpus, corpus.config.lines, gone):
            if cuts.num_rows:
                unit.write_parquet(f"cuts/{shard.path}", cuts)


DEDUP = Stage(
    name="dedup",
    version="2",
    run=run,
    code=("tasks.ingest.dedup", "tasks.ingest.shingles", "tasks.ingest.comparable", "tasks.records", "tasks.shards"),
)
