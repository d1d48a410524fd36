"""What is kept of each shard, as it is trained on or held out: verdicts and cuts applied, held-out text kept apart."""

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
    """What stays of a shard, batch by batch; a unit is told of what goes."""
    config = sources.config
    verdicts = {row["row"]: row for row in sources.rows("verdicts", shard.path)}
    cuts: dict[int, set[bytes]] = defaultdict(set)
    for cut in sources.rows("cuts", shard.path):
        cuts[cut["row"]].add(cut["line"])
    path, _, alone = sources.alone.rpartition("#")
    alone_row = int(alone) if path == shard.path else -1
    digests = (d for batch in read_batches(shard.index_url, ["digest"]) for d in batch.column("digest").to_pylist())
    start = 0
    for batch in read_batches(shard.text_urls[0]):
        number = np.arange(start, start + batch.num_rows)
        start += batch.num_rows
        own = [next(digests) for _ in number]
        heldout = draws(own, config.seed) < config.heldout_fraction
        heldout |= number == alone_row
        stays = np.array([row not in verdicts for row in number.tolist()], bool)
        texts, cut_chars, cut_lines = _cut(batch, number, stays, cuts, config)
        if unit is not None:
            unit.count(rows_in=batch.num_rows)
            for i in np.flatnonzero(~stays).tolist():
                verdict = verdicts.get(start - batch.num_rows + i)
                facts = {"kept_id": verdict["kept_id"], "similarity": verdict["similarity"]} if verdict else {}
                drop(unit, verdict["reason"] if verdict else EMPTY, batch.slice(i, 1), facts)
        if texts is not None:
            batch = batch.set_column(batch.schema.get_field_index("text"), DOCUMENT.field("text"), texts)
        yield Kept(batch.filter(pa.array(stays)), heldout[stays], cut_chars, cut_lines)


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


def heldout_texts(sources: Sources, shards: Sequence[Shard], against: Sequence[Artifact]) -> Iterator[tuple[str, str]]:
    """Id and text of all held-out documents, of older artifacts too, as they are written."""
    if sources.config.heldout_fraction:
        for shard in shards:
            for kept in kept_rows(sources, shard):
                held = kept.rows.filter(pa.array(kept.heldout))
                yield from zip(held.column("id").to_pylist(), held.column("text").to_pylist(), strict=True)
    for artifact in against:
        for batch in read_documents(artifact, "heldout/", ["id", "text"]):
            yield from zip(batch.column("id").to_pylist(), batch.column("text").to_pylist(), strict=True)


def write_shard(workspace: Workspace, sources: Sources, shard: Shard, folders: Sequence[Path]) -> None:
    """train/ and heldout/ of one shard: a unit of work. Memory holds the shard's documents and one held-out block."""
    train: list[pa.RecordBatch] = []
    heldout: list[pa.RecordBatch] = []
    chars = lines = 0
    with workspace.unit(f"docs/{shard.path}") as unit:
        for kept in kept_rows(sources, shard, unit):
            chars, lines = chars + kept.cut_chars, lines + kept.cut_lines
            heldout.append(kept.rows.filter(pa.array(kept.heldout)))
            train.append(kept.rows.filter(pa.array(~kept.heldout)))
        rows = pa.Table.from_batches(train, DOCUMENT).combine_chunks()
        stays = np.ones(rows.num_rows, bool)
        for i, near in too_near(rows["text"].to_pylist() if folders else [], folders, sources.config):
            stays[i] = False
            (row,) = rows.slice(i, 1).to_batches()
            drop(unit, near.reason, row, {"kept_id": near.heldout_id, "similarity": near.share})
        trained, held = rows.filter(pa.array(stays)), pa.Table.from_batches(heldout, DOCUMENT)
        unit.count(rows_out=trained.num_rows + held.num_rows)
        unit.write_parquet(f"train/{shard.path}", trained)
        unit.write_parquet(f"heldout/{shard.path}", held)
        unit.note(heldout=held.num_rows, cut_chars=chars, cut_lines=lines)
