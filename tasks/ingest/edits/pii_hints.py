"""Lines that may hold personal data, found by hyperscan (the extra [corpus]) in one pass over the bytes of a batch.

Most lines hold none. What is left of a text is its lines with a hint and those around them in which a cue may stand,
and the patterns are tried on them alone; `pii.edit` finds the same without hints.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from tasks.ingest.edits.pii_patterns import PiiPattern

HAS_HYPERSCAN = find_spec("hyperscan") is not None
_CHAR_BYTES = 4  # at most, in UTF-8


@dataclass(frozen=True)
class Extract:
    """What is left of one text, and where it was."""

    place: int  # of the text in its batch
    text: str
    tries: list[tuple[int, int, int]]  # (pattern, start, end) of lines of the extract, or of all of it
    starts: list[int]  # of each run of lines in the extract
    shifts: list[int]  # what to add to a place of that run for the place in the whole text

    def whole_place(self, start: int) -> int:
        """Where in the whole text a place of the extract is."""
        return start + self.shifts[bisect_right(self.starts, start) - 1]


@dataclass(frozen=True)
class Hints:
    """The hints of some patterns, ready to be looked for."""

    database: Any
    patterns: tuple[tuple[int, ...], ...]  # those that each hint stands for
    whole: frozenset[int]  # patterns that may span lines
    margin: int  # bytes around a match in which cues are looked for

    @classmethod
    def of(cls, patterns: Sequence[PiiPattern]) -> "Hints | None":
        """None without hyperscan, or when a pattern gives no hint."""
        by_hint: dict[str, tuple[int, ...]] = {}
        for number, pattern in enumerate(patterns):
            by_hint[hint_of(pattern)] = (*by_hint.get(hint_of(pattern), ()), number)
        if not HAS_HYPERSCAN or "" in by_hint:
            return None
        import hyperscan  # compiled once a process

        database = hyperscan.Database()
        database.compile(
            expressions=[hint.encode() for hint in by_hint],
            ids=list(range(len(by_hint))),
            elements=len(by_hint),
            flags=[hyperscan.HS_FLAG_UTF8] * len(by_hint),
        )
        whole = frozenset(number for number, pattern in enumerate(patterns) if pattern.whole_text)
        margin = max((pattern.cue_chars for pattern in patterns if pattern.cues), default=0) * _CHAR_BYTES
        return cls(database, tuple(by_hint.values()), whole, margin)

    def extracts(self, texts: Sequence[str]) -> Iterator[Extract]:
        """What is left of the texts that have a hint, in order."""
        encoded = [text.encode("utf-8", "replace") for text in texts]  # a lone surrogate is in no match
        data = b"\n".join((*encoded, b""))
        events: list[tuple[int, int]] = []
        self.database.scan(data, match_event_handler=lambda hint, _, end, _flags, _context: events.append((end, hint)))
        if not events:
            return
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0x0A)
        found, hints = np.array(events).T
        hits = np.unique(np.searchsorted(ends, found - 1) * len(self.patterns) + hints)
        lines = _Lines(data, np.append(0, ends[:-1] + 1).tolist(), ends.tolist())
        firsts = np.searchsorted(ends, np.cumsum([0, *(len(text) + 1 for text in encoded)]))
        owners = np.searchsorted(firsts, hits // len(self.patterns), "right") - 1
        for place, own in zip(
            np.unique(owners).tolist(), np.split(hits, np.flatnonzero(np.diff(owners)) + 1), strict=True
        ):
            of_line = [divmod(hit, len(self.patterns)) for hit in own.tolist()]
            yield self._extract(place, lines, range(int(firsts[place]), int(firsts[place + 1])), of_line)

    def _extract(self, place: int, lines: "_Lines", own: range, hits: list[tuple[int, int]]) -> Extract:
        tries = [(number, line) for line, hint in hits for number in self.patterns[hint]]
        if self.whole.isdisjoint(number for number, _ in tries):
            kept = sorted({line for hit, _ in hits for line in lines.around(hit, own, self.margin)})
        else:
            kept = own
        texts, spans = list[str](), dict[int, tuple[int, int]]()
        starts, shifts, at, before, seen = list[int](), list[int](), 0, own[0] - 1, own[0]
        whole = 0  # characters of the whole text before the line `seen`
        for line in kept:
            if line != before + 1 or not starts:
                whole, seen = whole + len(lines.text(seen, line)), line
                starts.append(at)
                shifts.append(whole - at)
            text = lines.text(line, line + 1)
            texts.append(text)
            spans[line] = at, at + len(text) - 1
            at += len(text)
            whole, seen, before = whole + len(text), line + 1, line
        placed = list[tuple[int, int, int]]()
        for number, line in tries:
            start, end = (0, at - 1) if number in self.whole else spans[line]
            placed.append((number, start, end))
        return Extract(place, "".join(texts)[:-1], placed, starts, shifts)


@dataclass(frozen=True)
class _Lines:
    """The lines of a batch in UTF-8."""

    data: bytes
    starts: list[int]
    ends: list[int]  # where their line breaks are

    def text(self, first: int, after: int) -> str:
        """The characters of these lines with their line breaks."""
        return self.data[self.starts[first] : self.ends[after - 1] + 1].decode() if after > first else ""

    def around(self, line: int, own: range, margin: int) -> range:
        """This line, and on either side as many of the same text as hold so many bytes."""
        first, last = line, line
        while first > own[0] and self.starts[line] - self.starts[first] < margin:
            first -= 1
        while last < own[-1] and self.ends[last] - self.ends[line] < margin:
            last += 1
        return range(first, last + 1)


def hint_of(pattern: PiiPattern) -> str:
    """An expression that every line with a match holds: the hint of the pattern, or its signs."""
    return pattern.hint or "|".join(map(re.escape, pattern.signs))
