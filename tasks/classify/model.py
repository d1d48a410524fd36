"""A trained classifier, asked: probabilities and scores of many lines, by the base environment's fastText."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tasks.artifact import Artifact
from tasks.classify.text import LABEL
from tasks.errors import DataFault

FACTS = "classifier.json"
SMOOTHING = 1e-5  # fastText adds it to every probability before it takes the logarithm (its std_log)
LEAST = 1e-12  # below it a probability is rounding noise of the float32 logarithm


@dataclass(frozen=True)
class Classifier:
    """A model file and the marks of its labels, e.g. (0, 1) or (0, 1, 2, 3)."""

    path: Path
    marks: tuple[int, ...]

    @property
    def highest(self) -> int:
        """The greatest score there is."""
        return max(self.marks)

    @cached_property
    def _predict(self) -> Any:
        import fasttext

        with contextlib.redirect_stderr(io.StringIO()):  # one build announces every load
            return fasttext.load_model(str(self.path)).f.predict

    def probabilities(self, lines: Sequence[str]) -> np.ndarray:
        """One row a line, one column a mark; rows sum to one. Lines are of `to_line`.

        fastText's own smoothing is taken off again: without that, all that is more certain than 0.99999 were equal.
        """
        column = {f"{LABEL}{mark}": index for index, mark in enumerate(self.marks)}
        found = np.full((len(lines), len(self.marks)), LEAST)
        predict, count = self._predict, len(self.marks)
        for row, line in enumerate(lines):
            for probability, label in predict(line + "\n", count, 0.0, "strict"):
                found[row, column[label]] = max(probability - SMOOTHING, LEAST)
        return found / found.sum(axis=1, keepdims=True)

    def scores(self, probabilities: np.ndarray) -> np.ndarray:
        """The expected mark: sum of label x probability (recipes.md 4.2); of two labels the probability of the 1."""
        return probabilities @ np.asarray(self.marks, np.float64)


def open_classifier(artifact: Artifact) -> Classifier:
    """The classifier of an artifact.

    Raises:
        DataFault: it is not one.
    """
    if not artifact.files(FACTS):
        raise DataFault(
            f"{artifact.url} has no {FACTS}, its files are {[entry.path for entry in artifact.files()][:5]}: "
            "documents are scored by a trained classifier. Give the reference of one, for example "
            "classify/tiny:classifier."
        )
    facts = artifact.read_json(FACTS)
    return Classifier(artifact.local_dir() / facts["model"], tuple(facts["marks"]))
