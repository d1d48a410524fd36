"""A teacher's record: what goes in comes out, for the same tokens and for no others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import DataFault
from tasks.taught import pack_taught, unpack_taught


def said(tokens: int, words: int, seed: int):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 300_000, tokens).astype(np.int32)
    return (
        ids,
        rng.integers(0, 300_000, (tokens - 1, words)).astype(np.int32),
        rng.dirichlet(np.ones(words), tokens - 1).astype(np.float32),
    )


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**31))
def test_words_come_back_exactly_and_shares_to_the_precision_of_float16(tokens, words, seed):
    ids, expected, shares = said(tokens, words, seed)
    record = pack_taught(ids, expected, shares)
    assert len(record) == 18 + 6 * words * (tokens - 1)
    got_words, got_shares = unpack_taught(record, ids, "here")
    np.testing.assert_array_equal(got_words, expected)
    np.testing.assert_allclose(got_shares, shares, rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(got_shares.sum(axis=1), 1, rtol=1e-6)


def test_equal_shares_come_back_exactly():
    ids, words, _ = said(9, 64, 0)
    shares = unpack_taught(pack_taught(ids, words, np.full((8, 64), 1 / 64, np.float32)), ids, "here")[1]
    assert np.all(shares == 1 / 64)


def test_the_most_likely_words_alone_sum_to_one_again():
    ids, words, shares = said(9, 4, 0)
    got = unpack_taught(pack_taught(ids, words, shares * 0.25), ids, "here")[1]
    np.testing.assert_allclose(got, shares, rtol=5e-3, atol=1e-5)


@pytest.mark.parametrize("change", ["another token", "one token fewer", "one token more"])
def test_words_about_other_tokens_are_refused(change):
    ids, words, shares = said(9, 4, 0)
    other = {"another token": ids ^ (np.arange(9) == 5), "one token fewer": ids[:-1], "one token more": [*ids, 7]}
    with pytest.raises(DataFault, match="source ja, record 3: the teacher spoke about 9 other tokens"):
        unpack_taught(pack_taught(ids, words, shares), np.asarray(other[change]), "source ja, record 3")


@pytest.mark.parametrize("broken", [lambda r: r[:-1], lambda r: r + b"x", lambda r: b"X" + r[1:], lambda r: b""])
def test_a_broken_record_is_refused(broken):
    ids, words, shares = said(9, 4, 0)
    with pytest.raises(DataFault, match="none of ours, or not whole"):
        unpack_taught(broken(pack_taught(ids, words, shares)), ids, "here")
