"""Drops texts that are not prose, by their words: for languages written with spaces."""

from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.text import Text

BULLETS = ("•", "‣", "◦", "·", "-", "*", "●")


class WordRules(StageConfig):
    """Gopher's quality rules."""

    min_words: int = Field(default=50, ge=0, description="Fewest words of a document (Gopher: 50).")
    max_words: int = Field(default=100_000, ge=1, description="Most words of a document (Gopher: 100,000).")
    min_mean_word_chars: float = Field(default=3, ge=0, description="Shortest mean word (Gopher: 3).")
    max_mean_word_chars: float = Field(default=10, ge=0, description="Longest mean word (Gopher: 10).")
    max_symbols_per_word: float = Field(default=0.1, ge=0, description="# or … per word (Gopher: 0.1).")
    max_bullet_lines: float = Field(
        default=0.9, ge=0, le=1, description="Lines that begin with a bullet (Gopher: 0.9)."
    )
    max_ellipsis_lines: float = Field(
        default=0.3, ge=0, le=1, description="Lines that end in an ellipsis (Gopher: 0.3)."
    )
    min_alphabetic_words: float = Field(default=0.8, ge=0, le=1, description="Words with a letter (Gopher: 0.8).")
    min_stop_words: int = Field(default=2, ge=0, description="Different stop words that must occur (Gopher: 2).")
    stop_words: tuple[str, ...] = Field(
        default=("the", "be", "to", "of", "and", "that", "have", "with"), description="The stop words (Gopher's eight)."
    )


def judge(text: Text, rules: WordRules) -> str | None:
    """The first of nine reasons. Source: Rae et al. 2021 (Gopher), appendix A.1.1."""
    words, lines = text.words, text.lines
    if len(words) < rules.min_words:
        return "few_words"
    if len(words) > rules.max_words:
        return "many_words"
    mean = sum(map(len, words)) / max(1, len(words))
    if mean < rules.min_mean_word_chars:
        return "short_words"
    if mean > rules.max_mean_word_chars:
        return "long_words"
    ellipses = text.raw.count("…") + text.raw.count("...")
    if max(text.raw.count("#"), ellipses) > rules.max_symbols_per_word * len(words):
        return "symbols"
    if sum(line.startswith(BULLETS) for line in lines) > rules.max_bullet_lines * len(lines):
        return "bullet_lines"
    if sum(line.endswith(("…", "...")) for line in lines) > rules.max_ellipsis_lines * len(lines):
        return "ellipsis_lines"
    if sum(any(map(str.isalpha, word)) for word in words) < rules.min_alphabetic_words * len(words):
        return "non_alphabetic"
    found = {word.strip(".,;:!?\"'()").lower() for word in words}
    return "few_stop_words" if len(found.intersection(rules.stop_words)) < rules.min_stop_words else None
