"""One text as the filters see it: code points, lines, sentences and words, each computed once and only when asked."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np

HIRAGANA, KATAKANA, KANJI, TOTEN, KUTEN, OTHER = range(6)
JAPANESE = (HIRAGANA, KATAKANA, KANJI, TOTEN, KUTEN)

_RANGES = (  # Swallow Corpus v1: the long-vowel mark is not katakana there
    (HIRAGANA, 0x3041, 0x3096),
    (KATAKANA, 0x30A1, 0x30FA),
    (KANJI, 0x3005, 0x3005),
    (KANJI, 0x3007, 0x3007),
    (KANJI, 0x303B, 0x303B),
    (KANJI, 0x3400, 0x9FFF),
    (KANJI, 0xF900, 0xFAFF),
    (TOTEN, 0x3001, 0x3001),
    (TOTEN, 0xFF0C, 0xFF0C),
    (KUTEN, 0x3002, 0x3002),
    (KUTEN, 0xFF0E, 0xFF0E),
    (KUTEN, 0xFF01, 0xFF01),
    (KUTEN, 0xFF1F, 0xFF1F),
)
_CLASS = np.full(0x10000, OTHER, np.uint8)
for _name, _first, _last in _RANGES:
    _CLASS[_first : _last + 1] = _name

SENTENCE = re.compile("[^。．！？!?\n]+[。．！？!?]?")  # at most one terminator; a line break ends a sentence
_BLOCK = re.compile(r"\n\s*\n")


def code_points(text: str) -> np.ndarray:
    """The code points of a text as uint32; a lone surrogate is one code point."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Text:
    """A normalised text and what can be counted in it."""

    def __init__(self, raw: str):
        self.raw = raw

    def __len__(self) -> int:
        return len(self.raw)

    @cached_property
    def codes(self) -> np.ndarray:
        return code_points(self.raw)

    @cached_property
    def classes(self) -> np.ndarray:
        """How many characters there are of each class (HIRAGANA … OTHER)."""
        if not len(self.codes):
            return np.zeros(OTHER + 1, np.int64)
        classes = _CLASS[np.minimum(self.codes, 0xFFFF)]
        classes[(self.codes >= 0x20000) & (self.codes < 0x30000)] = KANJI  # surrogate pairs D840-D87F
        return np.bincount(classes, minlength=OTHER + 1)

    @property
    def japanese_letters(self) -> int:
        return int(self.classes[list(JAPANESE)].sum())

    @cached_property
    def lines(self) -> list[str]:
        """Non-blank lines without surrounding spaces: what Swallow calls paragraphs."""
        return [stripped for line in self.raw.split("\n") if (stripped := line.strip())]

    @cached_property
    def blocks(self) -> list[str]:
        """Paragraphs in the sense of Gopher: separated by blank lines."""
        return [stripped for block in _BLOCK.split(self.raw) if (stripped := block.strip())]

    @cached_property
    def sentences(self) -> list[str]:
        """Runs of text up to a terminator or the end of the line, without surrounding spaces."""
        return [stripped for found in SENTENCE.findall(self.raw) if (stripped := found.strip())]

    @cached_property
    def words(self) -> list[str]:
        return self.raw.split()


def duplicate_shares(items: Sequence[str]) -> tuple[float, float]:
    """The share of items that repeat an earlier one, by count and by characters."""
    if not items:
        return 0.0, 0.0
    repeated = [(item, count - 1) for item, count in Counter(items).items() if count > 1]
    by_count = sum(extra for _, extra in repeated) / len(items)
    by_chars = sum(len(item) * extra for item, extra in repeated) / sum(map(len, items))
    return by_count, by_chars
