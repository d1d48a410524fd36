"""Listed words in texts: for each text, how many characters the words of each list cover.

With hyperscan (the extra `[corpus]`) one automaton reads the bytes; without it tables of first characters leave few
places to compare. Both find the same.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from tasks.ingest.characters import joined_codes
from tasks.ingest.literals import Literals, small

# Two characters of one kind side by side are one word: 1 = ASCII letters and digits, 2 = katakana.
_KIND = np.zeros(0x110000, np.uint8)
_KIND[0x30:0x3A] = _KIND[0x41:0x5B] = _KIND[0x61:0x7B] = 1
_KIND[0x30A1:0x30FB] = _KIND[0x30FC:0x30FF] = 2
_PAD = b"\n\n\n"
_HAS_HYPERSCAN = find_spec("hyperscan") is not None
Found = tuple[int, str]  # number of the text, word


@dataclass(frozen=True)
class WordScan:
    """Words of some lists, ready to be looked for."""

    list_of: dict[str, int]  # word in small letters -> number of its list
    num_lists: int

    @classmethod
    def of(cls, lists: Sequence[Sequence[str]]) -> "WordScan":
        """A word that is in several lists belongs to the first."""
        list_of: dict[str, int] = {}
        for number, words in enumerate(lists):
            for word in words:
                list_of.setdefault(small(word), number)
        return cls(list_of, len(lists))

    def matched(self, texts: Sequence[str]) -> np.ndarray:
        """Characters covered by words: one row a text, one column a list.

        From left to right the longest word counts, and reading goes on after it. A word that begins or ends with an
        ASCII letter or digit, or with katakana, is one only where no other stands beside it: SM is not in SMS, カス is
        not in カスタム. ASCII capitals count as small letters.
        """
        covered = np.zeros((len(texts), self.num_lists), np.int64)
        find = self.by_automaton if _HAS_HYPERSCAN else self.by_tables
        for text, word in find(texts) if len(texts) else ():
            covered[text, self.list_of[word]] += len(word)
        return covered

    def by_tables(self, texts: Sequence[str]) -> Iterator[Found]:
        """The words that count, in order, without any extra package."""
        codes, starts = joined_codes(texts)
        places = self._literals.places(codes)
        kinds = _KIND[codes[places]]
        inside = (kinds > 0) & (kinds == _KIND[codes[np.maximum(places - 1, 0)]]) & (places > 0)
        places = places[~inside]
        text_of = np.searchsorted(starts, places, side="right") - 1
        joined, end = "\n".join((*texts, "")), 0
        for place, text in zip(places.tolist(), text_of.tolist(), strict=True):
            if place < end:
                continue
            for word in self._literals.at(joined, place):
                if not _sticks(word[-1], joined[place + len(word)]):
                    yield text, word
                    end = place + len(word)
                    break

    def by_automaton(self, texts: Sequence[str]) -> Iterator[Found]:
        """The same by hyperscan, which reports every word at every place."""
        automaton = self._automaton
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        data = b"\n".join((*encoded, b""))
        events: list[tuple[int, int]] = []
        automaton.database.scan(
            data, match_event_handler=lambda word, _, end, _flags, _context: events.append((end, word))
        )
        if not events:
            return
        ends, words = np.array(events, np.int64).T
        starts = ends - automaton.sizes[words]
        padded = np.frombuffer(_PAD + data + _PAD, np.uint8)
        before, first = _kinds_ending(padded, starts + len(_PAD)), _kinds_starting(padded, starts + len(_PAD))
        last, after = _kinds_ending(padded, ends + len(_PAD)), _kinds_starting(padded, ends + len(_PAD))
        stands = np.flatnonzero(((first == 0) | (first != before)) & ((last == 0) | (last != after)))
        starts, ends, words = starts[stands], ends[stands], words[stands]
        bounds = np.cumsum([0, *(len(text) + 1 for text in encoded)])
        text_of = np.searchsorted(bounds, starts, side="right") - 1
        end = 0
        for event in np.lexsort((-ends, starts)).tolist():  # from left to right, at each place the longest first
            if starts[event] >= end:
                yield int(text_of[event]), automaton.words[words[event]]
                end = ends[event]

    @functools.cached_property
    def _literals(self) -> Literals:
        return Literals.of(tuple(self.list_of), ignore_case=True)

    @functools.cached_property
    def _automaton(self) -> "_Automaton":
        import hyperscan  # compiled once a process; a second for thousands of words

        words = list(self.list_of)
        database = hyperscan.Database()
        database.compile(
            expressions=[word.encode() for word in words],
            ids=list(range(len(words))),
            elements=len(words),
            flags=[hyperscan.HS_FLAG_CASELESS] * len(words),
            literal=True,
        )
        return _Automaton(words, np.array([len(word.encode()) for word in words]), database)


@dataclass(frozen=True)
class _Automaton:
    words: list[str]
    sizes: np.ndarray  # of the words in bytes
    database: Any


def _sticks(left: str, right: str) -> bool:
    """Two characters of one kind side by side: the same word goes on."""
    return _KIND[ord(left)] > 0 and _KIND[ord(left)] == _KIND[ord(right)]


def _kinds_starting(data: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The kind of the character of UTF-8 that starts at each place."""
    return np.where(_is_katakana(data, places), 2, _KIND[data[places] & 0x7F] * (data[places] < 0x80))


def _kinds_ending(data: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The kind of the character of UTF-8 that ends before each place."""
    return np.where(_is_katakana(data, places - 3), 2, _KIND[data[places - 1] & 0x7F] * (data[places - 1] < 0x80))


def _is_katakana(data: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Three bytes of UTF-8 are U+30A1 to U+30FA or U+30FC to U+30FE."""
    lead, middle, low = (data[places + step].astype(np.int64) for step in range(3))
    code = (lead & 0x0F) << 12 | (middle & 0x3F) << 6 | (low & 0x3F)
    return (lead == 0xE3) & (middle >> 6 == 2) & (low >> 6 == 2) & (_KIND[code] == 2)
