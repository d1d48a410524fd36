"""What a filter is: thresholds, numbers measured for a batch of texts, and the limits that turn them into reasons."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tasks.config import StageConfig
from tasks.ingest.texts import Texts

Measure = Callable[[Texts, Any], dict[str, np.ndarray]]  # the thresholds are an instance of the filter's `rules`


@dataclass(frozen=True)
class Limit:
    """A text is dropped for `reason` when its number in `column` is below (or above) the threshold.

    NaN is a number that a text does not have (a mean of nothing); it breaks no limit.
    """

    reason: str
    column: str
    side: Literal["below", "above"]
    threshold: float

    def broken(self, values: np.ndarray) -> np.ndarray:
        """Which of these values break the limit; one that equals the threshold does not."""
        return values < self.threshold if self.side == "below" else values > self.threshold


@dataclass(frozen=True)
class Filter:
    """A family of rules.

    `measure` is pure: the same text and thresholds give the same numbers, whatever other texts are in the batch. Its
    columns are exactly those that `limits` names, so a threshold can move without measuring again. A rule whose
    threshold switches it off has no limit and is not measured.
    """

    rules: type[StageConfig]  # thresholds as fields with their published values as defaults
    measure: Measure
    limits: Callable[[Any], tuple[Limit, ...]]  # in the order in which reasons are given
    expensive: bool = False  # measured only for texts that no earlier filter drops


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole for each text; NaN where the whole is 0.

    The quotient of two integers is rounded once, so 3 of 10 is exactly the threshold 0.3.
    """
    found = np.full(len(whole), np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found
