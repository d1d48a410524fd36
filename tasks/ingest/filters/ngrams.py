"""Finds repeated n-grams of a batch of sequences, exactly: every length from the one before, without hashes.

An n-gram that occurs again begins with an (n-1)-gram that does, so only places repeated at one length are candidates at
the next, and the number of the repeated (n-1)-gram with one more symbol names an n-gram. The candidates shrink fast.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tasks.ingest.compiled import Load

_PACKED_BITS = 63  # of a signed number
_load = Load(20_000_000)  # symbols: by then numpy has cost as much as loading the compiled code does


@dataclass(frozen=True)
class Repeats:
    """The n-grams that occur at least twice in their sequence, in the order of sequences."""

    n: int
    positions: np.ndarray  # of all their occurrences: those of one n-gram side by side, ascending
    starts: np.ndarray  # where in `positions` each n-gram begins
    sequences: np.ndarray  # the sequence of each n-gram

    @cached_property
    def counts(self) -> np.ndarray:
        """Occurrences of each n-gram."""
        return np.diff(self.starts, append=len(self.positions))


def count(symbols: np.ndarray, lengths: np.ndarray, longest: int) -> np.ndarray:
    """`ladder` by what is faster for this process: the compiled loop, where numba is installed and there is much to do.

    Both give the same integers, so what is chosen changes nothing but the time.
    """
    if _load.pays(len(symbols)):
        from tasks.ingest.filters import ngrams_compiled  # three seconds, see _load

        return ngrams_compiled.ladder(symbols, lengths, longest)
    return ladder(symbols, lengths, longest)


def ladder(symbols: np.ndarray, lengths: np.ndarray, longest: int) -> np.ndarray:
    """For n = 2 … longest and each sequence three numbers about the n-grams that occur again, 0 where none does.

    They are: occurrences of the most frequent one, how many different ones, and their occurrences after the first.
    """
    found = np.zeros((max(longest - 1, 0), len(lengths), 3), np.int64)
    for each in repeats(symbols, lengths, longest):
        top, distinct, extra = found[each.n - 2].T
        np.maximum.at(top, each.sequences, each.counts)
        distinct += np.bincount(each.sequences, minlength=len(lengths))
        extra += np.bincount(each.sequences, each.counts - 1, len(lengths)).astype(np.int64)
    return found


def repeats(symbols: np.ndarray, lengths: np.ndarray, longest: int) -> Iterator[Repeats]:
    """The repeated n-grams for n = 2 … longest.

    Args:
        symbols: numbers from 0 on, of all sequences one after the other; small ones are fastest.
        lengths: symbols of each sequence.
    """
    symbols = symbols.astype(np.int32)
    sequence = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    width = int(symbols.max(initial=0)) + 1
    names = sequence.astype(np.int64) * width + symbols  # of the (n-1)-gram at each place
    bound = len(lengths) * width
    candidates = np.flatnonzero(sequence[1:] == sequence[:-1])
    for n in range(2, longest + 1):
        keys = names[candidates].astype(np.int64)
        keys *= width
        keys += symbols[candidates + (n - 1)]
        positions, first = _equal(keys, bound * width, candidates, len(symbols))
        starts = np.flatnonzero(first)
        yield Repeats(n, positions, starts, sequence[positions[starts]])
        bound = len(starts) + 1
        names = np.zeros(len(symbols) + 1, np.int32)  # 0 = not repeated
        names[positions] = np.cumsum(first, dtype=np.int32)
        candidates = positions[names[positions + 1] > 0]


def _equal(keys: np.ndarray, bound: int, positions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions whose key (below `bound`) occurs again, by key and position; and which are the first of a key."""
    shift = max(1, (size - 1).bit_length())
    packs = (bound - 1).bit_length() + shift <= _PACKED_BITS
    if packs:  # one sort of numbers is many times faster than one of indices
        packed = np.sort((keys << shift) | positions)
        keys = packed >> shift
    else:
        order = np.lexsort((positions, keys))
        keys, packed = keys[order], positions[order]
    same = np.zeros(len(keys) + 1, bool)
    np.equal(keys[1:], keys[:-1], out=same[1:-1])
    member = same[1:] | same[:-1]
    positions = packed[member] & ((1 << shift) - 1) if packs else packed[member]
    return positions, (same[1:] & ~same[:-1])[member]
