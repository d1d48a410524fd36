"""Figures against hand-computed cases, the definitions written out slowly, and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.classify.metrics import accuracy, auc, confusion, f1, quadratic_kappa, reliability

pairs = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40)


def test_confusion_accuracy_and_f1_of_a_case_done_by_hand():
    table = confusion(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2]), 3)
    assert table.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert accuracy(table) == pytest.approx(4 / 6)
    assert f1(table) == pytest.approx([4 / 5, 2 / 4, 2 / 3])


def test_a_label_that_never_stands_and_is_never_said_has_no_f1():
    assert f1(confusion(np.array([0, 1]), np.array([0, 1]), 3)) == [1.0, 1.0, 0.0]


@given(pairs)
@settings(max_examples=60)
def test_auc_is_the_share_of_pairs_in_the_right_order(rows):
    score, positive = np.array([s for s, _ in rows], float), np.array([p for _, p in rows])
    found = auc(score, positive)
    wins = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    assert found == (pytest.approx(np.mean(wins)) if wins else None)
    if wins:
        u = stats.mannwhitneyu(score[positive], score[~positive], method="asymptotic").statistic
        assert found == pytest.approx(u / len(wins))


def test_quadratic_kappa_of_a_case_done_by_hand():
    # Weights 0, 1, 4. Seen: 2 x 1 = 2. By chance: rows (3, 2, 1), columns (2, 2, 2), over 6:
    # 1 x (3*2 + 2*2 + 2*2 + 1*2) + 4 x (3*2 + 1*2) = 16 + 32 = 48, over 6 = 8.
    table = np.array([[2, 1, 0], [0, 1, 1], [0, 0, 1]])
    assert quadratic_kappa(table) == pytest.approx(1 - 2 / 8)


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        pytest.param([[5, 0], [0, 5]], 1.0, id="agreement"),
        pytest.param([[0, 5], [5, 0]], -1.0, id="the opposite"),
        pytest.param([[1, 1], [1, 1]], 0.0, id="chance"),
        pytest.param([[5, 0], [0, 0]], None, id="neither varies"),
    ],
)
def test_quadratic_kappa_at_its_ends(table, kappa):
    assert quadratic_kappa(np.array(table)) == (kappa if kappa is None else pytest.approx(kappa))


def test_reliability_of_a_case_done_by_hand():
    said = np.array([0.05, 0.15, 0.15, 0.95, 1.0])
    found = reliability(said, np.array([False, True, False, True, True]))
    assert found.counts == (1, 2, 0, 0, 0, 0, 0, 0, 0, 2)
    assert found.confidence[1] == pytest.approx(0.15)
    assert found.accuracy[:2] == (0.0, 0.5)
    assert found.error == pytest.approx((1 * 0.05 + 2 * 0.35 + 2 * 0.025) / 5)
    assert found.brier == pytest.approx(np.mean([0.05**2, 0.85**2, 0.15**2, 0.05**2, 0]))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
@settings(max_examples=60)
def test_reliability_is_what_a_loop_over_bins_finds(rows):
    found = reliability(np.array([p for p, _ in rows]), np.array([h for _, h in rows]))
    error = 0.0
    for place in range(10):
        mine = [(p, h) for p, h in rows if min(int(p * 10), 9) == place]
        assert found.counts[place] == len(mine)
        if mine:
            error += abs(sum(h for _, h in mine) - sum(p for p, _ in mine)) / len(rows)
    assert found.error == pytest.approx(error, abs=1e-9)
    assert found.brier == pytest.approx(sum((p - h) ** 2 for p, h in rows) / len(rows))


def test_an_honest_classifier_has_almost_no_calibration_error_and_a_boastful_one_has():
    draw = np.random.default_rng(0)
    said = draw.uniform(size=20_000)
    happened = draw.uniform(size=20_000) < said
    assert reliability(said, happened).error < 0.02
    assert reliability(np.where(said > 0.5, 1.0, 0.0), happened).error > 0.2
