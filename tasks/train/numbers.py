"""What a step was found to be, and whether a run may go on after it."""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from model.guard import FINE, NOT_FINITE
from model.loop import Metrics
from tasks.train.config import TrainConfig
from tasks.train.hosts import as_first

log = logging.getLogger(__name__)

Numbers = dict[str, Any]


def read_numbers(metrics: Metrics, sources: Sequence[str]) -> Numbers:
    """The metrics of a step as a line of metrics.jsonl has them; waits for the step.

    None is a number that is not finite. source_loss has the sources that the batch holds targets of; skipped says why
    the step was left out, where it was.
    """
    read: dict[str, Any] = dict(jax.device_get(metrics))
    verdict = int(read.pop("verdict", FINE))
    weights, losses = read.pop("source_weight_S", ()), read.pop("source_loss_S", ())
    numbers: Numbers = {name: _finite(value) for name, value in read.items()}
    if len(weights):
        each = zip(sources, weights, losses, strict=True)
        numbers["source_loss"] = {source: _finite(loss) for source, weight, loss in each if weight > 0}
    if verdict != FINE:
        numbers["skipped"] = "not_finite" if verdict == NOT_FINITE else "spike"
    return numbers


def is_finished(metrics: Metrics) -> bool:
    """Whether the devices are through with a step; does not wait."""
    loss: Any = metrics["loss"]
    return loss.is_ready()


class LeftOut:
    """How many steps of a run were left out, against how many may be."""

    def __init__(self, config: TrainConfig):
        self._limits = {"not_finite": config.skip_nonfinite, "spike": config.skip_spikes}
        self._counts = dict.fromkeys(self._limits, 0)

    def remember(self, lines: Iterable[Numbers]) -> None:
        """Count those of the steps before a resume, as the first trainer finds them written down."""
        for line in lines:
            if "skipped" in line:
                self._counts[line["skipped"]] += 1
        self._counts = dict(zip(self._counts, as_first(list(self._counts.values())), strict=True))

    def is_one_too_many(self, step: int, numbers: Numbers) -> tuple[str, int] | None:
        """Count a step if it was left out; (kind, limit) when the run must stop at it."""
        kind = numbers.get("skipped")
        if kind is None and None in (numbers["loss"], numbers["grad_norm"]):
            kind = "not_finite"  # no guard was there, so it went into the weights
        if kind is None:
            return None
        self._counts[kind] += 1
        if self._counts[kind] > self._limits[kind]:
            return kind, self._limits[kind]
        log.warning(
            "step %s was left out: %s, loss %s, gradient norm %s; the %s of %s that may be",
            step, kind, said(numbers["loss"]), said(numbers["grad_norm"]), self._counts[kind], self._limits[kind],
        )  # fmt: skip
        return None


def said(value: float | None) -> str:
    """A number of a step in words."""
    return "not finite" if value is None else f"{value:.4f}"


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
