"""Drops texts in which offensive words are a large share of the letters."""

import functools
import math

import numpy as np
from pydantic import Field, field_validator

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.lists import resolved, words
from tasks.ingest.texts import Texts
from tasks.ingest.words import WordScan


class NgWordRules(StageConfig):
    """Swallow Corpus v1. The lists of Swallow's production are private; these are the public ones it names."""

    lists: tuple[str, ...] = Field(
        default=("inappropriate-ja-offensive", "inappropriate-ja-sexual", "inappropriate-ja-sexual_with_mask"),
        validate_default=True,
        min_length=1,
        description="Word lists: files of tasks/ingest/lists, or URLs with #sha256=HEX.",
    )
    drop_fraction: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="A text with so large a share, or a larger, is dropped (Swallow v1: 0.05).",
    )
    of_japanese: bool = Field(
        default=True, description="The share is over Japanese letters (Swallow v1); else over all characters."
    )

    @field_validator("lists")
    @classmethod
    def _are_lists(cls, lists: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(resolved, lists))


def measure(texts: Texts, rules: NgWordRules) -> dict[str, np.ndarray]:
    """Characters of listed words over letters; capitals do not count. Source: Swallow Corpus v1 (recipes 2.4).

    The longest word counts where several begin, and what it covers is read once. A word that begins or ends with an
    ASCII letter or digit, or with katakana, is one only where no other stands beside it (which is ours).
    """
    matched = scan_of(rules.lists).matched(texts.strings).sum(axis=1)
    return {"fraction": share(matched, texts.japanese_letters if rules.of_japanese else texts.lengths)}


def limits(rules: NgWordRules) -> tuple[Limit, ...]:
    return (Limit("ng_words", "fraction", "above", math.nextafter(rules.drop_fraction, 0)),)


@functools.lru_cache(maxsize=8)
def scan_of(lists: tuple[str, ...]) -> WordScan:
    """A scan for the words of these lists; a word of several counts for the first."""
    return WordScan.of([words(reference) for reference in lists])
