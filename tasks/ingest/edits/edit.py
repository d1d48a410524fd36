"""What an edit is: its knobs, its moment, and a function that rewrites texts and counts what it did to each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tasks.config import StageConfig

Counts = dict[str, np.ndarray]  # column -> one int64 a text
Rewrite = Callable[[list[str], Any], tuple[list[str], Counts]]  # the knobs are an instance of the edit's `rules`
Moment = Literal["extracted", "identified", "kept"]


@dataclass(frozen=True)
class Edit:
    """One kind of cleaning. `edit` is pure and takes each text by itself: batches of any size give the same texts.

    Its moment: `extracted` = before the normaliser, which removes the control characters that a repair needs, and
    before language identification, which takes broken Japanese for Portuguese; `identified` = before the filters,
    which judge what it leaves; `kept` = after the filters.
    """

    rules: type[StageConfig]
    edit: Rewrite
    columns: tuple[str, ...]  # names of the counts, so that an empty batch has the same columns
    moment: Moment = "identified"


def per_text(
    texts: Sequence[str], columns: tuple[str, ...], one: Callable[[str, dict[str, int]], str]
) -> tuple[list[str], Counts]:
    """Rewrite each text with `one`, which puts what it did into the counts it is given."""
    counts = {name: np.zeros(len(texts), np.int64) for name in columns}
    rewritten: list[str] = []
    for index, text in enumerate(texts):
        found: dict[str, int] = {}
        rewritten.append(one(text, found))
        for name, number in found.items():
            counts[name][index] = number
    return rewritten, counts
