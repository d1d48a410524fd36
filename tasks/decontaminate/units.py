"""What n-grams are made of: words where words are spaced, characters where they are not; and hashes of n of them.

A hash of a window is a polynomial over uint64 with an odd base: from one running sum every window of any width is a
subtraction and a multiplication away, because an odd base has an inverse modulo 2^64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from tasks.decontaminate.letters import SEPARATOR, UNSPACED, Letters, text_of

Kind = Literal["words", "characters"]
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_POWERS: list[np.ndarray] = [np.ones(1, np.uint64), np.ones(1, np.uint64)]  # of the base and of its inverse


@dataclass(frozen=True)
class Units:
    """The words or characters of some texts, in order."""

    kind: Kind
    codes: np.ndarray
    """uint32, all of them; between words there are separators."""
    starts: np.ndarray
    ends: np.ndarray
    """Where in `codes` each unit starts and ends."""
    first: np.ndarray
    """The first unit of each text, and one more: the number of units."""

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def counts(self) -> np.ndarray:
        """How many units each text has."""
        return np.diff(self.first)

    def owners(self, units: np.ndarray) -> np.ndarray:
        """The text of each of these units."""
        return np.searchsorted(self.first, units, "right") - 1

    def hashes(self, width: int) -> np.ndarray:
        """A hash for each window of so many units, also of those that reach into the next text."""
        if len(self) < width:
            return np.zeros(0, np.uint64)
        windows = self._sums[width:] - self._sums[:-width]
        windows *= _powers(len(self))[1][: len(windows)]
        return _mixed(windows)

    def hashes_at(self, units: np.ndarray, width: int) -> np.ndarray:
        """`hashes(width)[units]`, computed for these alone."""
        windows = self._sums[units + width] - self._sums[units]
        windows *= _powers(len(self))[1][units]
        return _mixed(windows)

    def inside(self, units: np.ndarray, width: int) -> np.ndarray:
        """Those of the windows that end in the text where they start."""
        return units[units + width <= self.first[self.owners(units) + 1]]

    def text(self, unit: int, width: int) -> str:
        """A window as it was compared: one space between words."""
        if not width:
            return ""
        whole = text_of(self.codes[self.starts[unit] : self.ends[unit + width - 1]])
        return " ".join(whole.split())

    def compared(self, text: int) -> str:
        """A whole text as it was compared."""
        return self.text(int(self.first[text]), int(self.first[text + 1] - self.first[text]))

    @cached_property
    def letters_before(self) -> np.ndarray:
        """How many letters stand before each unit, and in all."""
        return np.concatenate(([0], np.cumsum(self.ends - self.starts)))

    @cached_property
    def unspaced_before(self) -> np.ndarray:
        """How many letters of scripts without spaces stand before each unit, and in all."""
        total = np.concatenate(([0], np.cumsum(self.codes >= UNSPACED)))
        return np.concatenate((total[self.starts], total[-1:]))

    @cached_property
    def _sums(self) -> np.ndarray:
        total = np.zeros(len(self) + 1, np.uint64)
        np.cumsum(self._values * _powers(len(self))[0][: len(self)], out=total[1:])
        return total

    @cached_property
    def _values(self) -> np.ndarray:
        if self.kind == "characters":
            return self.codes.astype(np.uint64)
        powers, inverse = _powers(len(self.codes))
        values = np.add.reduceat(self.codes * powers[: len(self.codes)], self.starts)  # a separator counts nothing
        values *= inverse[self.starts]
        return _mixed(values)


def words(found: Letters) -> Units:
    """The runs of letters and digits."""
    is_letter = found.codes != SEPARATOR
    turns = np.flatnonzero(is_letter[1:] != is_letter[:-1]) + 1
    if len(is_letter) and is_letter[0]:
        turns = np.concatenate(([0], turns))
    starts, ends = turns[::2], turns[1::2]  # the last code is a separator
    return Units("words", found.codes, starts, ends, np.searchsorted(starts, np.concatenate(([0], found.ends))))


def characters(found: Letters, least: int = 0) -> Units:
    """All letters and digits of the texts that have at least so many letters of a script without spaces."""
    ends = found.ends.tolist()
    spans = list(zip([0, *ends], ends, strict=False))
    is_unspaced = found.codes >= UNSPACED
    counts = [0 if least and np.count_nonzero(is_unspaced[a:b]) < least else b - a for a, b in spans]
    pieces = [found.codes[a:b] for (a, b), n in zip(spans, counts, strict=True) if n]
    codes = np.concatenate(pieces) if pieces else found.codes[:0]
    kept = codes != SEPARATOR
    places = np.arange(np.count_nonzero(kept))
    return Units("characters", codes[kept], places, places + 1, _firsts(kept, counts))


def _firsts(kept: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The first unit of each text of so many codes, and one more, when these codes are kept."""
    first, at = [0], 0
    for size in sizes:
        first.append(first[-1] + int(np.count_nonzero(kept[at : at + size])))
        at += size
    return np.array(first)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Let the high bits depend on all; a bijection. The array is used up."""
    values ^= values >> np.uint64(32)
    values *= _MIX
    return values


def equal_windows(left: Units, left_units: np.ndarray, right: Units, right_units: np.ndarray, width: int) -> np.ndarray:
    """Whether windows of `width` units are the same text, pair by pair: code points are compared, not hashes."""
    if not len(left_units):
        return np.zeros(0, bool)
    steps = np.arange(width)
    mine, theirs = ((units[:, None] + steps).ravel() for units in (left_units, right_units))
    sizes = left.ends[mine] - left.starts[mine]
    same = sizes == right.ends[theirs] - right.starts[theirs]
    chosen = np.flatnonzero(same)
    own = ranges(left.starts[mine[chosen]], sizes[chosen])
    other = ranges(right.starts[theirs[chosen]], sizes[chosen])
    differs = np.flatnonzero(left.codes[own] != right.codes[other])
    same[chosen[np.searchsorted(np.cumsum(sizes[chosen]), differs, "right")]] = False
    return same.reshape(-1, width).all(axis=1)


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """start, start + 1, … for each pair, one after the other."""
    return np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)


def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    if len(_POWERS[0]) < count:
        for which, base in enumerate((_BASE, _INVERSE)):
            factors = np.full(max(2 * count, 1 << 18), base, np.uint64)
            factors[0] = 1
            _POWERS[which] = np.multiply.accumulate(factors)
    return _POWERS[0], _POWERS[1]
