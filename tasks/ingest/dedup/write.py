"""What is kept of each shard, as it is trained on or held out: verdicts and cuts applied, held-out text kept apart."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.artifact import Artifact, Unit, Workspace
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.dedup.heldout import draws, too_near
from tasks.ingest.dedup.index import Shard
from tasks.ingest.dedup.lines import without
from tasks.records import DOCUMENT
from tasks.shards import read_batches, read_documents
from tasks.storage import exists, join

EMPTY = "empty_after_lines"


@dataclass(frozen=True)
class Sources:
    """Where the decisions about shards are, and the document that is held out when no draw held one out."""

    data: str  # URL of the artifact's data
    config: DedupConfig
    alone: str  # SHARD#ROW

    @classmethod
    def of(cls, workspace: Workspace, config: DedupConfig, alone: str) -> "Sources":
        return cls(join(workspace.url, "data"), config, alone)

    @staticmethod
    def verdicts_url(workspace: Workspace, path: str) -> str | None:
        """Where the verdicts about a shard are, if it has any."""
        url = join(workspace.url, "data", "verdicts", path)
        return url if exists(url) else None

    def rows(self, folder: str, path: str) -> list[dict[str, Any]]:
        """The rows that a step wrote about a shard; none where it wrote no file."""
        url = join(self.data, folder, path)
        return [row for batch in read_batches(url) for row in batch.to_pylist()] if exists(url) else []


@dataclass
class Kept:
    """The documents of one batch that stay, with their texts cut, and which of them are held out."""

    rows: pa.RecordBatch
    heldout: np.ndarray
    cut_chars: int = 0
    cut_lines: int = 0


def kept_rows(sources: Sources, shard: Shard, unit: Unit | None = None) -> Iterator[Kept]:
    """What stays of a shard, batch by batch. A unit is told of what goes; without one, it is the held-out part only."""
    config = sources.config
    verdicts = {row["row"]: row for row in sources.rows("verdicts", shard.path)}
    heldout = _heldout(sources, shard)
    if unit is None and not any(row not in verdicts for row in np.flatnonzero(heldout).tolist()):
        return
    cuts: dict[int, set[bytes]] = defaultdict(set)
    for cut in sources.rows("cuts", shard.path):
        cuts[cut["row"]].add(cut["line"])
    start = 0
    for batch in read_batches(shard.text_urls[0]):
        number = np.arange(start, start + batch.num_rows)
        start += batch.num_rows
        held = heldout[number]
        stays = np.array([row not in verdicts for row in number.tolist()], bool)
        if unit is None:
            stays &= held
        texts, cut_chars, cut_lines = _cut(batch, number, stays, cuts, config)
        if unit is not None:
            unit.count(rows_in=batch.num_rows - int((stays & held).sum()))
            for i in np.flatnonzero(~stays).tolist():
                verdict = verdicts.get(int(number[i]))
                facts = {"kept_id": verdict["kept_id"], "similarity": verdict["similarity"]} if verdict else {}
                drop(unit, verdict["reason"] if verdict else EMPTY, batch.slice(i, 1), facts)
        if texts is not None:
            batch = batch.set_column(batch.schema.get_field_index("text"), DOCUMENT.field("text"), texts)
        yield Kept(batch.filter(pa.array(stays)), held[stays], cut_chars, cut_lines)


def _heldout(sources: Sources, shard: Shard) -> np.ndarray:
    """Which rows of a shard are held out if they stay: a matter of their text alone."""
    if not sources.config.heldout_fraction:
        return np.zeros(sum(batch.num_rows for batch in read_batches(shard.index_url, ["length"])), bool)
    batches = read_batches(shard.index_url, ["digest"])
    digests = [digest for batch in batches for digest in batch.column("digest").to_pylist()]
    heldout = draws(digests, sources.config.seed) < sources.config.heldout_fraction
    path, _, row = sources.alone.rpartition("#")
    if path == shard.path:
        heldout[int(row)] = True
    return heldout


def _cut(
    batch: pa.RecordBatch, number: np.ndarray, stays: np.ndarray, cuts: dict[int, set[bytes]], config: DedupConfig
) -> tuple[pa.Array | None, int, int]:
    """The texts without the lines that go; `stays` becomes false where nothing is left."""
    if config.lines is None or not any(row in cuts for row in number.tolist()):
        return None, 0, 0
    texts = batch.column("text").to_pylist()
    chars = lines = 0
    for i in np.flatnonzero(stays).tolist():
        if digests := cuts.get(int(number[i])):
            kept = without(texts[i], digests, config.lines)
            stays[i] = bool(kept.strip())
            chars += len(texts[i]) - len(kept)
            lines += texts[i].count("\n") - kept.count("\n")
            texts[i] = kept
    return pa.array(texts, pa.string()), chars, lines


def drop(unit: Unit, reason: str, row: pa.RecordBatch, facts: dict[str, Any]) -> None:
    """Keep a document that goes among the rejects."""
    (document,) = row.select(["id", "url", "source", "text"]).to_pylist()
    unit.drop(reason, document | facts)


def write_heldout(workspace: Workspace, sources: Sources, shard: Shard) -> None:
    """heldout/ of one shard: a unit of work."""
    with workspace.unit(f"heldout/{shard.path}") as unit:
        rows = pa.Table.from_batches([kept.rows for kept in kept_rows(sources, shard)], DOCUMENT)
        unit.count(rows_in=rows.num_rows, rows_out=rows.num_rows)
        unit.write_parquet(f"heldout/{shard.path}", rows)
        unit.note(heldout=rows.num_rows)


def heldout_texts(sources: Sources, shards: Sequence[Shard], against: Sequence[Artifact]) -> Iterator[tuple[str, str]]:
    """Id and text of all held-out documents, as they were written; of older artifacts too."""
    own = (batch for s in shards for batch in read_batches(join(sources.data, "heldout", s.path), ["id", "text"]))
    theirs = (batch for artifact in against for batch in read_documents(artifact, "heldout/", ["id", "text"]))
    for batch in itertools.chain(own, theirs):
        yield from zip(batch.column("id").to_pylist(), batch.column("text").to_pylist(), strict=True)


def write_shard(workspace: Workspace, sources: Sources, folders: Sequence[Path], shard: Shard) -> None:
    """train/ of one shard: a unit of work. Memory holds the shard's documents and one held-out block."""
    train: list[pa.RecordBatch] = []
    chars = lines = 0
    with workspace.unit(f"docs/{shard.path}") as unit:
        for kept in kept_rows(sources, shard, unit):
            chars, lines = chars + kept.cut_chars, lines + kept.cut_lines
            train.append(kept.rows.filter(pa.array(~kept.heldout)))
        rows = pa.Table.from_batches(train, DOCUMENT).combine_chunks()
        stays = np.ones(rows.num_rows, bool)
        for i, near in too_near(rows["text"].to_pylist() if folders else [], folders, sources.config):
            stays[i] = False
            (row,) = rows.slice(i, 1).to_batches()
            drop(unit, near.reason, row, {"kept_id": near.heldout_id, "similarity": near.share})
        trained = rows.filter(pa.array(stays))
        unit.count(rows_out=trained.num_rows)
        unit.write_parquet(f"train/{shard.path}", trained)
        unit.note(cut_chars=chars, cut_lines=lines)
