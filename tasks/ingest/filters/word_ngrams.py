"""Drops texts that repeat themselves, by word n-grams: for languages written with spaces."""

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.ngrams import Repeats, repeats
from tasks.ingest.filters.rule import Limit
from tasks.ingest.texts import Spans, Texts

TOP = (2, 3, 4)
DUPLICATED = (5, 6, 7, 8, 9, 10)


class WordNgramRules(StageConfig):
    """Gopher's repetition rules: shares of the characters in words; 1 switches a rule off."""

    max_top_2: float = Field(default=0.20, ge=0, le=1, description="In the most frequent 2-gram (Gopher: 0.2).")
    max_top_3: float = Field(default=0.18, ge=0, le=1, description="In the most frequent 3-gram (Gopher: 0.18).")
    max_top_4: float = Field(default=0.16, ge=0, le=1, description="In the most frequent 4-gram (Gopher: 0.16).")
    max_duplicated_5: float = Field(default=0.15, ge=0, le=1, description="In repeated 5-grams (Gopher: 0.15).")
    max_duplicated_6: float = Field(default=0.14, ge=0, le=1, description="In repeated 6-grams (Gopher: 0.14).")
    max_duplicated_7: float = Field(default=0.13, ge=0, le=1, description="In repeated 7-grams (Gopher: 0.13).")
    max_duplicated_8: float = Field(default=0.12, ge=0, le=1, description="In repeated 8-grams (Gopher: 0.12).")
    max_duplicated_9: float = Field(default=0.11, ge=0, le=1, description="In repeated 9-grams (Gopher: 0.11).")
    max_duplicated_10: float = Field(default=0.10, ge=0, le=1, description="In repeated 10-grams (Gopher: 0.1).")


def measure(texts: Texts, rules: WordNgramRules) -> dict[str, np.ndarray]:
    """Characters in the most frequent n-gram, and in later occurrences of repeated ones, over those of all words.

    A tie for the most frequent goes to the one that comes first in the text; a single occurrence is no repetition. Each
    character counts once. Source: Rae et al. 2021 (Gopher), table A1.
    """
    live = {limit.column for limit in limits(rules)}
    longest = max((n for n in (*TOP, *DUPLICATED) if _column(n) in live), default=0)
    words, (numbers, _) = texts.words, texts.vocabulary
    columns: dict[str, np.ndarray] = {}
    for found in repeats(numbers, words.counts, longest):
        if _column(found.n) in live:
            chars = _top_chars(found, words) if found.n in TOP else _covered_chars(found, words)
            columns[_column(found.n)] = np.minimum(1.0, chars / np.maximum(words.chars, 1))
    return columns


def limits(rules: WordNgramRules) -> tuple[Limit, ...]:
    named = ((n, getattr(rules, f"max_{_column(n)}")) for n in (*TOP, *DUPLICATED))
    reasons = {n: f"{'top' if n in TOP else 'duplicated'}_{n}words" for n in (*TOP, *DUPLICATED)}
    return tuple(Limit(reasons[n], _column(n), "above", threshold) for n, threshold in named if threshold < 1)


def _column(n: int) -> str:
    return f"top_{n}" if n in TOP else f"duplicated_{n}"


def _top_chars(found: Repeats, words: Spans) -> np.ndarray:
    """Characters in all occurrences of the most frequent n-gram of each text."""
    first = found.positions[found.starts]
    most = np.lexsort((first, -found.counts, found.sequences))
    sequences, begins = np.unique(found.sequences[most], return_index=True)
    best = most[begins]
    before = np.concatenate(([0], np.cumsum(words.lengths)))
    chars = np.zeros(words.num_texts, np.int64)
    chars[sequences] = (before[first[best] + found.n] - before[first[best]]) * found.counts[best]
    return chars


def _covered_chars(found: Repeats, words: Spans) -> np.ndarray:
    """Characters of the words that lie in an occurrence of an n-gram that occurred before."""
    again = np.delete(found.positions, found.starts)
    edges = np.zeros(len(words) + 1, np.int64)
    edges[: len(words)] += np.bincount(again, minlength=len(words))
    edges -= np.bincount(again + found.n, minlength=len(words) + 1)
    return words.total(words.lengths * (np.cumsum(edges[:-1]) > 0))
