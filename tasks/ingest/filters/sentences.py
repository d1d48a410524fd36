"""Drops lists of words and endless lines by the length of sentences, and teasers by how sentences end."""

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.texts import Spans, Texts

ELLIPSES = "・･…‥"  # and three full stops


class SentenceRules(StageConfig):
    """Swallow Corpus v1. v2 keeps the mean and dropped the longest sentence."""

    min_mean_chars: float = Field(default=20, ge=0, description="Shortest mean sentence (Swallow v1: 20).")
    max_mean_chars: float = Field(default=90, ge=0, description="Longest mean sentence (Swallow v1: 90).")
    max_longest_chars: int = Field(default=200, ge=0, description="Longest sentence; 0 = no limit (Swallow v1: 200).")
    max_ellipsis_fraction: float = Field(
        default=0.2, ge=0, le=1, description="Share of sentences that end in an ellipsis (Swallow v1: 0.2)."
    )


def measure(texts: Texts, rules: SentenceRules) -> dict[str, np.ndarray]:
    """Number, mean and longest of the sentences, and how many trail off. Source: Swallow Corpus v1 quality rules."""
    found = texts.sentences
    columns = {
        "sentences": found.counts,
        "mean_chars": share(found.chars, found.counts),
        "ellipsis_fraction": share(found.total(ends_in_ellipsis(texts.codes, found)), found.counts),
    }
    if rules.max_longest_chars:
        columns["longest_chars"] = found.largest(found.lengths)
    return columns


def limits(rules: SentenceRules) -> tuple[Limit, ...]:
    longest = (Limit("longest_sentence", "longest_chars", "above", rules.max_longest_chars),)
    return (
        Limit("no_sentence", "sentences", "below", 1),
        Limit("short_sentences", "mean_chars", "below", rules.min_mean_chars),
        Limit("long_sentences", "mean_chars", "above", rules.max_mean_chars),
        *(longest if rules.max_longest_chars else ()),
        Limit("ellipsis", "ellipsis_fraction", "above", rules.max_ellipsis_fraction),
    )


def ends_in_ellipsis(codes: np.ndarray, spans: Spans, ellipses: str = ELLIPSES) -> np.ndarray:
    """Which pieces end in one of these characters or in three full stops."""
    last = codes[spans.ends - 1]
    dots = (last == ord(".")) & (spans.lengths >= 3)
    for back in (2, 3):
        dots[dots] = codes[spans.ends[dots] - back] == ord(".")
    return dots | np.isin(last, [ord(letter) for letter in ellipses])
