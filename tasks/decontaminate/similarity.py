"""How alike an item and the most similar passage of a text are, as RapidFuzz's `ratio` counts it.

The ratio is 200 x LCS / (length + length), LCS the longest common subsequence of characters: equal texts have 100. It
is computed with whole numbers as bit vectors (Hyyrö 2004, "Bit-parallel LCS-length computation revisited").
"""

from collections import Counter, defaultdict


def ratio(left: str, right: str) -> float:
    """Similarity of two texts, 0 to 100; two empty ones are equal."""
    if not left and not right:
        return 100.0
    return 200.0 * (_lengths(left, right)[-1] if right else 0) / (len(left) + len(right))


def best_passage(item: str, window: str) -> tuple[float, int, int]:
    """The similarity of an item to a passage of the window, and where that passage starts and ends.

    Where it starts is decided against the window's end, then where it ends is: the ratio is exact for the passage, and
    at least that of every passage with the same start.
    """
    if not item or not window:
        return 0.0, 0, 0
    _, size = _best_prefix(item[::-1], window[::-1])
    start = len(window) - size
    score, size = _best_prefix(item, window[start:])
    return score, start, start + size


def most_possible(item: str, window: str) -> float:
    """What no passage's similarity is above: as if the letters that both have stood in the same order."""
    shared = (Counter(item) & Counter(window)).total()
    return 200.0 * shared / (len(item) + shared) if item else 100.0


def _best_prefix(item: str, window: str) -> tuple[float, int]:
    score, least = max((2 * shared / (len(item) + n), -n) for n, shared in enumerate(_lengths(item, window), 1))
    return 100.0 * score, -least


def _lengths(item: str, window: str) -> list[int]:
    """LCS of the item with the first 1, 2, … characters of the window."""
    places: defaultdict[str, int] = defaultdict(int)
    for i, letter in enumerate(item):
        places[letter] |= 1 << i
    everything = (1 << len(item)) - 1
    rest, found = everything, list[int]()
    for letter in window:
        matches = rest & places[letter]
        rest = ((rest + matches) | (rest - matches)) & everything
        found.append(len(item) - rest.bit_count())
    return found
