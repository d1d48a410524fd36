"""metrics.jsonl: resumed, broken and empty ones are read for what they are."""

import json
from typing import Any

import pytest

from tasks.report.training import training

NODE: Any = None


def lines(*rows: Any) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def test_a_step_written_twice_by_a_resumed_run_counts_once_as_last_written():
    found = training(NODE, lines({"step": 1, "loss": 9}, {"step": 2, "loss": 8}, {"step": 2, "loss": 7}))
    assert found.steps == 2
    assert found.curve is not None
    assert found.curve.mean == (9, 7)


def test_steps_are_ordered_whatever_the_order_of_lines():
    found = training(NODE, lines({"step": 3, "loss": 1}, {"step": 1, "loss": 3}, {"step": 2, "loss": 2}))
    assert found.curve is not None
    assert found.curve.x == (1, 2, 3)
    assert [mark[:2] for mark in found.marks] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_losses_that_are_not_finite_are_counted_and_left_out():
    found = training(NODE, b'{"step": 1, "loss": NaN}\n{"step": 2, "loss": Infinity}\n{"step": 3, "loss": 2.5}\n')
    assert (found.not_finite, found.last_loss) == (2, 2.5)


def test_unreadable_lines_are_counted_and_blank_ones_are_not():
    found = training(NODE, lines({"step": 1, "loss": 2}, '{"step": 2, "lo', "", "[]", '"text"', "{}"))
    assert (found.steps, found.unreadable) == (1, 4)


def test_nothing_at_all_gives_no_curve():
    found = training(NODE, b"")
    assert found.curve is None
    assert found.last_loss is None
    assert found.marks == ()


@pytest.mark.parametrize(
    ("counts", "total"),
    [
        pytest.param([100, 100, 100], 300, id="each step's own count"),
        pytest.param([100, 90, 110], 300, id="own counts that vary"),
        pytest.param([100, 200, 300], 300, id="a running total"),
        pytest.param([100], 100, id="one step"),
    ],
)
def test_tokens_are_summed_or_read_off_a_running_total(counts, total):
    found = training(NODE, lines(*({"step": i, "loss": 1, "tokens": n} for i, n in enumerate(counts))))
    assert found.tokens == total


def test_first_and_last_loss_are_means_over_a_twentieth():
    found = training(NODE, lines(*({"step": i, "loss": 100 - i} for i in range(100))))
    assert found.first_loss == pytest.approx((100 + 99 + 98 + 97 + 96) / 5)
    assert found.last_loss == pytest.approx((5 + 4 + 3 + 2 + 1) / 5)
    assert found.best_loss == 1


def test_times_and_starts_come_from_what_the_stage_noted():
    noted = {"timings": {"tokens_per_s": 123.0, "data_wait_fraction": 0.25}, "trainer_starts": 3}
    found = training(NODE, lines({"step": 1, "loss": 2}), noted)
    assert (found.tokens_per_s, found.wait_fraction, found.starts) == (123.0, 0.25, 3)
    bare = training(NODE, lines({"step": 1, "loss": 2, "tokens_per_s": 7}), {"timings": "odd"})
    assert (bare.tokens_per_s, bare.wait_fraction, bare.starts) == (7, None, 1)


def test_steps_that_were_left_out_are_counted():
    found = training(NODE, lines({"step": 1, "loss": None, "skipped": "not_finite"}, {"step": 2, "loss": 2.0}))
    assert (found.steps, found.skipped, found.not_finite, found.last_loss) == (2, 1, 0, 2.0)


@pytest.mark.parametrize(
    "noted", [None, "odd", {}, {"seconds": 3}, {"seconds": {"step": "a"}}, {"seconds": {"step": 0.0}}], ids=repr
)
def test_a_run_without_a_sound_account_of_its_time_shows_none(noted):
    assert training(NODE, lines({"step": 1, "loss": 2}), {"goodput": noted}).spent is None


def test_the_account_of_time_is_shown_by_cause():
    noted = {"seconds": {"step": 60.0, "lost": 20.0, "waiting": 20.0}, "launches": 2, "kwh": 0.5}
    spent = training(NODE, lines({"step": 1, "loss": 2}), {"goodput": noted}).spent
    assert spent is not None
    assert (spent.goodput, spent.total_s, spent.launches, spent.usd, spent.kwh) == (0.6, 100.0, 2, None, 0.5)
    assert {part.words: part.share for part in spent.slices if part.share} == {
        "steps that count": 0.6, "steps done again": 0.2, "waiting for machines": 0.2,
    }  # fmt: skip
    assert spent.bar.count("<rect") == 3
