"""Drops texts that are not running Japanese: too few letters, little hiragana, much katakana or foreign text."""

from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.text import HIRAGANA, KATAKANA, Text


class JapaneseRules(StageConfig):
    """Swallow Corpus v1. Fractions of kana are over Japanese letters, the last one over all characters."""

    min_japanese_letters: int = Field(
        default=400, ge=0, description="Fewest hiragana, katakana, kanji, commas and full stops (Swallow v1: 400)."
    )
    min_hiragana_fraction: float = Field(default=0.2, ge=0, le=1, description="Of Japanese letters (Swallow v1: 0.2).")
    max_katakana_fraction: float = Field(default=0.5, ge=0, le=1, description="Of Japanese letters (Swallow v1: 0.5).")
    min_japanese_fraction: float = Field(default=0.5, ge=0, le=1, description="Of all characters (Swallow v1: 0.5).")


def judge(text: Text, rules: JapaneseRules) -> str | None:
    """The first of four reasons. Source: Swallow Corpus v1 quality rules (Okazaki et al. 2024)."""
    letters = text.japanese_letters
    if letters < rules.min_japanese_letters:
        return "few_japanese_letters"
    if text.classes[HIRAGANA] < rules.min_hiragana_fraction * letters:
        return "low_hiragana"
    if text.classes[KATAKANA] > rules.max_katakana_fraction * letters:
        return "high_katakana"
    if letters < rules.min_japanese_fraction * len(text):
        return "low_japanese"
    return None
