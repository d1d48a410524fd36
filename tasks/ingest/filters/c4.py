"""Drops pages with placeholder text or curly brackets, and those of fewer than five sentences in lines that count."""

import re

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit
from tasks.ingest.texts import Texts

NOT_COUNTED = (  # a line with one of these is furniture of the page
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


class C4Rules(StageConfig):
    """What C4 (Raffel et al. 2020) does to whole pages, as FineWeb used it: without the rule on ends of lines."""

    max_curly_brackets: int = Field(default=0, ge=0, description="Most { of a page; a page of code has more (C4: 0).")
    min_sentences: int = Field(default=5, ge=0, description="Fewest sentences in lines that count (C4: 5).")
    min_line_words: int = Field(default=3, ge=0, description="Fewest words of a line that counts (C4: 3).")
    max_word_chars: int = Field(default=1000, ge=1, description="Longest word of a line that counts (C4: 1,000).")


def measure(texts: Texts, rules: C4Rules) -> dict[str, np.ndarray]:
    """Placeholders, brackets and sentences. Lines that do not count stay in the text: filters rewrite nothing.

    A sentence ends at . ? or ! before a space, or with its line. Source: datatrove's C4QualityFilter, which splits
    sentences by a trained model (punkt).
    """
    lines, words = texts.lines, texts.words
    lowered = _lowered(texts)
    first_word, end_word = np.searchsorted(words.starts, lines.starts), np.searchsorted(words.starts, lines.ends)
    longer = np.concatenate(([0], np.cumsum(words.lengths > rules.max_word_chars)))
    counts = (end_word - first_word >= rules.min_line_words) & (longer[end_word] == longer[first_word])
    for phrase in NOT_COUNTED:
        counts[_lines_with(texts, lowered, phrase)] = False
    return {
        "lorem_ipsum": np.bincount(lines.documents[_lines_with(texts, lowered, "lorem ipsum")], minlength=len(texts)),
        "curly_brackets": texts.count_at(np.flatnonzero(texts.codes == ord("{"))),
        "sentences": lines.total(counts * _sentences(texts)),
    }


def limits(rules: C4Rules) -> tuple[Limit, ...]:
    return (
        Limit("lorem_ipsum", "lorem_ipsum", "above", 0),
        Limit("curly_brackets", "curly_brackets", "above", rules.max_curly_brackets),
        Limit("few_sentences", "sentences", "below", rules.min_sentences),
    )


def _lowered(texts: Texts) -> str:
    """All texts in small letters, each letter at its place: U+0130 alone would become two."""
    return "".join(texts.strings).replace("\u0130", "\0").lower()


def _lines_with(texts: Texts, lowered: str, phrase: str) -> np.ndarray:
    """The lines that hold a phrase."""
    found = np.array([match.start() for match in re.finditer(re.escape(phrase), lowered)], np.int64)
    line = np.searchsorted(texts.lines.starts, found, side="right") - 1
    return np.unique(line[found + len(phrase) <= texts.lines.ends[line]])  # not begun in one text and ended in another


def _sentences(texts: Texts) -> np.ndarray:
    """Sentences of each line: ends before a space, and one more for the rest of the line."""
    codes = texts.codes
    ends = np.flatnonzero((codes == ord(".")) | (codes == ord("?")) | (codes == ord("!")))
    after = np.append(texts.is_space, True)[ends + 1]
    inner = ends[after]
    lines = texts.lines
    return 1 + np.searchsorted(inner, lines.ends - 1) - np.searchsorted(inner, lines.starts)
