"""Bins keep the order of scores, thresholds miss by less than a bin, drift is what its definition says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import ks_2samp

from tasks.classify.histogram import (
    NUM_BINS,
    as_json,
    bins,
    count_bins,
    drift,
    lower_edge,
    merged,
    top_fraction,
)

scores = st.lists(st.floats(0, 1), min_size=1, max_size=60)


def histogram(values: list[float] | np.ndarray, highest: float = 1.0) -> np.ndarray:
    return np.bincount(bins(np.asarray(values), highest), minlength=NUM_BINS)


@given(scores)
@settings(max_examples=80)
def test_a_higher_score_never_has_a_lower_bin(values):
    place = bins(np.sort(np.array(values)), 1.0)
    assert (np.diff(place) >= 0).all()
    assert place.min() >= 0
    assert place.max() < NUM_BINS


@given(st.integers(0, NUM_BINS - 1), st.sampled_from([1, 3]))
@settings(max_examples=80)
def test_the_lower_edge_of_a_bin_is_where_it_begins(place, highest):
    edge = lower_edge(place, highest)
    assert 0 <= edge < highest
    assert abs(int(bins(np.array([edge]), highest)[0]) - place) <= 1  # on the edge itself rounding decides
    assert place == 0 or bins(np.array([edge * (1 - 1e-6)]), highest)[0] <= place


def test_scores_near_one_that_float32_still_tells_apart_are_in_different_bins():
    assert len(set(bins(1 - np.array([1e-3, 1e-5, 1e-7, 1e-9, 1e-10]), 1.0).tolist())) == 5


@given(scores, st.floats(0.01, 1.0))
@settings(max_examples=80)
def test_the_kept_share_is_the_nearest_that_whole_bins_allow(values, fraction):
    found = top_fraction(histogram(values), fraction, 1.0)
    place = bins(np.array(values), 1.0)
    possible = {b: int((place >= b).sum()) for b in set(place.tolist())}
    wanted = fraction * len(values)
    least = min(abs(kept - wanted) for kept in possible.values())
    assert found.kept == possible[found.bin] == min(k for k in possible.values() if abs(k - wanted) == least)
    assert found.kept > 0
    assert found.total == len(values)
    assert abs(found.kept - wanted) <= np.bincount(place).max()


def test_a_tenth_of_spread_scores_is_a_tenth_within_one_bin():
    values = 1 / (1 + np.exp(-np.random.default_rng(0).normal(scale=4, size=100_000)))
    found = top_fraction(histogram(values), 0.1, 1.0)
    assert abs(found.kept - 10_000) <= found.in_bin
    assert found.in_bin < 300
    assert found.score == pytest.approx(np.quantile(values, 0.9), rel=1e-3)


def test_equal_scores_are_all_kept_or_all_dropped():
    assert top_fraction(histogram([0.5] * 100), 0.1, 1.0).kept == 100
    assert top_fraction(histogram([0.5] * 90 + [0.9] * 10), 0.1, 1.0).kept == 10


def test_histograms_of_parts_add_up_to_that_of_all():
    values, names = np.random.default_rng(1).uniform(size=300), ["b", "a", "a"] * 100
    whole: dict[str, np.ndarray] = {}
    count_bins(whole, values, names, 1.0)
    parts = []
    for i in range(0, 300, 70):
        part: dict[str, np.ndarray] = {}
        count_bins(part, values[i : i + 70], names[i : i + 70], 1.0)
        parts.append(as_json(part))
    assert list(as_json(whole)) == ["a", "b"]
    assert as_json(merged(parts)) == as_json(whole)
    assert as_json(merged(reversed(parts))) == as_json(whole)
    assert (whole["a"] == histogram(values[np.array(names) == "a"])).all()


def test_the_same_scores_have_not_drifted():
    counts = histogram(np.random.default_rng(2).uniform(size=5_000))
    assert (drift(counts, counts).psi, drift(counts, counts).ks) == (0.0, 0.0)
    assert drift(7 * counts, counts).psi == pytest.approx(0.0, abs=1e-12)


def test_drift_of_a_case_done_by_hand():
    """The reference spreads over ten scores; the new dump has 30 in the lowest tenth and 10 less in the two highest."""
    ten = np.linspace(0.05, 0.95, 10)
    old, new = histogram(np.repeat(ten, 10)), histogram(np.repeat(ten, [30, 10, 10, 10, 10, 10, 10, 10, 0, 0]))
    found = drift(new, old)
    expected = (0.3 - 0.1) * np.log(3) + 2 * (0.005 - 0.1) * np.log(0.005 / 0.1)  # half a document
    assert found.psi == pytest.approx(expected)
    assert found.ks == pytest.approx(0.2)
    assert found.total == 100
    assert found.chance == pytest.approx((1 / 100 + 1 / 100) * stats.chi2.ppf(0.999, 9))
    assert found.exceeds(0.1)
    assert not found.exceeds(found.psi)
    assert found.exceeds(found.psi - 1e-9)


@pytest.mark.parametrize("size", [40, 400, 4000])
def test_few_documents_raise_no_alarm_by_chance_alone(size):
    draw = np.random.default_rng(3)
    old = histogram(draw.uniform(size=5_000))
    found = [drift(histogram(draw.uniform(size=size)), old) for _ in range(100)]
    assert sum(f.exceeds(0.0) for f in found) <= 2
    if size == 40:
        assert sum(f.psi > 0.1 for f in found) > 50, "the index alone would name most of them"
    moved = drift(histogram(draw.beta(2, 1, size=size)), old)
    assert moved.exceeds(0.1) == (size > 40)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.lists(st.floats(0, 1), min_size=2, max_size=40))
@settings(max_examples=40)
def test_ks_is_what_scipy_finds_for_the_bins(one, other):
    expected = ks_2samp(bins(np.array(one), 1.0), bins(np.array(other), 1.0), method="asymp").statistic
    assert drift(histogram(one), histogram(other)).ks == pytest.approx(expected)
    assert drift(histogram(one), histogram(other)).psi >= 0
