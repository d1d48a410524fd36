"""Which checkpoints stay."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.train.retention import best_steps, kept


@pytest.mark.parametrize(
    ("newest", "rules", "stay"),
    [
        pytest.param(60, {"keep": 2}, {50, 60}, id="the last two"),
        pytest.param(40, {"keep": 2}, {30, 40, 50, 60}, id="and all that may yet be confirmed"),
        pytest.param(60, {"keep": 1, "every": 30}, {30, 60}, id="and the permanent ones"),
        pytest.param(60, {"keep": 1, "best": {20, 99}}, {20, 60}, id="and the best, if they are there"),
        pytest.param(0, {"keep": 1}, {10, 20, 30, 40, 50, 60}, id="nothing goes before anything is confirmed"),
    ],
)
def test_what_stays(newest, rules, stay):
    assert kept([10, 20, 30, 40, 50, 60], newest, **rules) == stay


@given(
    steps=st.sets(st.integers(1, 60), min_size=1),
    keep=st.integers(1, 5),
    every=st.integers(0, 20),
    best=st.sets(st.integers(1, 60)),
    data=st.data(),
)
def test_the_newest_confirmed_and_all_later_ones_always_stay(steps, keep, every, best, data):
    newest = data.draw(st.sampled_from(sorted(steps)))
    stay = kept(steps, newest, keep=keep, every=every, best=best)
    assert {step for step in steps if step >= newest} <= stay <= steps
    bound = keep + sum(every > 0 and step % every == 0 for step in steps) + len(best)
    assert len([step for step in stay if step <= newest]) <= bound


def test_the_best_are_those_with_the_highest_last_score(tmp_path):
    scores = tmp_path / "scores.jsonl"
    assert best_steps(scores, 2) == set()
    rows = [(10, 0.5), (20, 0.9), (30, 0.7), (40, 0.7), (20, 0.1)]
    text = "".join(json.dumps({"step": step, "score": score}) + "\n" for step, score in rows)
    scores.write_text(text + '{"step": 50, "sco')
    assert best_steps(scores, 1) == {40}
    assert best_steps(scores, 2) == {30, 40}
    assert best_steps(scores, 0) == set()
