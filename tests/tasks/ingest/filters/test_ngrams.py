"""Repeated n-grams of a batch, against counting them one by one."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.filters import ngrams
from tasks.ingest.filters.ngrams import dense, repeats

SEQUENCES = st.lists(st.lists(st.integers(0, 3), max_size=40), max_size=5)


def slow(sequences: list[list[int]], n: int) -> list[tuple[int, list[int]]]:
    """(sequence, positions in the batch) of each n-gram that occurs again."""
    found: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    base = 0
    for number, sequence in enumerate(sequences):
        for place in range(len(sequence) - n + 1):
            found[number, tuple(sequence[place : place + n])].append(base + place)
        base += len(sequence)
    return sorted((number, places) for (number, _), places in found.items() if len(places) > 1)


def fast(sequences: list[list[int]], longest: int) -> list[list[tuple[int, list[int]]]]:
    flat = np.array([symbol for sequence in sequences for symbol in sequence], np.int64)
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    return [
        sorted(
            zip(each.sequences.tolist(), map(np.ndarray.tolist, np.split(each.positions, each.starts[1:])), strict=True)
        )
        if len(each.starts)
        else []
        for each in repeats(flat, lengths, longest)
    ]


@given(SEQUENCES)
@settings(max_examples=60, deadline=None)
def test_repeated_ngrams_are_found_with_all_their_places(sequences):
    assert fast(sequences, 6) == [slow(sequences, n) for n in range(2, 7)]


@given(SEQUENCES)
@settings(max_examples=30, deadline=None)
def test_sequences_too_large_for_one_number_give_the_same(sequences):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "_PACKED_BITS", 0)
        assert fast(sequences, 4) == [slow(sequences, n) for n in range(2, 5)]


def test_the_first_place_comes_first_and_sequences_stay_in_order():
    [two] = repeats(np.array([1, 2, 1, 2, 1, 2, 1, 2]), np.array([4, 4]), 2)
    assert two.positions.tolist() == [0, 2, 4, 6]
    assert two.sequences.tolist() == [0, 1]
    assert two.counts.tolist() == [2, 2]


def test_dense_numbers_keep_equality():
    codes = np.array([0x20000, 5, 0x20000, 7], np.uint32)
    assert dense(codes).tolist() == [2, 0, 2, 1]
    assert dense(codes[:0]).tolist() == []
