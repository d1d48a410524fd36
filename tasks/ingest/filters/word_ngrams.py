"""Drops texts that repeat themselves, by word n-grams: for languages written with spaces."""

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.text import Text

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


def judge(text: Text, rules: WordNgramRules) -> str | None:
    """`top_2words` … `top_4words`, `duplicated_5words` … `duplicated_10words`.

    Source: Rae et al. 2021 (Gopher), table A1. A repeated n-gram covers the words of its later occurrences; each
    character counts once.
    """
    words = text.words
    if len(words) < TOP[0]:
        return None
    lengths = np.array([len(word) for word in words])
    names: dict[str, int] = {}
    ids = np.array([names.setdefault(word, len(names)) for word in words])
    grams = ids
    for n in range(2, DUPLICATED[-1] + 1):
        grams = _renumbered(grams[:-1] * len(words) + ids[n - 1 :])  # ids stay below the number of words
        if not len(grams):
            return None
        if n in TOP:
            if top_share(grams, lengths, n) > getattr(rules, f"max_top_{n}"):
                return f"top_{n}words"
        elif duplicated_share(grams, lengths, n) > getattr(rules, f"max_duplicated_{n}"):
            return f"duplicated_{n}words"
    return None


def top_share(grams: np.ndarray, lengths: np.ndarray, n: int) -> float:
    """Characters in all occurrences of the most frequent n-gram over the characters of all words.

    A tie goes to the one that comes first in the text; a single occurrence is no repetition.
    """
    counts = np.bincount(grams)
    most = counts.max()
    if most < 2:
        return 0.0
    first = int(np.flatnonzero(counts[grams] == most)[0])
    return float(min(1.0, lengths[first : first + n].sum() * most / lengths.sum()))


def duplicated_share(grams: np.ndarray, lengths: np.ndarray, n: int) -> float:
    """Characters covered by occurrences of n-grams that occurred before, over the characters of all words."""
    _, first = np.unique(grams, return_index=True)
    again = np.ones(len(grams), bool)
    again[first] = False
    edges = np.zeros(len(lengths) + 1, np.int64)
    starts = np.flatnonzero(again)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + n, -1)
    covered = np.cumsum(edges[:-1]) > 0
    return float(lengths[covered].sum() / lengths.sum())


def _renumbered(keys: np.ndarray) -> np.ndarray:
    """Small ids for equal keys."""
    return np.unique(keys, return_inverse=True)[1].reshape(-1)
