"""Drops texts that repeat their own lines, sentences or blocks."""

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.texts import Spans, Texts

_MIX = np.uint64(0x9E3779B97F4A7C15)
_QUARTERS = range(5)


class DuplicationRules(StageConfig):
    """Swallow v1 looks at lines and sentences, Gopher at lines and blocks (paragraphs); 1 switches a rule off."""

    max_lines: float = Field(default=0.30, ge=0, le=1, description="Share of repeated lines (Swallow v1, Gopher: 0.3).")
    max_line_chars: float = Field(default=0.20, ge=0, le=1, description="The same by characters (both: 0.2).")
    max_sentences: float = Field(default=1.0, ge=0, le=1, description="Share of repeated sentences (Swallow v1: 0.3).")
    max_sentence_chars: float = Field(default=1.0, ge=0, le=1, description="The same by characters (Swallow v1: 0.2).")
    max_blocks: float = Field(default=1.0, ge=0, le=1, description="Share of repeated blocks (Gopher: 0.3).")
    max_block_chars: float = Field(default=1.0, ge=0, le=1, description="The same by characters (Gopher: 0.2).")


def measure(texts: Texts, rules: DuplicationRules) -> dict[str, np.ndarray]:
    """Shares of repeated items by count and by characters: an item with f copies repeats f-1 times.

    Source: Swallow Corpus v1 quality rules; Rae et al. 2021 (Gopher), table A1.
    """
    columns: dict[str, np.ndarray] = {}
    for item in ("line", "sentence", "block"):
        live = [limit.column for limit in limits(rules) if limit.column in (f"{item}s", f"{item}_chars")]
        if live:
            spans: Spans = getattr(texts, f"{item}s")
            again = repeats(texts, spans)
            counted = {
                f"{item}s": (spans.total(again), spans.counts),
                f"{item}_chars": (spans.total(again * spans.lengths), spans.chars),
            }
            columns |= {name: share(*counted[name]) for name in live}
    return columns


def limits(rules: DuplicationRules) -> tuple[Limit, ...]:
    named = (
        Limit(f"duplicate_{column}", column, "above", getattr(rules, f"max_{column}"))
        for item in ("line", "sentence", "block")
        for column in (f"{item}s", f"{item}_chars")
    )
    return tuple(limit for limit in named if limit.threshold < 1)


def repeats(texts: Texts, spans: Spans) -> np.ndarray:
    """Which pieces repeat an earlier one of the same text. Exact: the strings of those that look alike are compared."""
    again = np.zeros(len(spans), bool)
    alike = _looks(texts.codes, spans)
    ordered = np.sort(alike)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return again
    at = np.minimum(np.searchsorted(twice, alike), len(twice) - 1)
    seen: set[tuple[int, str]] = set()
    for index in np.flatnonzero(twice[at] == alike).tolist():
        piece = (int(spans.documents[index]), texts.string(spans, index))
        again[index] = piece in seen
        seen.add(piece)
    return again


def _looks(codes: np.ndarray, spans: Spans) -> np.ndarray:
    """A number that is equal for equal pieces and rarely for others: text, length and five characters of each."""
    looks = spans.documents.astype(np.uint64) * _MIX + spans.lengths.astype(np.uint64)
    for quarter in _QUARTERS:
        looks = (looks ^ (looks >> np.uint64(29))) * _MIX + codes[spans.starts + (spans.lengths - 1) * quarter // 4]
    return looks
