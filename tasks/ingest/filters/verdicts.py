"""Applies filters to a batch of texts: every number they measured, and the first reason to drop each text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.config import StageConfig
from tasks.ingest.filters import FILTERS
from tasks.ingest.filters.rule import Limit
from tasks.ingest.texts import Texts


@dataclass(frozen=True)
class Verdicts:
    """One entry a text. Columns are float64; NaN where a number was not measured or does not exist."""

    columns: dict[str, np.ndarray]
    reasons: list[str | None]  # None = kept


def judge(texts: Texts, applied: Mapping[str, StageConfig], *, everything: bool = False) -> Verdicts:
    """Measure the texts by the filters `applied` (name -> thresholds), in the order of FILTERS.

    Expensive filters see only texts that nothing has dropped yet, unless `everything` is asked for. Which other texts
    are in the batch changes nothing.
    """
    parts = [_judge_part(part, applied, everything) for part in texts.parts()]
    columns = {
        name: np.concatenate([np.empty(0), *(part.columns[name] for part in parts)]) for name in columns_of(applied)
    }
    return Verdicts(columns, [reason for part in parts for reason in part.reasons])


def limits_of(applied: Mapping[str, StageConfig]) -> list[Limit]:
    """All limits in the order in which they count, with the full names of their columns (`length.chars`)."""
    return [
        Limit(limit.reason, f"{name}.{limit.column}", limit.side, limit.threshold)
        for name, kind in FILTERS.items()
        if name in applied
        for limit in kind.limits(applied[name])
    ]


def columns_of(applied: Mapping[str, StageConfig]) -> list[str]:
    """The columns that `judge` fills."""
    return list(dict.fromkeys(limit.column for limit in limits_of(applied)))


def decide(columns: Mapping[str, np.ndarray], limits: Sequence[Limit]) -> list[str | None]:
    """The first reason for each row of measured columns: what other thresholds would have dropped."""
    reasons = [None, *(limit.reason for limit in limits)]
    return [reasons[place] for place in first_broken(columns, limits).tolist()]


def first_broken(columns: Mapping[str, np.ndarray], limits: Sequence[Limit]) -> np.ndarray:
    """For each row 1 + the place of the first limit that it breaks; 0 = it breaks none."""
    first = np.zeros(len(next(iter(columns.values()), ())), np.int32)
    for place, limit in reversed(list(enumerate(limits, 1))):
        first[limit.broken(columns[limit.column])] = place
    return first


def _judge_part(texts: Texts, applied: Mapping[str, StageConfig], everything: bool) -> Verdicts:
    columns = {name: np.full(len(texts), np.nan) for name in columns_of(applied)}
    kept = np.ones(len(texts), bool)
    for name, kind in FILTERS.items():
        if name not in applied:
            continue
        chosen = np.flatnonzero(kept) if kind.expensive and not everything else np.arange(len(texts))
        measured = kind.measure(texts.take(chosen), applied[name]) if len(chosen) else {}
        for column, values in measured.items():
            columns[f"{name}.{column}"][chosen] = values
        for limit in kind.limits(applied[name]):
            kept &= ~limit.broken(columns[f"{name}.{limit.column}"])
    return Verdicts(columns, decide(columns, limits_of(applied)) if columns else [None] * len(texts))
