"""Finds repeated n-grams of a batch of sequences, exactly: every length from the one before, without hashes.

An n-gram that occurs again begins with an (n-1)-gram that does, so only places repeated at one length are candidates at
the next, and the number of the repeated (n-1)-gram with one more symbol names an n-gram. The candidates shrink fast.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_PACKED_BITS = 63  # of a signed number


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


def repeats(symbols: np.ndarray, lengths: np.ndarray, longest: int) -> Iterator[Repeats]:
    """The repeated n-grams for n = 2 … longest.

    Args:
        symbols: small numbers from 0 on, of all sequences one after the other.
        lengths: symbols of each sequence.
    """
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    width = int(symbols.max(initial=0)) + 1
    names = sequence * width + symbols  # of the (n-1)-gram at each place
    bound = len(lengths) * width
    candidates = np.flatnonzero(sequence[1:] == sequence[:-1])
    for n in range(2, longest + 1):
        keys = names[candidates] * width + symbols[candidates + n - 1]
        positions, starts = _equal(keys, bound * width, candidates, len(symbols))
        found = Repeats(n, positions, starts, sequence[positions[starts]])
        yield found
        names = np.zeros(len(symbols) + 1, np.int64)  # 0 = not repeated
        bound = len(starts) + 1
        names[positions] = np.repeat(np.arange(1, bound), found.counts)
        candidates = positions[names[positions + 1] > 0]


def dense(codes: np.ndarray) -> np.ndarray:
    """The same sequence with small numbers from 0 on instead of code points."""
    seen = np.zeros(int(codes.max(initial=0)) + 1, bool)
    seen[codes] = True
    return (np.cumsum(seen) - 1).take(codes)


def _equal(keys: np.ndarray, bound: int, positions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions whose key (below `bound`) occurs again, by key and position; and where each key begins."""
    shift = max(1, (size - 1).bit_length())
    if (bound - 1).bit_length() + shift <= _PACKED_BITS:  # one sort of numbers is many times faster than one of indices
        packed = np.sort((keys << shift) | positions)
        keys, positions = packed >> shift, packed & ((1 << shift) - 1)
    else:
        order = np.lexsort((positions, keys))
        keys, positions = keys[order], positions[order]
    same = np.zeros(len(keys) + 1, bool)
    same[1:-1] = keys[1:] == keys[:-1]
    first, member = same[1:] & ~same[:-1], same[1:] | same[:-1]
    return positions[member], np.flatnonzero(first[member])
