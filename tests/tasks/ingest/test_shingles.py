"""Shingles and sketches against sets of strings and the theory of MinHash."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest.shingles import band_keys, comparable, jaccard, shingles, text_digest


def slow_shingles(text: str, ngram: int) -> set[str]:
    return {text[i : i + ngram] for i in range(max(1, len(text) - ngram + 1))} if text else set()


@given(st.text(alphabet="あいうab ", max_size=80), st.text(alphabet="あいうab ", max_size=80), st.integers(1, 25))
def test_similarity_is_that_of_sets_of_strings(left, right, ngram):
    a, b = slow_shingles(left, ngram), slow_shingles(right, ngram)
    expected = len(a & b) / len(a | b) if a | b else 1.0
    assert jaccard(shingles(left, ngram), shingles(right, ngram)) == pytest.approx(expected)
    assert len(shingles(left, ngram)) == len(a)


def test_layout_width_and_case_do_not_count():
    assert comparable(" Ｄebian  の\n\n手引き ") == comparable("debian の 手引き")
    assert text_digest(comparable("A b")) == text_digest(comparable("a\nB"))
    assert comparable("手引き一") != comparable("手引き二")


def noise(rng: random.Random, size: int) -> list[str]:
    return [chr(0x4E00 + rng.randrange(2000)) for _ in range(size)]


@pytest.mark.parametrize(
    ("bands", "rows", "edits", "low", "high"),
    [
        pytest.param(20, 10, 2, 0.97, 1.0, id="nearly equal texts meet"),
        pytest.param(20, 10, 12, 0.75, 1.0, id="J about 0.79: theory 0.88"),
        pytest.param(20, 10, 90, 0.0, 0.1, id="different texts do not"),
    ],
)
def test_pairs_meet_in_a_bucket_as_often_as_theory_says(bands, rows, edits, low, high):
    rng = random.Random(7)
    met = 0
    for _ in range(150):
        text = noise(rng, 500)
        other = list(text)
        for position in rng.sample(range(500), edits):
            other[position] = chr(0x4E00 + rng.randrange(2000))
        sets = [shingles("".join(text), 5), shingles("".join(other), 5)]
        keys = band_keys(sets, bands, rows, seed=0)
        met += bool((keys[0] == keys[1]).any())
    assert low <= met / 150 <= high


def test_keys_do_not_depend_on_the_batch():
    sets = [shingles(f"text number {i} with some words in it", 5) for i in range(7)] + [shingles("", 5)]
    whole = band_keys(sets, 4, 5, seed=1)
    assert np.array_equal(whole, np.concatenate([band_keys([one], 4, 5, seed=1) for one in sets]))
    assert not np.array_equal(whole, band_keys(sets, 4, 5, seed=2))


def test_the_sketch_is_the_frozen_one():
    """Keys of another version of the sketch must never be compared with these: bump SKETCH when this changes."""
    keys = band_keys([shingles("吾輩は猫である。名前はまだ無い。", 5)], 3, 4, seed=0)
    assert keys.tolist() == FROZEN


FROZEN = [[11518497167335499574, 5393776452591418781, 13489906652489248157]]
