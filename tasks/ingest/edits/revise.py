"""Applies the edits of one moment to a batch of texts, in the order of EDITS."""

from collections.abc import Mapping

import numpy as np

from tasks.config import StageConfig
from tasks.ingest.edits import EDITS
from tasks.ingest.edits.edit import Counts, Moment


def revise(texts: list[str], applied: Mapping[str, StageConfig], moment: Moment) -> tuple[list[str], Counts]:
    """The texts after the applied edits of this moment, and a column for each count.

    Columns are named EDIT.COUNT (`punctuation.commas`) and are there for an empty batch too.
    """
    columns: dict[str, np.ndarray] = {}
    for name, kind in EDITS.items():
        if name in applied and kind.moment == moment:
            texts, counts = kind.edit(texts, applied[name])
            columns |= {f"{name}.{column}": counts[column] for column in kind.columns}
    return texts, columns
