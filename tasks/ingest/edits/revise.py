"""Applies edits to a batch of texts in the order of EDITS."""

from collections.abc import Mapping

import numpy as np

from tasks.config import StageConfig
from tasks.ingest.edits import EDITS
from tasks.ingest.edits.edit import Counts


def revise(
    texts: list[str], applied: Mapping[str, StageConfig], *, after_filters: bool = False
) -> tuple[list[str], Counts]:
    """The texts after the edits of one moment (before or after the filters), and a column for each count.

    Columns are named EDIT.COUNT (`punctuation.commas`) and are there for an empty batch too.
    """
    columns: dict[str, np.ndarray] = {}
    for name, kind in EDITS.items():
        if name not in applied or kind.after_filters != after_filters:
            continue
        texts, counts = kind.edit(texts, applied[name])
        columns |= {f"{name}.{column}": counts[column] for column in kind.columns}
    return texts, columns
