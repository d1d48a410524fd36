"""Drops texts that are not running Japanese: too few letters, little hiragana, much katakana or foreign text."""

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.texts import HIRAGANA, KATAKANA, Texts


class JapaneseRules(StageConfig):
    """Swallow Corpus v1. Fractions of kana are over Japanese letters, the last one over all characters."""

    min_japanese_letters: int = Field(
        default=400, ge=0, description="Fewest hiragana, katakana, kanji, commas and full stops (Swallow v1: 400)."
    )
    min_hiragana_fraction: float = Field(default=0.2, ge=0, le=1, description="Of Japanese letters (Swallow v1: 0.2).")
    max_katakana_fraction: float = Field(default=0.5, ge=0, le=1, description="Of Japanese letters (Swallow v1: 0.5).")
    min_japanese_fraction: float = Field(default=0.5, ge=0, le=1, description="Of all characters (Swallow v1: 0.5).")


def measure(texts: Texts, rules: JapaneseRules) -> dict[str, np.ndarray]:
    """Letters and three fractions. Source: Swallow Corpus v1 quality rules (Okazaki et al. 2024)."""
    letters = texts.japanese_letters
    return {
        "letters": letters,
        "hiragana_fraction": share(texts.classes[:, HIRAGANA], letters),
        "katakana_fraction": share(texts.classes[:, KATAKANA], letters),
        "japanese_fraction": share(letters, texts.lengths),
    }


def limits(rules: JapaneseRules) -> tuple[Limit, ...]:
    return (
        Limit("few_japanese_letters", "letters", "below", rules.min_japanese_letters),
        Limit("low_hiragana", "hiragana_fraction", "below", rules.min_hiragana_fraction),
        Limit("high_katakana", "katakana_fraction", "above", rules.max_katakana_fraction),
        Limit("low_japanese", "japanese_fraction", "below", rules.min_japanese_fraction),
    )
