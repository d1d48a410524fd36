"""Drops texts that are not in the script of their language: few letters of it, or many of another."""

import functools

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.texts import Texts

Ranges = tuple[tuple[int, int], ...]  # first and last code point


class ScriptRules(StageConfig):
    """Ours, after the rule of Swallow Corpus v1 for Japanese letters; for any script that has ranges of its own."""

    letters: Ranges = Field(min_length=1, description="Code points of the script: first and last of each range.")
    min_letters: int = Field(default=400, ge=0, description="Fewest letters of the script (Swallow v1: 400).")
    min_fraction: float = Field(default=0.5, ge=0, le=1, description="Of all characters but spaces (Swallow v1: 0.5).")


def measure(texts: Texts, rules: ScriptRules) -> dict[str, np.ndarray]:
    """Letters of the script, and their share of the characters that are no spaces."""
    letters = texts.count_at(np.flatnonzero(_table(rules.letters)[texts.codes]))
    spaces = texts.count_at(np.flatnonzero(texts.is_space))
    return {"letters": letters, "fraction": share(letters, texts.lengths - spaces)}


def limits(rules: ScriptRules) -> tuple[Limit, ...]:
    return (
        Limit("few_letters_of_the_script", "letters", "below", rules.min_letters),
        Limit("other_script", "fraction", "below", rules.min_fraction),
    )


@functools.lru_cache(maxsize=8)
def _table(ranges: Ranges) -> np.ndarray:
    table = np.zeros(0x110000, np.bool_)
    for first, last in ranges:
        table[first : last + 1] = True
    return table
