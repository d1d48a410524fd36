"""Drops pages whose lines are no prose: few end in punctuation, many are short, repeated, or hold few words."""

import math

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.duplication import repeats
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.texts import Texts


class LineRules(StageConfig):
    """FineWeb's three rules of its own, and the share of line breaks (datatrove's FineWebQualityFilter)."""

    min_punctuated: float = Field(
        default=0.12,
        ge=0,
        le=1,
        description="Lines that end in punctuation; at most so many is a drop (FineWeb: 0.12).",
    )
    punctuation: str = Field(default=".'\"!?", min_length=1, description="What such a line ends in (FineWeb's five).")
    max_short: float = Field(
        default=0.67, ge=0, le=1, description="Short lines; from here on a drop, 1 = off (FineWeb: 0.67)."
    )
    short_chars: int = Field(default=30, ge=0, description="Characters of the longest short line (FineWeb: 30).")
    max_repeated_chars: float = Field(
        default=0.01, ge=0, le=1, description="Characters in repeated lines; from here on, 1 = off (datatrove: 0.01)."
    )
    max_breaks_per_word: float = Field(default=0.3, ge=0, description="Line breaks per word (datatrove: 0.3).")


def measure(texts: Texts, rules: LineRules) -> dict[str, np.ndarray]:
    """Shares of the non-blank lines, without the spaces around them.

    Source: Penedo et al. 2024 (FineWeb), as datatrove computes it, but for two things: blank lines do not count (its
    extractor writes none, ours does), and words are what stands between spaces.
    """
    lines = texts.lines
    ends = np.isin(texts.codes[lines.ends - 1], [ord(letter) for letter in rules.punctuation])
    columns = {
        "punctuated": share(lines.total(ends), lines.counts),
        "breaks_per_word": share(np.maximum(lines.counts - 1, 0), texts.words.counts),
    }
    if rules.max_short < 1:
        columns["short"] = share(lines.total(lines.lengths <= rules.short_chars), lines.counts)
    if rules.max_repeated_chars < 1:
        columns["repeated_chars"] = share(lines.total(repeats(texts, lines) * lines.lengths), lines.chars)
    return columns


def limits(rules: LineRules) -> tuple[Limit, ...]:
    """FineWeb drops at the threshold itself, hence the neighbours of the numbers."""
    off = {"short"} if rules.max_short >= 1 else set()
    off |= {"repeated_chars"} if rules.max_repeated_chars >= 1 else set()
    named = (
        Limit("few_punctuated_lines", "punctuated", "below", math.nextafter(rules.min_punctuated, 2)),
        Limit("short_lines", "short", "above", math.nextafter(rules.max_short, -1)),
        Limit("repeated_lines", "repeated_chars", "above", math.nextafter(rules.max_repeated_chars, -1)),
        Limit("list", "breaks_per_word", "above", rules.max_breaks_per_word),
    )
    return tuple(limit for limit in named if limit.column not in off)
