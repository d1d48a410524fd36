"""Masks personal data and secrets with typed placeholders, <EMAIL> to <SECRET>; what was found is counted, not stored.

Gates first: hints (`pii_hints`) where hyperscan is installed, then which characters and signs the lines have, for a
batch of texts at once; then `re` on the few lines that can hold something.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.characters import flag_table, joined_codes
from tasks.ingest.edits.edit import Counts
from tasks.ingest.edits.pii_hints import Extract, Hints
from tasks.ingest.edits.pii_patterns import CHECKS, EVERYWHERE, KINDS, SECRETS, PiiPattern
from tasks.ingest.literals import Literals

COLUMNS: tuple[str, ...] = KINDS
PART_CHARS = 1 << 17  # arrays of so many code points stay in the processor's cache
HINTS_CHARS = 1 << 20  # hyperscan needs no arrays
_DIGITS = (*range(0x30, 0x3A), *range(0xFF10, 0xFF1A))
_HYPHENS = "‐‑‒–—―−ーｰ－．"  # and the full-width dot: they are ASCII only between ASCII
_DIGIT, _LINE_END, _HYPHEN = 1, 2, 4  # flags; the others are free for letters of patterns
_FREE_BITS = 5
_NOWHERE = np.zeros(0, np.int64)

# Code point -> what patterns see in its place. One becomes one, so that places stay what they are.
_ASCII = np.arange(0x110000, dtype=np.uint32)
_ASCII[0xFF01:0xFF5F] -= 0xFEE0
_ASCII[[0xFF0D, 0xFF0E]] = 0xFF0D, 0xFF0E
_ASCII[[0xA0, 0x3000]] = 0x20
_ASCII[[code for code in range(0x80, 0x20000) if chr(code).isdecimal() and code not in _DIGITS]] = (
    0xFFFD  # `\\d` is ASCII
)
_IS_DIGIT, _IS_WORD = np.zeros(0x110000, np.bool_), np.zeros(0x110000, np.bool_)
_IS_DIGIT[0x30:0x3A] = _IS_WORD[0x30:0x3A] = _IS_WORD[0x41:0x5B] = _IS_WORD[0x61:0x7B] = True


class PiiRules(StageConfig):
    """What is masked. A language pack adds the patterns of its countries."""

    patterns: tuple[PiiPattern, ...] = Field(
        default=(*EVERYWHERE, *SECRETS),
        min_length=1,
        description="How such data is written; the first of equals counts.",
    )


def edit(texts: list[str], rules: PiiRules) -> tuple[list[str], Counts]:
    """Texts with placeholders, and how many of each kind were put in.

    Full-width digits, letters and hyphens count as ASCII; the mask covers what was written. Numbers that a check digit
    proves are masked only with a cue word near, because one product code in ten has a right check digit too. Of
    matches that overlap the first counts, the longer one where two begin together.
    """
    patterns = _compiled(rules.patterns)
    counts = {kind: np.zeros(len(texts), np.int64) for kind in COLUMNS}
    masked = list(texts)
    for first, last in _parts(texts, PART_CHARS if patterns.hints is None else HINTS_CHARS):
        for text, found in _found(texts[first:last], patterns).items():
            masked[first + text] = _mask(texts[first + text], found)
            for match in found:
                counts[match.kind][first + text] += 1
    return masked, counts


@dataclass(frozen=True, order=True)
class _Match:
    """A place in a text; sorted as they count."""

    start: int
    minus_length: int
    order: int
    kind: str

    @property
    def end(self) -> int:
        return self.start - self.minus_length


@dataclass(frozen=True)
class _Pattern:
    """A pattern ready to be used."""

    told: PiiPattern
    regex: re.Pattern[str]
    bit: int  # in the flags of a character; 0 when the pattern asks for no letter
    order: int


@dataclass(frozen=True)
class _Patterns:
    each: tuple[_Pattern, ...]
    table: np.ndarray  # code point -> flags
    signs: Literals
    orders: dict[str, tuple[int, ...]]  # sign -> the patterns that ask for it
    hints: Hints | None


@functools.lru_cache(maxsize=8)
def _compiled(patterns: tuple[PiiPattern, ...]) -> _Patterns:
    sets = list(dict.fromkeys(pattern.letters for pattern in patterns if pattern.letters))
    if len(sets) > _FREE_BITS:
        raise ValueError(
            f"{len(sets)} different sets of letters in the patterns, at most {_FREE_BITS}: each is one bit of a byte. "
            "Use the same letters for patterns that allow it, or a gate of signs or digits."
        )
    bits = {letters: 8 << place for place, letters in enumerate(sets)}
    fixed = {_DIGIT: _DIGITS, _LINE_END: [10], _HYPHEN: map(ord, _HYPHENS)}
    table = flag_table(fixed | {bit: map(ord, letters) for letters, bit in bits.items()})
    orders: defaultdict[str, tuple[int, ...]] = defaultdict(tuple)
    for order, pattern in enumerate(patterns):
        for sign in pattern.signs:
            orders[sign] += (order,)
    each = tuple(
        _Pattern(pattern, re.compile(pattern.pattern), bits.get(pattern.letters, 0), order)
        for order, pattern in enumerate(patterns)
    )
    return _Patterns(each, table, Literals.of(tuple(orders)), dict(orders), Hints.of(patterns))


def _parts(texts: list[str], most: int) -> Iterator[tuple[int, int]]:
    """Bounds of runs of texts with at most so many characters; a longer text is a run of its own."""
    first = size = 0
    for index, text in enumerate(texts):
        if index > first and size + len(text) > most:
            yield first, index
            first, size = index, 0
        size += len(text) + 1
    if first < len(texts):
        yield first, len(texts)


class _Batch:
    """Texts side by side, a line break after each, and the characters that gates ask for."""

    def __init__(self, texts: list[str], table: np.ndarray):
        self.codes, self.starts = joined_codes(texts)  # of each text, and the end
        flags = table[self.codes]
        self.marks = np.flatnonzero(flags != 0)
        self.kinds = flags[self.marks]

    @functools.cached_property
    def shadow(self) -> str:
        """The texts as patterns see them: ASCII for full-width, `-` for any hyphen between digits."""
        seen = _ASCII[self.codes]
        places = self.marks[self.kinds & _HYPHEN > 0]
        places = places[places > 0]
        before, after = seen[places - 1], seen[places + 1]
        is_dot = seen[places] == ord("．")
        seen[places[is_dot & _IS_WORD[before] & _IS_WORD[after]]] = ord(".")
        between = (_IS_DIGIT[before] | (before == ord(")"))) & (_IS_DIGIT[after] | (after == ord("(")))
        seen[places[~is_dot & between]] = ord("-")
        return seen.tobytes().decode("utf-32-le", "surrogatepass")


@dataclass(frozen=True)
class _Place:
    """A piece of the batch that may hold what a pattern says: a line, or a whole text."""

    pattern: _Pattern
    start: int
    end: int
    text: int


def _found(texts: list[str], patterns: _Patterns) -> dict[int, list[_Match]]:
    """For each text that holds something, the matches to mask, in order and apart."""
    if patterns.hints is None:
        batch = _Batch(texts, patterns.table)
        return _find(batch, _places(batch, patterns))
    extracts = list(patterns.hints.extracts(texts))
    if not extracts:
        return {}
    batch = _Batch([extract.text for extract in extracts], patterns.table)
    found = _find(batch, _tries(batch, patterns, extracts))
    return {
        extracts[number].place: [replace(match, start=extracts[number].whole_place(match.start)) for match in matches]
        for number, matches in found.items()
    }


def _tries(batch: _Batch, patterns: _Patterns, extracts: Sequence[Extract]) -> Iterator["_Place"]:
    """Every piece of the extracts that has the hint of a pattern."""
    for text, (base, extract) in enumerate(zip(batch.starts.tolist()[:-1], extracts, strict=True)):
        for order, start, end in extract.tries:
            yield _Place(patterns.each[order], base + start, base + end, text)


def _find(batch: _Batch, places: Iterator["_Place"]) -> dict[int, list[_Match]]:
    found: defaultdict[int, list[_Match]] = defaultdict(list)
    for place in places:
        told, check = place.pattern.told, CHECKS.get(place.pattern.told.check)
        first, last = int(batch.starts[place.text]), int(batch.starts[place.text + 1])
        if told.cues and not _has_cue(batch.shadow, place.start, place.end, (first, last), told):
            continue
        for match in place.pattern.regex.finditer(batch.shadow, place.start, place.end):
            left, right = match.span("value") if told.has_value else match.span()
            if check and not check(batch.shadow[left:right]):
                continue
            if not told.cues or _has_cue(batch.shadow, left, right, (first, last), told):
                found[place.text].append(_Match(left - first, left - right, place.pattern.order, told.kind))
    return {text: _apart(matches) for text, matches in sorted(found.items())}


def _has_cue(shadow: str, start: int, end: int, text: tuple[int, int], pattern: PiiPattern) -> bool:
    """A cue of the pattern is in this piece of the text or near it."""
    near = shadow[max(text[0], start - pattern.cue_chars) : min(text[1], end + pattern.cue_chars)].lower()
    return any(cue in near for cue in pattern.cues)


def _places(batch: _Batch, patterns: _Patterns) -> Iterator[_Place]:
    """Every piece of the batch that passes the gates of a pattern."""
    is_end = batch.kinds & _LINE_END > 0
    ends = batch.marks[is_end]
    starts = np.concatenate(([0], ends[:-1] + 1))
    line_of = np.cumsum(is_end) - is_end
    number = {
        bit: np.bincount(line_of[batch.kinds & bit > 0], minlength=len(ends))
        for bit in {_DIGIT, *(pattern.bit for pattern in patterns.each if pattern.bit)}
    }
    signs = _signs(batch, patterns)
    for pattern in patterns.each:
        places = signs.get(pattern.order, _NOWHERE)
        if pattern.told.whole_text:
            for text in np.unique(np.searchsorted(batch.starts, places, side="right") - 1):
                yield _Place(pattern, int(batch.starts[text]), int(batch.starts[text + 1]) - 1, int(text))
            continue
        passes = number[_DIGIT] >= pattern.told.digits
        if pattern.bit:
            passes &= number[pattern.bit] > 0
        if pattern.told.signs:
            passes &= np.bincount(np.searchsorted(ends, places), minlength=len(ends)) > 0
        lines = np.flatnonzero(passes)
        texts = np.searchsorted(batch.starts, starts[lines], side="right") - 1
        for start, end, text in zip(starts[lines].tolist(), ends[lines].tolist(), texts.tolist(), strict=True):
            yield _Place(pattern, start, end, text)


def _signs(batch: _Batch, patterns: _Patterns) -> dict[int, np.ndarray]:
    """Where the signs of each pattern are."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for place in patterns.signs.places(batch.codes).tolist() if patterns.signs.strings else ():
        for sign in patterns.signs.at(batch.shadow, place):
            for order in patterns.orders[sign]:
                found[order].append(place)
    return {order: np.array(places) for order, places in found.items()}


def _apart(matches: list[_Match]) -> list[_Match]:
    """The matches that count: in order, none of them over another."""
    kept: list[_Match] = []
    for match in sorted(matches):
        if not kept or match.start >= kept[-1].end:
            kept.append(match)
    return kept


def _mask(text: str, found: list[_Match]) -> str:
    parts, end = [], 0
    for match in found:
        parts += [text[end : match.start], f"<{match.kind.upper()}>"]
        end = match.end
    return "".join([*parts, text[end:]])
