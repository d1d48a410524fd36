"""A batch of texts as the rules see it: code points side by side, and tables of lines, blocks, sentences and words.

Everything is computed once, for all texts of the batch together, and only when asked. A batch of about 100,000
characters is fastest (its arrays stay in the processor's cache): see `Texts.parts`.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

HIRAGANA, KATAKANA, KANJI, TOTEN, KUTEN, OTHER = range(6)
JAPANESE = (HIRAGANA, KATAKANA, KANJI, TOTEN, KUTEN)
PART_CHARS = 1 << 17

_RANGES = (  # Swallow Corpus v1: the long-vowel mark is not katakana there
    (HIRAGANA, 0x3041, 0x3096),
    (KATAKANA, 0x30A1, 0x30FA),
    (KANJI, 0x3005, 0x3005),
    (KANJI, 0x3007, 0x3007),
    (KANJI, 0x303B, 0x303B),
    (KANJI, 0x3400, 0x9FFF),
    (KANJI, 0xF900, 0xFAFF),
    (KANJI, 0x20000, 0x2FFFF),  # surrogate pairs D840-D87F
    (TOTEN, 0x3001, 0x3001),
    (TOTEN, 0xFF0C, 0xFF0C),
    (KUTEN, 0x3002, 0x3002),
    (KUTEN, 0xFF0E, 0xFF0E),
    (KUTEN, 0xFF01, 0xFF01),
    (KUTEN, 0xFF1F, 0xFF1F),
)
TERMINATORS = "。．！？!?"  # of a sentence
_CLASS, _SPACE, _ALPHA, _TERMINATOR, _NEWLINE = 0x07, 0x08, 0x10, 0x20, 0x40  # what a byte of _KIND says


def _kinds() -> np.ndarray:
    """One byte for each code point: its class, and whether it is a space, a letter, a terminator, a line break."""
    letters = np.arange(0x110000, dtype=np.uint32).view("<U1")
    kinds = np.full(len(letters), OTHER, np.uint8)
    for name, first, last in _RANGES:
        kinds[first : last + 1] = name
    kinds[np.strings.isspace(letters)] |= _SPACE
    kinds[np.strings.isalpha(letters)] |= _ALPHA
    kinds[[ord(letter) for letter in TERMINATORS]] |= _TERMINATOR
    kinds[ord("\n")] |= _NEWLINE
    return kinds


_KIND = _kinds()


def code_points(text: str) -> np.ndarray:
    """The code points of a text as uint32; a lone surrogate is one code point."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@dataclass(frozen=True)
class Spans:
    """Pieces [start, end) of the joined texts, in order and none of them empty, and the text each belongs to."""

    starts: np.ndarray
    ends: np.ndarray
    documents: np.ndarray
    num_texts: int

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    @cached_property
    def counts(self) -> np.ndarray:
        """How many pieces each text has."""
        return np.bincount(self.documents, minlength=self.num_texts)

    @cached_property
    def chars(self) -> np.ndarray:
        """How many characters the pieces of each text have."""
        return self.total(self.lengths)

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of one value (or flag) a piece, for each text."""
        return np.bincount(self.documents, weights=values, minlength=self.num_texts).astype(np.int64)

    def largest(self, values: np.ndarray) -> np.ndarray:
        """The largest of one value (>= 0) a piece, for each text; 0 for a text without pieces."""
        found = np.zeros(self.num_texts, values.dtype)
        np.maximum.at(found, self.documents, values)
        return found


class Texts:
    """A batch of normalised texts, with the addresses they came from where a rule needs them."""

    def __init__(self, strings: Sequence[str], urls: Sequence[str] = ()):
        if urls and len(urls) != len(strings):
            raise ValueError(
                f"{len(urls)} urls for {len(strings)} texts: each text has its own address. Give one a text, or none."
            )
        self.strings = strings
        self.urls = urls

    def __len__(self) -> int:
        return len(self.strings)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Texts":
        """The texts at these places, in this order."""
        places = [int(index) for index in indices]
        if places == list(range(len(self))):
            return self  # keeps what was already counted
        return Texts([self.strings[i] for i in places], [self.urls[i] for i in places] if self.urls else ())

    def parts(self, chars: int = PART_CHARS) -> Iterator["Texts"]:
        """The same texts in batches of at most so many characters; a longer text is a batch of its own."""
        first = size = 0
        for index, text in enumerate(self.strings):
            if index > first and size + len(text) > chars:
                yield self._between(first, index)
                first, size = index, 0
            size += len(text)
        if first < len(self):
            yield self._between(first, len(self))

    def _between(self, first: int, last: int) -> "Texts":
        return Texts(self.strings[first:last], self.urls[first:last])

    @cached_property
    def lengths(self) -> np.ndarray:
        """Characters of each text."""
        return np.fromiter(map(len, self.strings), np.int64, len(self.strings))

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each text begins in `codes`; the last entry is where the last one ends."""
        return np.concatenate((np.zeros(1, np.int64), np.cumsum(self.lengths)))

    @cached_property
    def codes(self) -> np.ndarray:
        """The code points of all texts, one text after the other, as uint32."""
        return code_points("".join(self.strings))

    @cached_property
    def kinds(self) -> np.ndarray:
        """For each code point its class and flags; see `is_space` and its neighbours."""
        return _KIND.take(self.codes, mode="clip")  # no code point is outside; checking each would cost half the time

    @cached_property
    def is_space(self) -> np.ndarray:
        return (self.kinds & _SPACE).view(np.bool_)

    @cached_property
    def is_letter(self) -> np.ndarray:
        return self.kinds & _ALPHA != 0

    @cached_property
    def classes(self) -> np.ndarray:
        """How many characters of each class (HIRAGANA … OTHER) each text has: one row a text."""
        counts = np.zeros((len(self), OTHER + 1), np.int64)
        full = np.flatnonzero(self.lengths)  # between two equal places `reduceat` would count one character
        classes = self.kinds & _CLASS
        for name in JAPANESE if len(full) else ():
            counts[full, name] = np.add.reduceat((classes == name).view(np.uint8), self.offsets[full], dtype=np.int32)
        counts[:, OTHER] = self.lengths - counts.sum(axis=1)
        return counts

    @cached_property
    def japanese_letters(self) -> np.ndarray:
        return self.classes[:, JAPANESE].sum(axis=1)

    @cached_property
    def line_breaks(self) -> np.ndarray:
        """Where the line breaks are."""
        return np.flatnonzero(self.kinds & _NEWLINE != 0)

    @cached_property
    def lines(self) -> Spans:
        """Non-blank lines without surrounding spaces: what Swallow calls paragraphs."""
        return self._stripped(*self._between_stops(self.line_breaks))

    @cached_property
    def blocks(self) -> Spans:
        """Paragraphs in the sense of Gopher: separated by blank lines."""
        lines = self.lines
        number = np.searchsorted(self.line_breaks, lines.starts)
        first = np.ones(len(lines), bool)
        first[1:] = (np.diff(number) > 1) | (np.diff(lines.documents) > 0)
        begins = np.flatnonzero(first)
        last = np.append(begins[1:], len(lines)) - 1 if len(begins) else begins
        return Spans(lines.starts[begins], lines.ends[last], lines.documents[begins], len(self))

    @cached_property
    def sentences(self) -> Spans:
        """Runs of text up to and with a terminator, or up to the end of the line, without surrounding spaces."""
        stops = np.flatnonzero(self.kinds & (_TERMINATOR | _NEWLINE) != 0)
        starts, ends = self._between_stops(stops)
        full = ends > starts
        starts, ends = starts[full], ends[full]
        at_stop = np.append(self.kinds, np.uint8(0))[ends] & _TERMINATOR > 0
        inside = ends < self.offsets[self._document_of(starts) + 1]
        return self._stripped(starts, ends + (at_stop & inside))

    @cached_property
    def words(self) -> Spans:
        """Runs of characters that are no spaces, as `str.split` finds them."""
        solid = ~self.is_space
        first, last = solid.copy(), solid.copy()
        inner = np.unique(self.offsets[(self.offsets > 0) & (self.offsets < len(solid))])
        begins_text = np.zeros(len(solid), bool)
        begins_text[inner] = True
        first[1:] &= ~solid[:-1] | begins_text[1:]
        last[:-1] &= ~solid[1:] | begins_text[1:]
        starts = np.flatnonzero(first)
        return Spans(starts, np.flatnonzero(last) + 1, self._document_of(starts), len(self))

    @cached_property
    def vocabulary(self) -> tuple[np.ndarray, list[str]]:
        """The number of each word, and the different words of the batch in the order of those numbers."""
        names: defaultdict[str, int] = defaultdict(itertools.count().__next__)
        found = itertools.chain.from_iterable(map(str.split, self.strings))
        numbers = np.fromiter(map(names.__getitem__, found), np.int64, len(self.words))
        return numbers, list(names)

    def string(self, spans: Spans, index: int) -> str:
        """One of the pieces as a string."""
        document = int(spans.documents[index])
        base = int(self.offsets[document])
        return self.strings[document][int(spans.starts[index]) - base : int(spans.ends[index]) - base]

    def count_at(self, positions: np.ndarray) -> np.ndarray:
        """How many of these places of `codes` lie in each text."""
        return np.diff(np.searchsorted(positions, self.offsets))

    @cached_property
    def _solid(self) -> np.ndarray:
        """Where characters are that are no spaces, and one place before and after all texts."""
        return np.concatenate(([-1], np.flatnonzero(~self.is_space), [len(self.codes)]))

    def _document_of(self, starts: np.ndarray) -> np.ndarray:
        return np.repeat(np.arange(len(self)), self.count_at(starts))

    def _between_stops(self, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends of what lies between these places, none of it across two texts; some are empty."""
        starts = np.concatenate((self.offsets[:-1], stops + 1))
        ends = np.concatenate((stops, self.offsets[1:]))
        return np.sort(starts, kind="stable"), np.sort(ends, kind="stable")

    def _stripped(self, starts: np.ndarray, ends: np.ndarray) -> Spans:
        """These pieces without surrounding spaces, those of nothing but spaces left out."""
        full = ends > starts
        starts, ends = starts[full], ends[full]
        left, right = self.is_space[starts], self.is_space[ends - 1]
        if left.any() or right.any():
            starts[left] = self._solid[np.searchsorted(self._solid, starts[left])]
            ends[right] = self._solid[np.searchsorted(self._solid, ends[right]) - 1] + 1
            full = ends > starts
            starts, ends = starts[full], ends[full]
        return Spans(starts, ends, self._document_of(starts), len(self))
