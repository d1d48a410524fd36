"""Drops texts that repeat themselves, by character n-grams: for languages written without spaces."""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.text import Text

TOP = (2, 3, 4)
DUPLICATED = (5, 6, 7, 8, 9, 10)
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing


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


def judge(text: Text, rules: CharacterNgramRules) -> str | None:
    """`top_2gram` … `top_4gram`, `duplicated_5gram` … `duplicated_10gram`. Source: Swallow Corpus v1 quality rules."""
    limits = [getattr(rules, f"max_{'top' if n in TOP else 'duplicated'}_{n}") for n in (*TOP, *DUPLICATED)]
    for (n, share), limit in zip(ngram_shares(text.codes, limits), limits, strict=True):
        if share > limit:
            return f"{'top' if n in TOP else 'duplicated'}_{n}gram"
    return None


def ngram_shares(codes: np.ndarray, limits: list[float]) -> Iterator[tuple[int, float]]:
    """(n, share) for n in TOP and DUPLICATED; 0 without counting where the limit switches the rule off.

    Top share: occurrences of the most frequent n-gram over all occurrences. Duplicated share: distinct n-grams that
    occur more than once over distinct n-grams. N-grams are compared by a 64-bit hash, which is exact up to n = 3.
    """
    wide = codes.astype(np.uint64)
    hashes = wide
    for n, limit in zip((*TOP, *DUPLICATED), limits, strict=True):
        hashes = _longer(hashes, wide, n)
        if limit >= 1 or not len(hashes):
            yield n, 0.0
            continue
        ordered = np.sort(hashes)
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        counts = np.diff(np.append(starts, len(ordered)))
        yield n, float(counts.max() / len(ordered) if n in TOP else (counts > 1).mean())


def _longer(hashes: np.ndarray, wide: np.ndarray, n: int) -> np.ndarray:
    """Hashes of n-grams from those of (n-1)-grams: packed 21 bits a character up to n = 3, multiplied beyond."""
    if len(wide) < n:
        return wide[:0]
    if n <= 3:
        return (hashes[:-1] << np.uint64(21)) | wide[n - 1 :]
    return hashes[:-1] * _BASE + wide[n - 1 :]
