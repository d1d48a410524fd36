"""What a classifier is worth on texts that it has not seen: agreement with their labels, and calibration."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.classify import metrics
from tasks.classify.metrics import Reliability
from tasks.classify.model import Classifier


@dataclass(frozen=True)
class Judgement:
    """Labels against what was said of each held-out text. Labels count from 0 in the order of `marks`."""

    marks: tuple[int, ...]
    ids: tuple[str, ...]
    true: np.ndarray  # place of the label in `marks`
    probabilities: np.ndarray
    score: np.ndarray

    @cached_property
    def confusion(self) -> np.ndarray:
        """By the most likely label."""
        return metrics.confusion(self.true, self.probabilities.argmax(axis=1), len(self.marks))

    @cached_property
    def rounded(self) -> np.ndarray:
        """By the score, rounded to the nearest mark (half goes up)."""
        values = np.asarray(self.marks)
        middle = (values[1:] + values[:-1]) / 2
        return metrics.confusion(self.true, np.searchsorted(middle, self.score, side="right"), len(self.marks))

    @property
    def accuracy(self) -> float:
        return metrics.accuracy(self.confusion)

    @cached_property
    def aucs(self) -> dict[int, float | None]:
        """For each mark but the lowest: how well the score finds the texts with at least that mark."""
        return {mark: metrics.auc(self.score, self.true >= place) for place, mark in enumerate(self.marks) if place}

    @property
    def auc(self) -> float | None:
        """The mean over the marks that both sides have."""
        found = [value for value in self.aucs.values() if value is not None]
        return float(np.mean(found)) if found else None

    @property
    def kappa(self) -> float | None:
        """Quadratic weighted, of the rounded score."""
        return metrics.quadratic_kappa(self.rounded)

    @cached_property
    def reliability(self) -> dict[int, Reliability]:
        """For each mark but the lowest: the event that a text has at least that mark."""
        return {
            mark: metrics.reliability(self.probabilities[:, place:].sum(axis=1), self.true >= place)
            for place, mark in enumerate(self.marks)
            if place
        }

    @cached_property
    def rows(self) -> pa.Table:
        """id, label, score and the probability of each mark, by id."""
        columns: dict[str, Any] = {
            "id": list(self.ids),
            "label": np.asarray(self.marks, np.int8)[self.true],
            "score": self.score,
        }
        columns |= {f"probability_{mark}": self.probabilities[:, i] for i, mark in enumerate(self.marks)}
        return pa.table(columns).sort_by([("id", "ascending"), ("score", "ascending")])

    def facts(self) -> dict[str, Any]:
        """JSON with every figure of the report."""
        return {
            "heldout": len(self.ids),
            "marks": list(self.marks),
            "accuracy": self.accuracy,
            "f1": dict(zip(map(str, self.marks), metrics.f1(self.confusion), strict=True)),
            "auc": {str(mark): value for mark, value in self.aucs.items()},
            "quadratic_kappa": self.kappa,
            "confusion": self.confusion.tolist(),
            "rounded_confusion": self.rounded.tolist(),
            "calibration": {str(mark): asdict(found) for mark, found in self.reliability.items()},
        }


def judge(classifier: Classifier, heldout: pa.Table) -> Judgement:
    """Ask the classifier about held-out lines (id, line, label)."""
    probabilities = classifier.probabilities(heldout["line"].to_pylist())
    place = {mark: index for index, mark in enumerate(classifier.marks)}
    return Judgement(
        marks=classifier.marks,
        ids=tuple(heldout["id"].to_pylist()),
        true=np.array([place[label] for label in heldout["label"].to_pylist()], np.int64),
        probabilities=probabilities,
        score=classifier.scores(probabilities),
    )
