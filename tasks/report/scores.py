"""The scores of a lineage: each model against the first, with the noise of the measurement, and the headline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.report.corpus import language_name, language_order
from tasks.report.lineage import Node

SCORES = "scores.json"
BITS_PER_BYTE = ("bits_per_byte", "bpb")
LOWER_IS_BETTER = (*BITS_PER_BYTE, "perplexity", "ppl", "loss", "nll", "cer", "wer", "toxicity", "repetition")
Z95 = 1.96  # half-width of a 95 % interval in standard errors, for a normal error


@dataclass(frozen=True)
class Score:
    """What one model got on one task."""

    model: str
    value: float
    stderr: float | None
    n: int | None
    change: float | None  # from the reference model: relative for bits per byte, a difference otherwise
    is_noise: bool  # the change is smaller than its own 95 % interval
    is_better: bool | None  # None for the reference, for no change and for noise
    note: str  # backend and version

    @property
    def low(self) -> float:
        return self.value - Z95 * (self.stderr or 0.0)

    @property
    def high(self) -> float:
        return self.value + Z95 * (self.stderr or 0.0)


@dataclass(frozen=True)
class Contest:
    """One task, language and metric with the score of each model."""

    task: str
    language: str
    metric: str
    scores: tuple[Score, ...]
    lower_is_better: bool
    is_relative: bool  # changes are shares of the reference's value

    @property
    def reference(self) -> str:
        """The model that the others are compared with."""
        return next(score.model for score in self.scores if score.change is None)

    @property
    def span(self) -> tuple[float, float]:
        """The range of an axis for these scores, intervals included."""
        low, high = min(s.low for s in self.scores), max(s.high for s in self.scores)
        air = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
        return low - air, high + air


@dataclass(frozen=True)
class Headline:
    """Bits per byte before and after, in one language."""

    language: str
    before: Score
    after: Score
    scores: tuple[Score, ...]

    @property
    def title(self) -> str:
        return language_name(self.language)

    @property
    def change(self) -> float:
        """Relative: -0.2 is a fifth fewer bits for the same text."""
        return self.after.value / self.before.value - 1 if self.before.value else 0.0


def contests(nodes: Sequence[Node], before: str = "base") -> list[Contest]:
    """Every task scored in the lineage; bits per byte first, then by task. The reference model is `before`, or
    the first one when it was not scored. Scores that are not numbers are left out."""
    rows: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for node in nodes:
        if node.artifact is None or not any(entry.path == SCORES for entry in node.artifact.manifest.files):
            continue
        for row in node.artifact.read_json(SCORES):
            if isinstance(row.get("value"), (int, float)) and math.isfinite(row["value"]):
                key = (str(row.get("task", "")), str(row.get("language", "")), str(row.get("metric", "")))
                rows.setdefault(key, {})[str(row.get("model", "?"))] = row
    found = [_contest(*key, by_model, before) for key, by_model in rows.items()]
    return sorted(found, key=lambda c: (not is_bits_per_byte(c), language_order(c.language), c.task, c.metric))


def is_bits_per_byte(contest: Contest) -> bool:
    """Whether the contest is the headline's metric."""
    return contest.metric in BITS_PER_BYTE or (contest.task in BITS_PER_BYTE and contest.metric in ("", "value"))


def headlines(found: Sequence[Contest], before: str = "base", after: str = "cpt") -> list[Headline]:
    """Bits per byte of each language, Japanese first; `after` falls back to the last model scored."""
    result: list[Headline] = []
    for contest in found:
        if not is_bits_per_byte(contest) or any(line.language == contest.language for line in result):
            continue
        by_model = {score.model: score for score in contest.scores}
        first = by_model.get(before, contest.scores[0])
        last = by_model.get(after, contest.scores[-1])
        result.append(Headline(contest.language, first, last, contest.scores))
    return result


def _contest(task: str, language: str, metric: str, by_model: Mapping[str, Mapping[str, Any]], before: str) -> Contest:
    said = [row["higher_is_better"] for row in by_model.values() if isinstance(row.get("higher_is_better"), bool)]
    lower = not said[0] if said else metric in LOWER_IS_BETTER or task in BITS_PER_BYTE
    relative = metric in BITS_PER_BYTE or task in BITS_PER_BYTE
    reference = by_model.get(before) or next(iter(by_model.values()))
    scores = tuple(_score(model, row, reference, lower, relative) for model, row in by_model.items())
    return Contest(task, language, metric, scores, lower, relative)


def _score(model: str, row: Mapping[str, Any], reference: Mapping[str, Any], lower: bool, relative: bool) -> Score:
    value, start = float(row["value"]), float(reference["value"])
    stderr, start_stderr = _stderr(row), _stderr(reference)
    change: float | None = None
    noise = False
    if row is not reference:
        change = (value / start - 1 if start else 0.0) if relative else value - start
        if stderr is not None and start_stderr is not None:
            noise = 0 < abs(value - start) <= Z95 * math.hypot(stderr, start_stderr)
    better = None if not change or noise else (change < 0) == lower
    note = " ".join(str(row[key]) for key in ("backend", "version") if row.get(key))
    n = row.get("n")
    return Score(model, value, stderr, int(n) if isinstance(n, (int, float)) else None, change, noise, better, note)


def _stderr(row: Mapping[str, Any]) -> float | None:
    value = row.get("stderr")
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
