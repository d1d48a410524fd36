"""The index of all items: which n-grams they have, and which items a text holds.

An item is looked for by its n-grams: 13 words where its words are spaced (GPT-3, Brown et al. 2020, appendix C), or
characters where they are not. A window of which at least half the letters are unspaced is read as characters, any other
one as words, so an item in two languages is looked for in both ways. An item without a window of that size is looked
for as a whole. What is found by hash is compared letter by letter before it counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tasks.decontaminate.letters import letters
from tasks.decontaminate.units import Kind, Units, characters, equal_windows, ranges, words

SLOTS_A_KEY = 8  # one window of about a hundred passes the first look-up by chance
MAX_SLOTS_LOG2 = 27
SHARED = 255  # a slot with several keys
MAX_REPEATS = 64  # of one window in one text
BLOCK_PAIRS = 1 << 16  # windows that are compared letter by letter at a time


@dataclass(frozen=True)
class Item:
    """A text of a benchmark that must not be trained on."""

    benchmark: str
    id: str
    text: str


@dataclass(frozen=True)
class Widths:
    """Units of a window, and of the least text that is looked for at all."""

    full: int
    least: int


@dataclass(frozen=True)
class Pairs:
    """Windows of texts and the windows of items that they equal, pair by pair, by their first units."""

    mine: np.ndarray
    theirs: np.ndarray


class Filter:
    """Says of windows whether the items may have them: a byte of the hash in a slot named by other bits of it."""

    def __init__(self, units: Units, width: int, positions: np.ndarray):
        keys = np.unique(units.hashes_at(positions, width))
        bits = max(8, min(MAX_SLOTS_LOG2, (SLOTS_A_KEY * len(keys)).bit_length()))
        self.width, self._shift = width, np.uint64(64 - bits)
        slots = keys >> self._shift
        self._slots = np.zeros(1 << bits, np.uint8)
        self._slots[slots] = _mark(keys)
        self._slots[slots[1:][slots[1:] == slots[:-1]]] = SHARED  # the keys are sorted
        self._is_empty = not len(keys)

    def passed(self, units: Units) -> np.ndarray:
        """First units of the windows that may be there; each that is there is among them."""
        if self._is_empty or len(units) < self.width:
            return np.zeros(0, np.int64)
        hashes = units.hashes(self.width)
        found = self._slots.take(hashes >> self._shift)
        return np.flatnonzero((found == _mark(hashes)) | (found == SHARED))


def _mark(hashes: np.ndarray) -> np.ndarray:
    """A byte of 1 to 128; slots are named by the highest bits, so these are some below."""
    return ((hashes >> np.uint64(29)).astype(np.uint8) & np.uint8(127)) + np.uint8(1)


class Lookup:
    """Some windows of one width of the items, found by hash and then compared."""

    def __init__(self, units: Units, width: int, positions: np.ndarray):
        hashes = units.hashes_at(positions, width)
        order = np.argsort(hashes, kind="stable")
        self._width, self._units, self._positions = width, units, positions[order]
        self._keys, self._begins = np.unique(hashes[order], return_index=True)
        self._counts = np.diff(np.append(self._begins, len(positions)))

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, units: Units, candidates: np.ndarray) -> Pairs:
        """All equal windows: those of the candidates in order, for each those of the items in order."""
        mine = units.inside(candidates, self._width)
        if not len(self) or not len(mine):
            return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
        hashes = units.hashes_at(mine, self._width)
        places = np.minimum(np.searchsorted(self._keys, hashes), len(self) - 1)
        alike = self._keys[places] == hashes
        mine, places = mine[alike], places[alike]
        early = _early(units.owners(mine), places)
        mine, places = mine[early], places[early]
        ends = np.cumsum(self._counts[places])
        cuts = np.searchsorted(ends, np.arange(BLOCK_PAIRS, ends[-1] if len(ends) else 0, BLOCK_PAIRS))
        blocks = zip(np.split(mine, cuts), np.split(places, cuts), strict=True)
        found = [self._compared(units, *block) for block in blocks]
        return Pairs(np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found]))

    def _compared(self, units: Units, mine: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = self._counts[places]
        theirs = self._positions[ranges(self._begins[places], counts)]
        mine = np.repeat(mine, counts)
        equal = equal_windows(units, mine, self._units, theirs, self._width)
        return mine[equal], theirs[equal]


def _early(owners: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which are among the first MAX_REPEATS of their key in their text: one that goes on repeating says no more."""
    order = np.lexsort((places, owners))  # stable: in the order of the text
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1) | np.diff(places[order], prepend=-1))
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    early = np.zeros(len(order), bool)
    early[order[ranks < MAX_REPEATS]] = True
    return early


@dataclass(frozen=True)
class Side:
    """The items read as words, or as characters."""

    units: Units
    widths: Widths
    windows: np.ndarray
    """First units of the windows of full width that are looked for."""
    seeds: np.ndarray
    """First units of the windows of least width by which short items and similar passages are found."""

    def candidates(self, units: Units) -> np.ndarray:
        """Where in texts a window of either width may start: a full one starts with one of least width."""
        return self._filter.passed(units)

    @cached_property
    def full(self) -> Lookup:
        return Lookup(self.units, self.widths.full, self.windows)

    @cached_property
    def least(self) -> Lookup:
        return Lookup(self.units, self.widths.least, self.seeds)

    @cached_property
    def _filter(self) -> Filter:
        return Filter(self.units, self.widths.least, np.union1d(self.windows, self.seeds))


@dataclass(frozen=True)
class Index:
    """Items and how they are looked for."""

    items: tuple[Item, ...]
    sides: Mapping[Kind, Side]
    forms: tuple[Kind | None, ...]
    """How an item as a whole is read; None when it is too short to be looked for."""
    windows: np.ndarray
    """How many windows of full width each item has."""
    is_short: np.ndarray
    """Whether an item is looked for as a whole only."""

    @property
    def is_used(self) -> np.ndarray:
        """Whether an item can be found at all."""
        return self.is_short | (self.windows > 0)

    def without(self, common: "Common") -> "Index":
        """The same items without what is common. One that has nothing else is not looked for any more."""
        sides: dict[Kind, Side] = {
            kind: Side(side.units, side.widths, np.setdiff1d(side.windows, common.windows[kind]), side.seeds)
            for kind, side in self.sides.items()
        }
        return Index(self.items, sides, self.forms, _counted(sides, len(self.items)), self.is_short & ~common.items)


@dataclass(frozen=True)
class Common:
    """Phrases that say nothing: first units of windows, and (by a flag) short items."""

    windows: Mapping[Kind, np.ndarray]
    items: np.ndarray


def build(items: Sequence[Item], widths: Mapping[Kind, Widths]) -> Index:
    """The index of items. Texts that occur twice in one benchmark are looked for once, under the first id."""
    first: dict[tuple[str, str], Item] = {}
    for item in sorted(items, key=lambda item: (item.benchmark, item.id)):
        first.setdefault((item.benchmark, item.text), item)
    chosen = tuple(first.values())
    found = letters([item.text for item in chosen])
    units: dict[Kind, Units] = {"words": words(found), "characters": characters(found)}
    full = {kind: _windows(units[kind], widths[kind].full) for kind in units}
    forms = _forms(units, widths)
    counts = sum(
        (np.bincount(units[k].owners(full[k]), minlength=len(chosen)) for k in units), np.zeros(len(chosen), int)
    )
    is_short = np.array([form is not None and not n for form, n in zip(forms, counts, strict=True)], bool)
    sides: dict[Kind, Side] = {kind: _side(units[kind], widths[kind], full[kind], is_short, forms) for kind in units}
    return Index(chosen, sides, forms, counts, is_short)


def _side(units: Units, widths: Widths, full: np.ndarray, is_short: np.ndarray, forms: Sequence[Kind | None]) -> Side:
    """Seeds are the windows of the items of this form, and the first one of a short item whatever its letters are."""
    own = np.array([form == units.kind for form in forms], bool)
    seeds = _windows(units, widths.least)
    return Side(units, widths, full, np.union1d(seeds[own[units.owners(seeds)]], units.first[:-1][own & is_short]))


def _windows(units: Units, width: int) -> np.ndarray:
    """First units of the windows that lie inside one item and are mostly letters of this kind."""
    starts = np.arange(max(0, len(units) - width + 1))
    starts = starts[units.owners(starts) == units.owners(starts + width - 1)] if len(starts) else starts
    sizes = units.letters_before[starts + width] - units.letters_before[starts]
    unspaced = units.unspaced_before[starts + width] - units.unspaced_before[starts]
    return starts[(2 * unspaced >= sizes) == (units.kind == "characters")]


def _forms(units: Mapping[Kind, Units], widths: Mapping[Kind, Widths]) -> tuple[Kind | None, ...]:
    own = units["characters"]
    unspaced = np.diff(own.unspaced_before[own.first])
    kinds: list[Kind] = [
        "characters" if 2 * few >= n > 0 else "words" for few, n in zip(unspaced, own.counts, strict=True)
    ]
    return tuple(kind if units[kind].counts[i] >= widths[kind].least else None for i, kind in enumerate(kinds))


def _counted(sides: Mapping[Kind, Side], items: int) -> np.ndarray:
    return sum((np.bincount(s.units.owners(s.windows), minlength=items) for s in sides.values()), np.zeros(items, int))
