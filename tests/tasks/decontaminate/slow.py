"""An independent oracle: sets of n-grams of plain Python strings, and edit distances by the textbook."""

import unicodedata
from collections.abc import Sequence
from fractions import Fraction

from tasks.decontaminate.index import Item

SCRIPTS = "HIRAGANA", "KATAKANA", "CJK", "THAI", "LAO", "MYANMAR", "KHMER", "IDEOGRAPHIC"


def plain(text: str) -> str:
    """Letters and digits in one width and case, a blank for everything else."""
    return "".join(c if c.isalnum() else " " for c in unicodedata.normalize("NFKC", text).casefold())


def is_unspaced(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(SCRIPTS)


def windows(text: str, words: int, characters: int) -> list[tuple[str, ...] | str]:
    """The windows of an item: of words where less than half the letters are unspaced, else of characters."""
    found: list[tuple[str, ...] | str] = []
    parts = plain(text).split()
    for i in range(len(parts) - words + 1):
        window = tuple(parts[i : i + words])
        letters = "".join(window)
        if 2 * sum(map(is_unspaced, letters)) < len(letters):
            found.append(window)
    joined = "".join(parts)
    for i in range(len(joined) - characters + 1):
        window = joined[i : i + characters]
        if 2 * sum(map(is_unspaced, window)) >= characters:
            found.append(window)
    return found


def held(item: Item, text: str, words: int, characters: int) -> Fraction:
    """The share of an item's windows that a text has, or whether it has all of an item without windows."""
    wanted = windows(item.text, words, characters)
    parts = plain(text).split()
    joined = "".join(parts)
    have: set[tuple[str, ...] | str] = {tuple(parts[i : i + words]) for i in range(len(parts) - words + 1)}
    have |= {joined[i : i + characters] for i in range(len(joined) - characters + 1)}
    if wanted:
        return Fraction(sum(window in have for window in wanted), len(wanted))
    own = plain(item.text).split()
    letters = "".join(own)
    if 2 * sum(map(is_unspaced, letters)) >= len(letters):
        return Fraction(len(letters) >= characters and letters in joined)
    places = range(len(parts) - len(own) + 1)
    return Fraction(len(own) >= words and any(parts[i : i + len(own)] == own for i in places))


def most_held(items: Sequence[Item], text: str, words: int, characters: int) -> tuple[Fraction, Item] | None:
    """The item of which a text holds most; of equals the first by benchmark and id."""
    shares = [
        (share, item)
        for item in sorted(items, key=lambda item: (item.benchmark, item.id))
        if (share := held(item, text, words, characters))
    ]
    return max(shares, key=lambda found: found[0]) if shares else None


def lcs(left: str, right: str) -> int:
    row = [0] * (len(right) + 1)
    for a in left:
        before, row = row, [0]
        for j, b in enumerate(right, 1):
            row.append(before[j - 1] + 1 if a == b else max(before[j], row[-1]))
    return row[-1]


def ratio(left: str, right: str) -> float:
    return 100 * 2 * lcs(left, right) / (len(left) + len(right)) if left or right else 100.0
