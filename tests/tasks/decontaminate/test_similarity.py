"""Similarity against the textbook's longest common subsequence, and RapidFuzz's documented values."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.decontaminate.similarity import best_passage, most_possible, ratio
from tests.tasks.decontaminate import slow

SHORT = st.text("abc漢字 ", max_size=12)


@given(SHORT, SHORT)
@settings(max_examples=30, deadline=None)
def test_the_ratio_is_that_of_the_textbook(left, right):
    assert ratio(left, right) == pytest.approx(slow.ratio(left, right))
    assert ratio(left, right) == pytest.approx(ratio(right, left))


def test_the_ratio_is_that_of_rapidfuzz():
    """Values that RapidFuzz 3.14.6 gave for `fuzz.ratio`."""
    assert ratio("this is a test", "this is a test!") == pytest.approx(96.55172413793103)
    assert ratio("fuzzy wuzzy was a bear", "wuzzy fuzzy was a bear") == pytest.approx(90.9090909090909)


@given(st.text("ab ", min_size=1, max_size=8), st.text("ab ", max_size=16))
@settings(max_examples=30, deadline=None)
def test_the_best_passage_is_what_it_says_and_no_longer_end_is_better(item, window):
    score, start, end = best_passage(item, window)
    assert score == pytest.approx(slow.ratio(item, window[start:end]) if window else 0.0)
    if window:
        assert score >= max(slow.ratio(item, window[start:stop]) for stop in range(start + 1, len(window) + 1)) - 1e-9
    assert score <= most_possible(item, window) + 1e-9


@given(st.text("abcd", min_size=1, max_size=10), st.text("efgh", max_size=10), st.text("efgh", max_size=10))
@settings(max_examples=50, deadline=None)
def test_an_item_that_stands_there_is_found_whole(item, before, after):
    assert best_passage(item, before + item + after) == (100.0, len(before), len(before) + len(item))


def test_an_edited_item_between_other_text_has_nearly_its_own_ratio():
    rng = random.Random(1)
    item = "".join(rng.choice("abcdefghijklmnop ") for _ in range(200))
    edited = item[:50] + "XX" + item[52:120] + item[123:]
    found, start, end = best_passage(item, "zq" * 15 + edited + "zq" * 15)
    assert found == pytest.approx(slow.ratio(item, edited))
    assert (start, end) == (30, 30 + len(edited))
