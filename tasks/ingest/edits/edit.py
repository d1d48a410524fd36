"""What an edit is: its knobs, and a function that rewrites texts and counts what it did to each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.config import StageConfig

Counts = dict[str, np.ndarray]  # column -> one int64 a text
Rewrite = Callable[[list[str], Any], tuple[list[str], Counts]]  # the knobs are an instance of the edit's `rules`


@dataclass(frozen=True)
class Edit:
    """One kind of cleaning. `edit` is pure and takes each text by itself: batches of any size give the same texts."""

    rules: type[StageConfig]
    edit: Rewrite
    columns: tuple[str, ...]  # names of the counts, so that an edit that is not applied still has its columns
    after_filters: bool = False  # masks what is kept; the others come before the filters, which judge what they leave


def per_text(
    texts: Sequence[str], columns: tuple[str, ...], one: Callable[[str, dict[str, int]], str]
) -> tuple[list[str], Counts]:
    """Rewrite each text with `one`, which adds what it did to the counts it is given."""
    counts = {name: np.zeros(len(texts), np.int64) for name in columns}
    rewritten: list[str] = []
    for index, text in enumerate(texts):
        found: dict[str, int] = {}
        rewritten.append(one(text, found))
        for name, number in found.items():
            counts[name][index] += number
    return rewritten, counts
