"""Shingles and sketches against sets of strings and the theory of MinHash."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.comparable import comparable
from tasks.ingest.compiled import Load
from tasks.ingest.shingles import band_keys, flat_shingles, jaccard, shingles, signatures, text_digest


def slow_shingles(text: str, ngram: int, kind: str = "char") -> set[str]:
    items = text.split() if kind == "word" else list(text)
    between = " " if kind == "word" else ""
    return {between.join(items[i : i + ngram]) for i in range(len(items) - ngram + 1)}


@given(
    st.text(alphabet="あいうab ", max_size=80),
    st.text(alphabet="あいうab ", max_size=80),
    st.integers(1, 25),
    st.sampled_from(["char", "word"]),
)
def test_similarity_is_that_of_sets_of_strings(left, right, ngram, kind):
    left, right = comparable(left), comparable(right)
    a, b = slow_shingles(left, ngram, kind), slow_shingles(right, ngram, kind)
    expected = len(a & b) / len(a | b) if a | b else 0.0
    assert jaccard(shingles(left, ngram, kind), shingles(right, ngram, kind)) == pytest.approx(expected)
    assert len(shingles(left, ngram, kind)) == len(a)


@given(st.lists(st.text(max_size=30), max_size=6), st.integers(1, 8), st.sampled_from(["char", "word"]))
def test_a_batch_gives_what_each_text_gives_alone(texts, ngram, kind):
    texts = [comparable(text) for text in texts]
    hashes, offsets = flat_shingles(texts, ngram, kind)
    assert len(offsets) == len(texts) + 1
    assert int(offsets[-1]) == len(hashes)
    for i, text in enumerate(texts):
        alone = flat_shingles([text], ngram, kind)[0]
        assert np.array_equal(hashes[int(offsets[i]) : int(offsets[i + 1])], alone)
        assert len(alone) == max(0, len(text.split() if kind == "word" else text) - ngram + 1)


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
        keys = band_keys(*flat_shingles(["".join(text), "".join(other)], 5), (bands, rows), seed=0)
        met += bool((keys[0] == keys[1]).any())
    assert low <= met / 150 <= high


def keys_of(texts: list[str], shape: tuple[int, int], seed: int) -> np.ndarray:
    return band_keys(*flat_shingles(texts, 5), shape, seed)


def test_keys_do_not_depend_on_the_batch():
    texts = [f"text number {i} with some words in it" for i in range(7)] + [""]
    whole = keys_of(texts, (4, 5), 1)
    assert np.array_equal(whole, np.concatenate([keys_of([one], (4, 5), 1) for one in texts]))
    assert not np.array_equal(whole, keys_of(texts, (4, 5), 2))


def test_repeated_shingles_change_no_signature_and_bands_never_meet():
    hashes, _ = flat_shingles(["abcdefgh" * 20], 5)
    every = np.array([0, len(hashes)], np.uint64)
    distinct = np.unique(hashes)
    alone = np.array([0, len(distinct)], np.uint64)
    assert np.array_equal(signatures(hashes, every, 64, 0), signatures(distinct, alone, 64, 0))
    assert len(set(keys_of([""], (30, 2), 0)[0].tolist())) == 30


@pytest.mark.slow  # compiling takes some seconds
@given(
    st.lists(st.text(alphabet="あいう𠀋ab ", max_size=40), max_size=6),
    st.integers(1, 8),
    st.sampled_from(["char", "word"]),
)
@settings(max_examples=60, deadline=None)
def test_compiled_and_numpy_make_the_same_keys(texts, ngram, kind):
    pytest.importorskip("numba", reason="the extra [corpus] is not installed")
    texts = [comparable(text) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        made = []
        for enough in (1 << 60, -1):  # never, always
            patch.setattr("tasks.ingest.shingles._load", Load(enough))
            hashes, offsets = flat_shingles(texts, ngram, kind)
            made.append((hashes.tolist(), offsets.tolist(), band_keys(hashes, offsets, (3, 4), 1).tolist()))
    assert made[0] == made[1]


def test_the_sketch_is_the_frozen_one():
    """Keys of another version of the sketch must never be compared with these: bump SKETCH when this changes."""
    keys = keys_of(["吾輩は猫である。名前はまだ無い。"], (3, 4), 0)
    assert keys.tolist() == FROZEN


FROZEN = [[10247952970150312009, 16721548395451935197, 15427713709276083936]]
