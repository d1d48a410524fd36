"""Which item a text holds, and by which rule that was seen."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from tasks.decontaminate.index import Common, Index, Item, Pairs
from tasks.decontaminate.letters import letters
from tasks.decontaminate.similarity import best_passage, most_possible
from tasks.decontaminate.units import Kind, Units, characters, equal_windows, words

BATCH_LETTERS = 100_000  # the arrays of a batch stay in the processor's cache
MAX_CANDIDATES = 32  # items of one text that are compared in full: those that share most seeds
MAX_PASSAGES = 3  # places of one text where one item is compared
MAX_COMPARED = 1_000  # letters; a longer item that is 95 % alike shares windows of full width


@dataclass(frozen=True)
class Rules:
    """When an item counts as found."""

    min_share: float
    """Of an item's windows; one is always needed."""
    min_similarity: float
    """Of the item and the most similar passage, 0 to 100; 0 compares none."""


@dataclass(frozen=True)
class Found:
    """The item that a text holds, and the evidence."""

    item: Item
    rule: str
    similarity: float
    """Share of the item's windows, or similarity of the passage; both 0 to 1."""
    evidence: str


Hit = tuple[int, int, Found]  # number of the text, number of the item


def search(index: Index, rules: Rules, texts: Sequence[str]) -> list[Found | None]:
    """For each text the item that it holds most of (the first of equals), or None. Texts do not see each other."""
    found: list[Found | None] = []
    for batch in batches(texts):
        found += _search(index, rules, batch)
    return found


def batches(texts: Sequence[str]) -> list[list[str]]:
    """Texts in order, some BATCH_LETTERS together; a longer one by itself."""
    made: list[list[str]] = []
    size = BATCH_LETTERS + 1
    for text in texts:
        if size + len(text) > BATCH_LETTERS:
            made.append([])
            size = 0
        made[-1].append(text)
        size += len(text)
    return made


def read(index: Index, texts: Sequence[str]) -> dict[Kind, Units]:
    """The texts as the index needs them."""
    found = letters(texts)
    least = index.sides["characters"].widths.least
    return {"words": words(found), "characters": characters(found, max(1, ceil(least / 2)))}


def common_phrases(index: Index, counts: "Counts", most: int) -> Common:
    """What occurs in more than `most` texts."""
    return Common(
        {kind: np.flatnonzero(counts.windows[kind] > most) for kind in index.sides},
        index.is_short & (counts.items > most),
    )


class Counts:
    """In how many texts each window and each short item occurs. Memory is that of the index."""

    def __init__(self, index: Index):
        self._index = index
        self.windows = {kind: np.zeros(len(side.units), np.int64) for kind, side in index.sides.items()}
        self.items = np.zeros(len(index.items), np.int64)

    def add(self, texts: Sequence[str]) -> None:
        """Count what these texts hold, each once a text."""
        for batch in batches(texts):
            for kind, units in read(self._index, batch).items():
                side = self._index.sides[kind]
                candidates = side.candidates(units)
                pairs = side.full.find(units, candidates)
                owners = units.owners(pairs.mine)
                once = np.unique(owners * len(side.units) + pairs.theirs) % max(1, len(side.units))
                np.add.at(self.windows[kind], once, 1)
                whole = {
                    (text, item) for text, item, _ in _whole(self._index, units, side.least.find(units, candidates))
                }
                np.add.at(self.items, [item for _, item in whole], 1)


def _search(index: Index, rules: Rules, texts: Sequence[str]) -> list[Found | None]:
    units = read(index, texts)
    best: dict[int, tuple[float, int, Found]] = {}  # text -> (-similarity, item, what was found)
    candidates = {kind: index.sides[kind].candidates(units[kind]) for kind in units}
    full: dict[Kind, Pairs] = {kind: index.sides[kind].full.find(units[kind], candidates[kind]) for kind in units}
    seeds = {kind: index.sides[kind].least.find(units[kind], candidates[kind]) for kind in units}
    _keep_best(best, _by_windows(index, rules, units, full))
    for kind in units:
        _keep_best(best, _whole(index, units[kind], seeds[kind]))
    if rules.min_similarity:
        done = set(best)
        for kind in units:
            _keep_best(best, _alike(index, rules, units[kind], seeds[kind], done))
    return [best[text][2] if text in best else None for text in range(len(texts))]


def _keep_best(best: dict[int, tuple[float, int, Found]], hits: Iterable[Hit]) -> None:
    for text, item, found in hits:
        rank = (-found.similarity, item, found)
        if text not in best or rank[:2] < best[text][:2]:
            best[text] = rank


def _by_windows(index: Index, rules: Rules, units: Mapping[Kind, Units], full: Mapping[Kind, Pairs]) -> Iterator[Hit]:
    """Items of which a text holds enough windows; the first window in the text is the evidence."""
    rows = [_rows(index.sides[kind].units, number, units[kind], full[kind]) for number, kind in enumerate(units)]
    text, item, number, mine, theirs = np.concatenate(rows, axis=1)
    if not len(text):
        return
    order = np.lexsort((mine, theirs, number, item, text))
    same_item = _repeats(text[order], item[order])
    is_again = same_item & _repeats(number[order], theirs[order])
    begins = np.flatnonzero(~same_item)
    held = np.add.reduceat(~is_again, begins, dtype=np.int64)
    share = held / index.windows[item[order][begins]]
    kinds = list(units)
    for group in np.flatnonzero(share >= rules.min_share).tolist():
        end = begins[group + 1] if group + 1 < len(begins) else len(order)
        rows_ = order[begins[group] : end]
        first = rows_[np.lexsort((mine[rows_], number[rows_]))[0]]
        kind = kinds[number[first]]
        width = index.sides[kind].widths.full
        evidence = units[kind].text(int(mine[first]), width)
        i = int(item[first])
        yield int(text[first]), i, Found(index.items[i], f"{width} {kind}", float(share[group]), evidence)


def _rows(own: Units, number: int, units: Units, pairs: Pairs) -> np.ndarray:
    owners = (units.owners(pairs.mine), own.owners(pairs.theirs))
    return np.stack((*owners, np.full(len(pairs.mine), number), pairs.mine, pairs.theirs))


def _repeats(*columns: np.ndarray) -> np.ndarray:
    """Whether a row is the same as the one before it."""
    same = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return np.concatenate(([False], same))


def _whole(index: Index, units: Units, seeds: Pairs) -> Iterator[Hit]:
    """Short items that a text holds from their first unit to their last."""
    side = index.sides[units.kind]
    items = side.units.owners(seeds.theirs)
    is_first = index.is_short[items] & (side.units.first[items] == seeds.theirs)
    mine, theirs, items = seeds.mine[is_first], seeds.theirs[is_first], items[is_first]
    sizes = side.units.counts[items]
    texts = units.owners(mine)
    fits = mine + sizes <= units.first[texts + 1]
    for size in np.unique(sizes[fits]).tolist():
        chosen = np.flatnonzero(fits & (sizes == size))
        equal = equal_windows(units, mine[chosen], side.units, theirs[chosen], size)
        for i in chosen[equal].tolist():
            item = int(items[i])
            yield int(texts[i]), item, Found(index.items[item], "whole item", 1.0, units.text(int(mine[i]), size))


def _alike(index: Index, rules: Rules, units: Units, seeds: Pairs, done: set[int]) -> Iterator[Hit]:
    """Items that a passage of a text is alike. Candidates share a window of least width with the item."""
    side = index.sides[units.kind]
    texts, items = units.owners(seeds.mine), side.units.owners(seeds.theirs)
    offsets = seeds.mine - (seeds.theirs - side.units.first[items])  # where the item would start
    size = side.units.letters_before[side.units.first[items + 1]] - side.units.letters_before[side.units.first[items]]
    kept = index.is_used[items] & (size <= MAX_COMPARED) & ~np.isin(texts, list(done))
    groups: dict[int, dict[int, list[int]]] = {}
    for text, item, offset in zip(*(column[kept].tolist() for column in (texts, items, offsets)), strict=True):
        groups.setdefault(text, {}).setdefault(item, []).append(offset)
    for text, by_item in groups.items():
        likely = sorted(by_item, key=lambda item: (-len(by_item[item]), item))[:MAX_CANDIDATES]
        for item in likely:
            score, passage = _most_alike(side.units, units, (text, item), by_item[item], rules.min_similarity)
            if score >= rules.min_similarity:
                yield text, item, Found(index.items[item], f"{rules.min_similarity:g} % alike", score / 100, passage)


def _most_alike(
    own: Units, units: Units, pair: tuple[int, int], offsets: Sequence[int], least: float
) -> tuple[float, str]:
    """The best score over the places where an item may start; those that cannot reach `least` are not read."""
    text, item = pair
    wanted = own.compared(item)
    size = int(own.counts[item])
    slack = max(2, ceil(size / 10))
    places: list[list[int]] = []
    for offset in sorted(offsets):
        if not places or offset - places[-1][-1] > slack:
            places.append([])
        places[-1].append(offset)
    places = sorted(places, key=lambda place: (-len(place), place[0]))[:MAX_PASSAGES]
    best = (0.0, "")
    for place in places:
        start = max(int(units.first[text]), place[0] - slack)
        end = min(int(units.first[text + 1]), place[0] + size + 3 * slack)
        window = units.text(start, end - start)
        if most_possible(wanted, window) < least:
            continue
        score, first, last = best_passage(wanted, window)
        best = max(best, (score, window[first:last]), key=lambda found: found[0])
    return best
