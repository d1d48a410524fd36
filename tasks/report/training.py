"""The training runs of a lineage: their loss curves and a few figures, from metrics.jsonl."""

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.page.charts import Curve, downsample
from tasks.page.goodput import TimeSpent, time_spent
from tasks.report.lineage import Node

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Training:
    """One training run."""

    node: Node
    curve: Curve | None  # loss over steps; None when no step has a finite loss
    steps: int
    tokens: int  # trained on, over the whole run
    first_loss: float | None  # mean of the first twentieth of the steps
    last_loss: float | None  # mean of the last twentieth
    best_loss: float | None
    peak_lr: float | None
    tokens_per_s: float | None  # median over the steps
    wait_fraction: float | None  # of the steps' time spent waiting for data
    starts: int  # how often the trainer was started: more than once after a pre-emption or a fault
    not_finite: int  # steps whose loss is NaN or infinite
    skipped: int  # steps that the trainer left out: not finite, or a spike
    spent: TimeSpent | None  # where the time went
    unreadable: int  # lines that are not JSON objects with a step
    marks: tuple[tuple[int, float, float | None], ...]  # (step, loss, lr) at ten places, the curve as a table


def trainings(nodes: Sequence[Node]) -> list[Training]:
    """Every artifact that holds metrics, in the order they were made."""
    return [
        training(node, node.artifact.read_bytes(METRICS), node.artifact.manifest.extra)
        for node in nodes
        if node.artifact is not None and any(entry.path == METRICS for entry in node.artifact.manifest.files)
    ]


def training(node: Node, metrics: bytes, noted: Mapping[str, Any] = {}) -> Training:
    """Read metrics.jsonl, and the times the stage noted of the run (they are no part of its result).

    A step written twice (by a run that was resumed) counts once, as last written.
    """
    timings = noted.get("timings")
    timings = timings if isinstance(timings, dict) else {}
    by_step: dict[int, Mapping[str, Any]] = {}
    unreadable = 0
    for line in metrics.splitlines():
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, TypeError, KeyError):
            unreadable += bool(line.strip())
            continue
        by_step[step] = row
    rows = [by_step[step] for step in sorted(by_step)]
    losses = [(int(row["step"]), loss) for row in rows if (loss := _number(row.get("loss"))) is not None]
    finite = [(step, loss) for step, loss in losses if math.isfinite(loss)]
    values = [loss for _, loss in finite]
    edge = max(1, len(values) // 20)
    speeds = [v for row in rows if (v := _number(row.get("tokens_per_s"))) is not None and math.isfinite(v)]
    rates = [v for row in rows if (v := _number(row.get("lr"))) is not None and math.isfinite(v)]
    return Training(
        node=node,
        curve=downsample([float(step) for step, _ in finite], values) if finite else None,
        steps=len(rows),
        tokens=_tokens(rows),
        first_loss=statistics.fmean(values[:edge]) if values else None,
        last_loss=statistics.fmean(values[-edge:]) if values else None,
        best_loss=min(values, default=None),
        peak_lr=max(rates, default=None),
        tokens_per_s=_number(timings.get("tokens_per_s")) or (statistics.median(speeds) if speeds else None),
        wait_fraction=_number(timings.get("data_wait_fraction")),
        starts=int(_number(noted.get("trainer_starts")) or 1),
        not_finite=len(losses) - len(finite),
        skipped=sum("skipped" in row for row in rows),
        spent=time_spent(noted.get("goodput")),
        unreadable=unreadable,
        marks=_marks(finite, by_step),
    )


def _tokens(rows: Sequence[Mapping[str, Any]]) -> int:
    """Tokens trained on. The field holds a running total in some loops and the step's own count in others."""
    counts = [int(v) for row in rows if (v := _number(row.get("tokens"))) is not None and math.isfinite(v)]
    if len(counts) > 1 and all(a < b for a, b in itertools.pairwise(counts)):
        return counts[-1]
    return sum(counts)


def _marks(
    finite: Sequence[tuple[int, float]], by_step: Mapping[int, Mapping[str, Any]]
) -> tuple[tuple[int, float, float | None], ...]:
    if not finite:
        return ()
    places = sorted({round(i * (len(finite) - 1) / 9) for i in range(10)})
    return tuple((step, loss, _number(by_step[step].get("lr"))) for step, loss in (finite[i] for i in places))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
