"""Drops texts that repeat themselves, by character n-grams: for languages written without spaces."""

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.ngrams import count
from tasks.ingest.filters.rule import Limit
from tasks.ingest.texts import Texts

TOP = (2, 3, 4)
DUPLICATED = (5, 6, 7, 8, 9, 10)


class CharacterNgramRules(StageConfig):
    """Swallow Corpus v1: Gopher's ladder on characters. Line breaks count as characters; 1 switches a rule off."""

    max_top_2: float = Field(
        default=0.20, ge=0, le=1, description="Share of the most frequent 2-gram (Swallow v1: 0.2)."
    )
    max_top_3: float = Field(default=0.18, ge=0, le=1, description="Of the most frequent 3-gram (Swallow v1: 0.18).")
    max_top_4: float = Field(default=0.16, ge=0, le=1, description="Of the most frequent 4-gram (Swallow v1: 0.16).")
    max_duplicated_5: float = Field(
        default=0.15, ge=0, le=1, description="Share of distinct 5-grams that occur again (Swallow v1: 0.15)."
    )
    max_duplicated_6: float = Field(default=0.14, ge=0, le=1, description="The same for 6-grams (Swallow v1: 0.14).")
    max_duplicated_7: float = Field(default=0.13, ge=0, le=1, description="The same for 7-grams (Swallow v1: 0.13).")
    max_duplicated_8: float = Field(default=0.12, ge=0, le=1, description="The same for 8-grams (Swallow v1: 0.12).")
    max_duplicated_9: float = Field(default=0.11, ge=0, le=1, description="The same for 9-grams (Swallow v1: 0.11).")
    max_duplicated_10: float = Field(default=0.10, ge=0, le=1, description="The same for 10-grams (Swallow v1: 0.1).")


def measure(texts: Texts, rules: CharacterNgramRules) -> dict[str, np.ndarray]:
    """Top share: occurrences of the most frequent n-gram over all occurrences. Duplicated share: distinct n-grams that
    occur more than once over distinct n-grams. 0 for a text of fewer than n characters.

    Source: Swallow Corpus v1 quality rules.
    """
    live = {limit.column for limit in limits(rules)}
    longest = max((n for n in (*TOP, *DUPLICATED) if _column(n) in live), default=0)
    counted = enumerate(count(texts.codes, texts.lengths, longest), 2)
    return {_column(n): _share(n, found, texts.lengths) for n, found in counted if _column(n) in live}


def limits(rules: CharacterNgramRules) -> tuple[Limit, ...]:
    named = ((n, getattr(rules, f"max_{_column(n)}")) for n in (*TOP, *DUPLICATED))
    reasons = {n: f"{'top' if n in TOP else 'duplicated'}_{n}gram" for n in (*TOP, *DUPLICATED)}
    return tuple(Limit(reasons[n], _column(n), "above", threshold) for n, threshold in named if threshold < 1)


def _column(n: int) -> str:
    return f"top_{n}" if n in TOP else f"duplicated_{n}"


def _share(n: int, found: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    top, distinct, extra = found.T
    occurrences = np.maximum(lengths - n + 1, 0)
    if n in TOP:  # where nothing repeats, one that occurs once is the most frequent
        return np.maximum(top, np.minimum(occurrences, 1)) / np.maximum(occurrences, 1)
    return distinct / np.maximum(occurrences - extra, 1)
