"""Scored documents to the best of them, by thresholds from histograms; and an alarm when a dump is unlike the last."""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.artifact import Artifact, Stage, Unit, Workspace
from tasks.classify.config import CutConfig
from tasks.classify.histogram import Drift, Threshold, band, bins, drift, lower_edge, merged, top_fraction
from tasks.classify.labels.examples import document_shards
from tasks.classify.page import cut_page
from tasks.classify.score import HISTOGRAMS, SCORES, sidecar
from tasks.errors import ConfigError, DataFault
from tasks.records import DOCUMENT
from tasks.shard_workers import ShardJob, Work, Workers, each_shard, require_every_row
from tasks.shards import ShardWriter, read_batches
from tasks.storage import join

log = logging.getLogger(__name__)

ALL = "(all)"
LOW, ABOVE = "low_quality_score", "above_band"
EXCERPT_CHARS = 200  # of a dropped text in rejects/; the whole of it stands in the documents that were cut


@dataclass(frozen=True)
class Plan:
    """Where each group is cut, what that keeps, and how far it is from the reference."""

    highest: int
    min_score: float | None  # when set, it decides and not the bins
    thresholds: dict[str, Threshold]  # by group; one of ALL when groups are cut together
    histograms: dict[str, np.ndarray]
    drifts: dict[str, Drift]
    warnings: tuple[str, ...]

    def of(self, group: str) -> Threshold:
        """Where a group is cut."""
        return self.thresholds.get(group) or self.thresholds[ALL]

    def sides(self, scored: pa.RecordBatch) -> np.ndarray:
        """For each row (SCORES): 0 it stays, -1 it is under the cut, 1 it is above the band."""
        score = scored["score"].to_numpy(zero_copy_only=False)
        if self.min_score is not None:
            return np.where(score >= self.min_score, 0, -1)
        names, group = np.unique(np.asarray(scored["group"].to_pylist(), object), return_inverse=True)
        found = [self.of(str(name)) for name in names]
        place = bins(score, self.highest)
        low, end = (np.array([getattr(t, field) for t in found])[group] for field in ("bin", "end"))
        return np.where(place < low, -1, np.where(place >= end, 1, 0))

    def settled(self, kept: Mapping[str, int]) -> "Plan":
        """This plan with what was really kept of each group.

        Raises:
            DataFault: a histogram promised another number.
        """
        real = {group: kept.get(group, 0) if group != ALL else sum(kept.values()) for group in self.thresholds}
        wrong = {g: (real[g], found.kept) for g, found in self.thresholds.items() if real[g] != found.kept}
        if wrong and self.min_score is None:
            raise DataFault(
                f"kept and promised documents by group: {wrong}. The histograms are not those of the sidecars, so "
                "the thresholds are of other documents. Score the documents again (--rerun score)."
            )
        return replace(self, thresholds={g: replace(found, kept=real[g]) for g, found in self.thresholds.items()})

    def facts(self) -> dict[str, Any]:
        """What cut.json says."""
        return {
            "thresholds": {group: _said(found) for group, found in self.thresholds.items()},
            "drift": {group: asdict(found) for group, found in self.drifts.items()},
            "warnings": list(self.warnings),
        }


def cut(workspace: Workspace, config: CutConfig, inputs: dict[str, Artifact]) -> None:
    """Write `docs/NAME.parquet` with the documents that are kept, `cut.json` and `report.html`.

    A unit for each shard; a document under its group's threshold is dropped as `low_quality_score`, one better than the
    band as `above_band`. Memory holds the
    histograms and a row group of documents for each worker.

    Raises:
        ConfigError: scores of other documents, or a reference of another classifier.
        DataFault: a group's drift is above `max_drift`; nothing is kept; scores that are not in the order of their
            documents.
    """
    documents, scores = inputs["documents"], inputs["scores"]
    require_kin(documents, scores, inputs.get("reference"))
    plan = plan_cut(config, scores, inputs.get("reference"))
    for warning in plan.warnings:
        log.warning("cut %s: %s", workspace.name, warning)
    paths = document_shards(documents)
    workspace.expect_units(len(paths) + 1)
    job = ShardJob(
        label=f"cut {workspace.name}",
        shards={path: documents.entry(path).rows or 0 for path in paths},
        open_work=partial(open_cutter, workspace, plan, documents.url, scores.url),
        rows="documents",
    )
    each_shard(workspace, job, Workers(config.workers, config.runner, config.shared_disk))
    require_every_row(job.label, sum(job.shards.values()), workspace.units())
    kept: Counter[str] = Counter()
    for record in workspace.units():
        kept.update(record.facts.get("kept", {}))
    plan = plan.settled(kept)
    _require_some(plan, config, workspace.name)
    if workspace.unit_record("report") is None:
        with workspace.unit("report") as unit:
            unit.write_json("cut.json", plan.facts())
            unit.write_bytes("report.html", cut_page(workspace.name, config, plan).encode())
    workspace.note(
        kept_share={group: round(found.share, 6) for group, found in plan.thresholds.items()},
        warnings=list(plan.warnings),
    )


def plan_cut(config: CutConfig, scores: Artifact, reference: Artifact | None) -> Plan:
    """The thresholds, from the histograms alone.

    Raises:
        DataFault: a group's drift is above `max_drift`.
    """
    stored = scores.read_json(HISTOGRAMS)
    highest, groups = stored["highest"], merged([stored["groups"]])
    parts = groups if config.per == "group" else {ALL: _total(groups)} if groups else {}
    thresholds = {group: _threshold(counts, config, highest) for group, counts in parts.items()}
    drifts = measure_drift(groups, merged([reference.read_json(HISTOGRAMS)["groups"]])) if reference else {}
    too_far = {g: d for g, d in drifts.items() if config.max_drift is not None and d.exceeds(config.max_drift)}
    if too_far:
        raise DataFault(
            f"{_drifts(too_far)}: above max_drift={config.max_drift} against {reference.url if reference else ''}. "
            "Scores that moved so far mean other text or a broken crawl, and its best part is another quality. Look "
            "at the new documents' rejects and samples; then train the classifier anew, or raise max_drift."
        )
    far = {group: found for group, found in drifts.items() if found.exceeds(config.warn_drift)}
    warnings = (f"{_drifts(far)}: above warn_drift={config.warn_drift}",) if far else ()
    return Plan(highest, config.min_score, thresholds, groups, drifts, warnings)


def measure_drift(groups: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> dict[str, Drift]:
    """Each group against the reference's group of the same name, or all of the reference where it has none."""
    if not groups or not reference:
        return {}
    whole = _total(reference)
    return {group: drift(counts, reference.get(group, whole)) for group, counts in groups.items()} | {
        ALL: drift(_total(groups), whole)
    }


def require_kin(documents: Artifact, scores: Artifact, reference: Artifact | None) -> None:
    """The scores must be of these documents, and the reference of the same classifier.

    Raises:
        ConfigError: they are not.
    """
    scored = scores.manifest.parents["documents"]
    if scored.content_digest != documents.manifest.content_digest:
        raise ConfigError(
            f"{scores.url} holds scores of {scored.url}, not of {documents.url}: rows are matched one by one. "
            "Give the scores of these documents."
        )
    if reference is None:
        return
    own, other = (artifact.manifest.parents["classifier"] for artifact in (scores, reference))
    if own.content_digest != other.content_digest:
        raise ConfigError(
            f"reference {reference.url} was scored by {other.url}, these documents by {own.url}: scores of two "
            "classifiers cannot be compared. Score the earlier dump with this classifier, and name that."
        )


@contextlib.contextmanager
def open_cutter(workspace: Workspace, plan: Plan, documents: str, scores: str) -> Iterator[Work]:
    """In a worker: a function that cuts one shard."""

    def work(path: str) -> None:
        with workspace.unit(path) as unit:
            cut_shard(unit, plan, join(documents, "data", path), join(scores, "data", sidecar(path)))

    yield work


def cut_shard(unit: Unit, plan: Plan, documents: str, scores: str) -> None:
    """One shard. Memory holds a batch of documents with their scores and a row group of what is kept."""
    kept: Counter[str] = Counter()
    target = f"docs/{unit.key.partition('/')[2]}"
    with ShardWriter(unit.open(target), DOCUMENT) as writer:
        for batch, scored in _side_by_side(documents, scores):
            sides = plan.sides(scored)
            keep = sides == 0
            writer.write(pa.Table.from_batches([batch.select(DOCUMENT.names).filter(pa.array(keep))], DOCUMENT))
            kept.update(scored["group"].filter(pa.array(keep)).to_pylist())
            unit.count(rows_in=batch.num_rows)
            lost = pa.array(~keep)
            rows = batch.select(["id", "url", "source", "text"]).filter(lost).to_pylist()
            said = scored.select(["group", "score"]).filter(lost).to_pylist()
            for row, facts, side in zip(rows, said, sides[~keep], strict=True):
                unit.drop(LOW if side < 0 else ABOVE, row | facts | {"text": row["text"][:EXCERPT_CHARS]})
    unit.set_rows(target, writer.rows)
    unit.count(rows_out=writer.rows)
    unit.note(kept=dict(sorted(kept.items())))


def _side_by_side(documents: str, scores: str) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Documents and their scores, batch by batch.

    Raises:
        DataFault: their ids differ.
    """
    coming = read_batches(scores)
    beside = SCORES.empty_table()
    for batch in read_batches(documents):
        while beside.num_rows < batch.num_rows and (more := next(coming, None)) is not None:
            beside = pa.concat_tables([beside, pa.Table.from_batches([more], SCORES)])
        rows = beside.slice(0, batch.num_rows).combine_chunks()
        _require_same_rows(rows["id"].to_pylist() == batch["id"].to_pylist(), documents, scores)
        yield batch, rows.to_batches()[0]
        beside = beside.slice(batch.num_rows)
    _require_same_rows(not beside.num_rows and next(coming, None) is None, documents, scores)


def _require_same_rows(are_same: bool, documents: str, scores: str) -> None:
    if not are_same:
        raise DataFault(
            f"the ids in {scores} are not those in {documents}, row by row: a score belongs to the document beside it. "
            "Score the documents again (--rerun score)."
        )


def _threshold(counts: np.ndarray, config: CutConfig, highest: float) -> Threshold:
    if config.top_fraction is not None:
        if config.skip_fraction:
            return band(counts, config.top_fraction, config.skip_fraction, highest)
        return top_fraction(counts, config.top_fraction, highest)
    assert config.min_score is not None
    place = int(bins(np.array([config.min_score]), highest)[0])
    return Threshold(place, config.min_score, int(counts.sum()), int(counts[place:].sum()), int(counts[place]))


def _require_some(plan: Plan, config: CutConfig, name: str) -> None:
    total = sum(found.total for found in plan.thresholds.values())
    if total and not any(found.kept for found in plan.thresholds.values()):
        best = max(float(lower_edge(int(np.flatnonzero(c)[-1]), plan.highest)) for c in plan.histograms.values())
        raise DataFault(
            f"cut {name}: none of {total:,} documents is kept by min_score={config.min_score}, top_fraction="
            f"{config.top_fraction}, skip_fraction={config.skip_fraction}; the best scores are about {best:.4f}: an "
            "empty corpus would be taken for a finished one. Lower min_score, or take a wider share."
        )


def _total(groups: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.sum(list(groups.values()), axis=0)


def _said(found: Threshold) -> dict[str, Any]:
    return asdict(found) | {"share": found.share, "bin_share": found.in_bin / max(found.total, 1)}


def _drifts(found: Mapping[str, Drift]) -> str:
    return ", ".join(f"{group} PSI {d.psi:.3f}, KS {d.ks:.3f}" for group, d in sorted(found.items()))


CUT = Stage(
    name="cut",
    version="1",
    run=cut,
    code=(
        "tasks.classify.cut",
        "tasks.classify.histogram",
        "tasks.classify.page",
        "tasks.classify.score",
        "tasks.records",
        "tasks.shards",
    ),
)
