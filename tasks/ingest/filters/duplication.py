"""Drops texts that repeat their own lines, sentences or blocks."""

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.texts import Spans, Texts

_MIX = np.array([0x9E3779B97F4A7C15**power % 2**64 for power in range(1, 8)], np.uint64)  # odd numbers, all bits used


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
    """Which pieces repeat an earlier one of the same text. Exact: those that look alike are compared in full."""
    again = np.zeros(len(spans), bool)
    order, joined = _alike(texts.codes, spans)
    former, latter = order[:-1][joined], order[1:][joined]
    unequal = _unequal(texts.codes, spans, former, latter)
    again[latter] = True
    if unequal.any():  # rare: all of a group are compared as strings
        group = np.cumsum(np.concatenate(([True], ~joined)))
        doubtful = np.isin(group, group[1:][joined][unequal])
        seen: set[tuple[int, str]] = set()
        for index in order[doubtful].tolist():
            piece = (int(spans.documents[index]), texts.string(spans, index))
            again[index] = piece in seen
            seen.add(piece)
    return again


def _alike(codes: np.ndarray, spans: Spans) -> tuple[np.ndarray, np.ndarray]:
    """The pieces, like beside like and in order; and which neighbours are alike: in text, length and five characters.

    Equal pieces are alike; that others are is only rare.
    """
    index = np.arange(len(spans))
    looks = spans.documents.astype(np.uint64) * _MIX[5] + spans.lengths.astype(np.uint64) * _MIX[6]
    for quarter in range(5):
        looks += codes[spans.starts + ((spans.lengths - 1) * quarter >> 2)] * _MIX[quarter]
    shift = np.uint64(max(1, len(spans).bit_length()))
    packed = np.sort((looks >> shift << shift) | index.astype(np.uint64))  # faster than sorting indices
    looks = packed >> shift
    return (packed ^ (looks << shift)).astype(np.int64), looks[1:] == looks[:-1]


def _unequal(codes: np.ndarray, spans: Spans, former: np.ndarray, latter: np.ndarray) -> np.ndarray:
    """Which of these pairs of pieces differ."""
    lengths = spans.lengths[former]
    other = (lengths != spans.lengths[latter]) | (spans.documents[former] != spans.documents[latter])
    lengths = np.where(other, 0, lengths)
    pair = np.repeat(np.arange(len(former)), lengths)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    differ = codes[spans.starts[former][pair] + place] != codes[spans.starts[latter][pair] + place]
    other[pair[differ]] = True
    return other
