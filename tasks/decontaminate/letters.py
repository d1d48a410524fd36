"""Texts as decontamination reads them: letters and digits only, in one width and case.

The exact meaning is `casefold(NFKC(text))` without all that is no letter or digit. A table says it for one code point
at a time; a text with a code point whose meaning depends on its neighbours, or that becomes several letters, is
normalised as a whole.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

LAST = 0x3347F  # above: tags and private planes, no letters
SEPARATOR = 0
UNSPACED = 1 << 30  # set in the code of a letter of a script without spaces
NEEDS_CONTEXT = 0xFFFF_FFFF
_SCRIPTS = (  # without spaces between words
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3021, 0x303C),
    (0x3041, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0x20000, LAST),
)


@dataclass(frozen=True)
class Letters:
    """The letters of some texts, one after the other; SEPARATOR stands for all else, and once after each text."""

    codes: np.ndarray
    """uint32; a code point of `casefold(NFKC(text))`, with UNSPACED where it is that, or SEPARATOR."""
    ends: np.ndarray
    """int64, one a text: where its letters end, its last separator included."""


def letters(texts: Sequence[str]) -> Letters:
    """The letters of texts. Equal texts give equal letters whatever stands beside them."""
    table, _ = _tables()
    raw = "".join(text + "\n" for text in texts).encode("utf-32-le", "surrogatepass")
    codes = table.take(np.frombuffer(raw, np.uint32), mode="clip")
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    hard = np.flatnonzero(codes == NEEDS_CONTEXT)
    if not len(hard):
        return Letters(codes, ends)
    pieces = np.split(codes, ends[:-1])
    for i in np.unique(np.searchsorted(ends, hard, "right")).tolist():
        pieces[i] = _in_context(str(texts[i]))
    return Letters(np.concatenate(pieces), np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces))))


def text_of(codes: np.ndarray) -> str:
    """Letters as a text; a separator is a blank."""
    points = np.where(codes == SEPARATOR, np.uint32(0x20), codes & np.uint32(UNSPACED - 1))
    return points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _in_context(text: str) -> np.ndarray:
    whole = unicodedata.normalize("NFKC", text).casefold() + "\n"
    return _tables()[1].take(np.frombuffer(whole.encode("utf-32-le", "surrogatepass"), np.uint32), mode="clip")


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """By code point: what it becomes in a text, and what it is in a text that was normalised as a whole."""
    points = [c if not 0xD800 <= c < 0xE000 else 0x20 for c in range(LAST + 2)]
    points[-1] = 0x20  # stands for all above
    folded = unicodedata.normalize("NFKC", "\0".join(map(chr, points))).casefold().split("\0")
    folded[0:2] = [""]  # code point 0 is the mark itself
    own = np.fromiter((point if chr(point).isalnum() else SEPARATOR for point in points), np.uint32, len(points))
    for first, last in _SCRIPTS:
        own[first : last + 1] |= np.where(own[first : last + 1] != SEPARATOR, np.uint32(UNSPACED), np.uint32(0))
    combining = _combining(points)
    table = np.zeros(len(points), np.uint32)
    for point, text in enumerate(folded):
        if point in combining or (len(text) != 1 and any(map(str.isalnum, text))):
            table[point] = NEEDS_CONTEXT
        elif len(text) == 1:
            table[point] = NEEDS_CONTEXT if ord(text) in combining else own[min(ord(text), LAST + 1)]
    return table, own


def _combining(points: Sequence[int]) -> set[int]:
    """Code points that may join with the one before them, themselves or as they are normalised."""
    found: set[int] = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # vowels and final consonants of hangul
    for point in points:
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(int(parts[1], 16))
        if unicodedata.combining(chr(point)):
            found.add(point)
    narrow = range(0xFF61, 0xFFDD)  # half-width marks and jamo become such
    return found | {c for c in narrow if ord(unicodedata.normalize("NFKC", chr(c))[0]) in found}
