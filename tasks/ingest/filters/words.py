"""Drops texts that are not prose, by their words: for languages written with spaces."""

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.filters.sentences import ends_in_ellipsis
from tasks.ingest.texts import Texts

BULLETS = "•‣◦·-*●"
_PUNCTUATION = ".,;:!?\"'()"
_PACKED_LETTERS = 7  # bytes of a positive number
_KELVIN = 0x212A  # the only letter beyond ASCII whose small letter is in it
# 255 stands for NUL (which pads shorter words) and for every letter beyond ASCII: no byte of a stop word.
_SMALL = np.array([255, *(ord(chr(code).lower()) for code in range(1, 128)), 255], np.int64)
_IS_MARK = np.isin(np.arange(129), [ord(mark) for mark in _PUNCTUATION])


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


def measure(texts: Texts, rules: WordRules) -> dict[str, np.ndarray]:
    """Words, lines and symbols of each text. Source: Rae et al. 2021 (Gopher), appendix A.1.1."""
    words, lines, codes = texts.words, texts.lines, texts.codes
    letters = np.concatenate(([0], np.cumsum(texts.is_letter)))
    bullets = np.isin(codes[lines.starts], [ord(letter) for letter in BULLETS])
    ellipses = texts.count_at(np.flatnonzero(codes == ord("…"))) + _triple_dots(texts)
    hashes = texts.count_at(np.flatnonzero(codes == ord("#")))
    return {
        "words": words.counts,
        "mean_word_chars": words.chars / np.maximum(words.counts, 1),
        "symbols_per_word": share(np.maximum(hashes, ellipses), words.counts),
        "bullet_lines": share(lines.total(bullets), lines.counts),
        "ellipsis_lines": share(lines.total(ends_in_ellipsis(codes, lines, "…")), lines.counts),
        "alphabetic_words": share(words.total(letters[words.ends] > letters[words.starts]), words.counts),
        "stop_words": _stop_words(texts, rules.stop_words),
    }


def limits(rules: WordRules) -> tuple[Limit, ...]:
    return (
        Limit("few_words", "words", "below", rules.min_words),
        Limit("many_words", "words", "above", rules.max_words),
        Limit("short_words", "mean_word_chars", "below", rules.min_mean_word_chars),
        Limit("long_words", "mean_word_chars", "above", rules.max_mean_word_chars),
        Limit("symbols", "symbols_per_word", "above", rules.max_symbols_per_word),
        Limit("bullet_lines", "bullet_lines", "above", rules.max_bullet_lines),
        Limit("ellipsis_lines", "ellipsis_lines", "above", rules.max_ellipsis_lines),
        Limit("non_alphabetic", "alphabetic_words", "below", rules.min_alphabetic_words),
        Limit("few_stop_words", "stop_words", "below", rules.min_stop_words),
    )


def _triple_dots(texts: Texts) -> np.ndarray:
    """How often `...` occurs in each text, as `str.count` counts: a run of five full stops has one."""
    dots = np.flatnonzero(texts.codes == ord("."))
    document = np.searchsorted(texts.offsets, dots, side="right")
    first = np.ones(len(dots), bool)
    first[1:] = (np.diff(dots) > 1) | (np.diff(document) > 0)
    begins = np.flatnonzero(first)
    triples = np.diff(begins, append=len(dots)) // 3
    return np.bincount(document[begins] - 1, weights=triples, minlength=len(texts)).astype(np.int64)


def _stop_words(texts: Texts, wanted: tuple[str, ...]) -> np.ndarray:
    """How many different stop words each text has, without punctuation around them, in capitals or not."""
    plain = all(word.isascii() and 0 < len(word) <= _PACKED_LETTERS for word in wanted)
    found = _packed if plain and not (texts.codes == _KELVIN).any() else _looked_up
    documents, places = found(texts, tuple(dict.fromkeys(wanted)))
    present = np.zeros((len(texts), len(wanted)), bool)
    present[documents, places] = True
    return present.sum(axis=1)


def _looked_up(texts: Texts, wanted: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The text and the place in `wanted` of each word that is a stop word: any words, one by one."""
    numbers, names = texts.vocabulary
    places = {word: place for place, word in enumerate(wanted)}
    place = np.array([places.get(name.strip(_PUNCTUATION).lower(), -1) for name in names], np.int64)[numbers]
    return texts.words.documents[place >= 0], place[place >= 0]


def _packed(texts: Texts, wanted: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """As `_looked_up`, for short ASCII stop words: a word is one number, a byte for each letter."""
    starts, ends, documents = _without_punctuation(texts)
    fits = np.isin(ends - starts, sorted({len(word) for word in wanted}))
    starts, ends, documents = starts[fits], ends[fits], documents[fits]
    packed = np.zeros(len(starts), np.int64)
    for place in range(max(map(len, wanted), default=0)):
        inside = starts + place < ends
        letter = np.where(inside, _SMALL.take(texts.codes.take(starts + place, mode="clip"), mode="clip"), 0)
        packed = (packed << 8) | letter
    width = max(map(len, wanted), default=0)
    keys = np.array([int.from_bytes(word.encode().ljust(width, b"\0")) for word in wanted], np.int64)
    order = np.argsort(keys)
    at = np.minimum(np.searchsorted(keys[order], packed), max(0, len(keys) - 1))
    same = keys[order][at] == packed if len(keys) else np.zeros(len(packed), bool)
    return documents[same], order[at[same]]


def _without_punctuation(texts: Texts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends and texts of the words without the punctuation around them; those of nothing else left out."""
    words, marks = texts.words, _IS_MARK.take(texts.codes, mode="clip")
    starts, ends = words.starts.copy(), words.ends.copy()
    left, right = marks[starts], marks[ends - 1]
    core = np.concatenate(([-1], np.flatnonzero(~(marks | texts.is_space)), [len(marks)]))
    starts[left] = core[np.searchsorted(core, starts[left])]
    ends[right] = core[np.searchsorted(core, ends[right]) - 1] + 1
    full = ends > starts
    return starts[full], ends[full], words.documents[full]
