"""Repeated n-grams of a batch, against counting them one by one."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.compiled import Load
from tasks.ingest.filters import ngrams
from tasks.ingest.filters.ngrams import repeats
from tasks.ingest.texts import Texts

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


def batch(sequences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    flat = [symbol for sequence in sequences for symbol in sequence]
    return np.array(flat, np.int64), np.array(list(map(len, sequences)), np.int64)


def fast(sequences: list[list[int]], longest: int) -> list[list[tuple[int, list[int]]]]:
    return [
        sorted(
            zip(each.sequences.tolist(), map(np.ndarray.tolist, np.split(each.positions, each.starts[1:])), strict=True)
        )
        if len(each.starts)
        else []
        for each in repeats(*batch(sequences), longest)
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


@given(SEQUENCES, st.integers(1, 11))
@settings(max_examples=60, deadline=None)
def test_the_ladder_counts_what_repeats(sequences, longest):
    flat, lengths = batch(sequences)
    found = ngrams.ladder(flat, lengths, longest)
    assert found.shape == (longest - 1, len(sequences), 3)
    for n in range(2, longest + 1):
        for number in range(len(sequences)):
            counts = [len(places) for owner, places in slow(sequences, n) if owner == number]
            expected = [max(counts, default=0), len(counts), sum(counts) - len(counts)]
            assert found[n - 2, number].tolist() == expected


@pytest.mark.slow  # compiling takes ten seconds
@given(st.lists(st.one_of(st.text(alphabet="あいう𠀋", max_size=60), st.text(max_size=60)), max_size=6))
@settings(max_examples=60, deadline=None)
def test_compiled_and_numpy_count_the_same(strings):
    compiled = pytest.importorskip("tasks.ingest.filters.ngrams_compiled", reason="numba is not installed")
    texts = Texts(strings)
    expected = ngrams.ladder(texts.codes, texts.lengths, 10)
    assert compiled.ladder(texts.codes, texts.lengths, 10).tolist() == expected.tolist()


def test_the_compiled_loop_is_used_where_there_is_much_to_do(monkeypatch):
    compiled = pytest.importorskip("tasks.ingest.filters.ngrams_compiled", reason="numba is not installed")
    asked: list[int] = []
    ladder = compiled.ladder
    monkeypatch.setattr(compiled, "ladder", lambda *given: asked.append(given[2]) or ladder(*given))
    monkeypatch.setattr(ngrams, "_load", Load(8))
    texts = Texts(["ああああ"])
    first, second, third = (ngrams.count(texts.codes, texts.lengths, 4).tolist() for _ in range(3))
    assert first == second == third == [[[3, 1, 2]], [[2, 1, 1]], [[0, 0, 0]]]
    assert asked == [4]
