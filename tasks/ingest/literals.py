"""Finds thousands of fixed strings in a batch of texts: hashes of first characters leave few places to compare."""

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_PRIMES = (np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35))
_BITS = 16
_SMALL = np.arange(0x110000, dtype=np.uint32)  # ASCII capitals as small letters: one character stays one
_SMALL[0x41:0x5B] += 32
_CAPITALS = {code: code + 32 for code in range(0x41, 0x5B)}
_LONGER, _WHOLE = 1, 2  # of a pair of characters: it begins longer strings; it is a string


@dataclass(frozen=True)
class Literals:
    """Strings to look for, and the tables that say where they can begin.

    `places` is a superset without misses: what it leaves out begins none of the strings.
    """

    strings: tuple[str, ...]
    ignore_case: bool  # of ASCII; the strings are in small letters then
    by_start: dict[str, tuple[str, ...]]  # first two characters (or one) -> strings, longest first
    first: np.ndarray  # code point -> it begins a string (1), it is one (2)
    pairs: np.ndarray
    triples: np.ndarray

    @classmethod
    def of(cls, strings: Sequence[str], *, ignore_case: bool = False) -> "Literals":
        """Build the tables. Empty strings and line breaks are no literals: they are a mistake of the caller."""
        strings = tuple(dict.fromkeys(map(small, strings) if ignore_case else strings))
        assert all(strings)
        assert not any("\n" in string for string in strings)
        first = np.zeros(0x110000, np.uint8)
        pairs, triples = np.zeros(1 << _BITS, np.uint8), np.zeros(1 << _BITS, np.bool_)
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for string in strings:
            codes = np.array([[ord(char)] for char in string[:3]], np.uint32)
            first[codes[0, 0]] |= min(len(string), 2) ^ 3  # 2 for a string of one character, else 1
            groups[string[:2]].append(string)
            if len(string) > 1:
                pairs[_hashed(codes[:2])] |= _WHOLE if len(string) == 2 else _LONGER
            if len(string) > 2:
                triples[_hashed(codes[:3])] = True
        if ignore_case:
            first[0x41:0x5B] = first[0x61:0x7B]
        by_start = {start: tuple(sorted(group, key=len, reverse=True)) for start, group in groups.items()}
        return cls(strings, ignore_case, by_start, first, pairs, triples)

    def places(self, codes: np.ndarray) -> np.ndarray:
        """Where strings may begin in these code points, which end with a line break."""
        kinds = self.first[codes]
        places = np.flatnonzero(kinds != 0)
        alone = places[kinds[places] > 1]
        one, two = self._folded(codes[places]), self._folded(codes[places + 1])
        found = self.pairs[_hashed((one, two))]
        some = np.flatnonzero(found != 0)
        places, found = places[some], found[some]
        three = self._folded(codes[np.minimum(places + 2, len(codes) - 1)])
        long = self.triples[_hashed((one[some], two[some], three))] & (found & _LONGER > 0)
        places = places[long | (found & _WHOLE > 0)]
        return np.union1d(places, alone) if len(alone) else places

    def at(self, text: str, place: int) -> tuple[str, ...]:
        """The strings that begin at this place, longest first."""
        if self.ignore_case:
            text, place = small(text[place : place + self.longest]), 0
        pair = text[place : place + 2]
        candidates = (*self.by_start.get(pair, ()), *self.by_start.get(pair[:1], ()))
        return tuple(string for string in candidates if text.startswith(string, place))

    @functools.cached_property
    def longest(self) -> int:
        return max(map(len, self.strings), default=0)

    def _folded(self, codes: np.ndarray) -> np.ndarray:
        return _SMALL[codes] if self.ignore_case else codes


def small(text: str) -> str:
    """ASCII capitals as small letters; all other characters stay, and so does the length."""
    return text.translate(_CAPITALS)


def _hashed(columns: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    mixed = columns[0] * _PRIMES[0]
    for column, prime in zip(columns[1:], _PRIMES[1:], strict=False):
        mixed = mixed + column * prime
    return mixed >> np.uint32(32 - _BITS)
