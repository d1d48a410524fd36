"""Runs on machines that are taken away, against theory and against a clock that is stepped through second by second."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.preflight.interruptions import (
    Interruptions,
    Run,
    Seconds,
    attempt,
    best_interval,
    expect,
    simulate,
)

RUN = Run(steps=5_000, step_s=10.0, start_s=200.0, restore_s=60.0, stall_s=5.0, save_s=0.0)
FAULTS = Interruptions(mean_hours_between=4.0, notice_fraction=0.0, wait_s=0.0)


def daly(run: Run, mean_s: float, every: int) -> float:
    """Expected seconds of a run whose faults come at any time, also in a restart (Daly, FGCS 2006, equation 13)."""
    work_s = every * run.step_s
    restart_s = run.start_s + run.restore_s
    rounds = run.steps / every
    return mean_s * math.exp(restart_s / mean_s) * (math.exp((work_s + run.stall_s) / mean_s) - 1) * rounds


@pytest.mark.parametrize("every", [10, 100, 1_000])
def test_faults_cost_what_daly_says(every):
    found = expect(RUN, FAULTS, every, draws=400)
    # Daly's run pays for a restart at its beginning only in the factor of each round.
    expected = daly(RUN, 4.0 * 3600, every)
    assert found.seconds.total == pytest.approx(expected, rel=0.03)


def test_the_best_interval_is_daly_s():
    mean_s = FAULTS.mean_hours_between * 3600
    grid = range(1, 1_000)
    theory = min(grid, key=lambda every: daly(RUN, mean_s, every))
    best = best_interval(RUN, FAULTS)
    assert daly(RUN, mean_s, best.save_every_steps) == pytest.approx(daly(RUN, mean_s, theory), rel=0.002)
    assert 0.5 < best.save_every_steps / theory < 2


def test_without_interruptions_only_steps_saves_and_one_start_are_paid():
    calm = Interruptions(mean_hours_between=1e9)
    found = expect(replace(RUN, save_s=30.0), calm, 500, draws=2)
    assert asdict(found.seconds) == {
        "step": 50_000.0, "save_stall": 10 * 5.0 + 30.0, "start_up": 200.0, "restore": 0.0, "lost": 0.0, "waiting": 0.0
    }  # fmt: skip


def test_a_save_slower_than_the_steps_between_two_is_waited_for():
    slow = replace(RUN, steps=100, stall_s=1.0, save_s=45.0)
    _, seconds = attempt(slow, 0, 2, math.inf, 0.0)
    # 49 pairs of steps of 20 s wait 25 s more for the save before; the last save is waited for.
    assert seconds.save_stall == pytest.approx(1.0 + 49 * (25.0 + 1.0) + 45.0)


@pytest.mark.parametrize(
    ("until_s", "kept"),
    [
        pytest.param(200 + 100.0 + 5 + 19.9, 0, id="the first save is not whole yet"),
        pytest.param(200 + 100.0 + 5 + 20.0, 10, id="it is whole"),
        pytest.param(200 + 205.0 + 5 + 19.9, 10, id="the second is not whole yet"),
        pytest.param(200 + 205.0 + 5 + 20.0, 20, id="the second is"),
    ],
)
def test_a_fault_goes_back_to_the_newest_whole_save(until_s, kept):
    found, seconds = attempt(replace(RUN, save_s=20.0), 0, 10, until_s, 0.0)
    assert (found, seconds.step, seconds.total) == (kept, 10.0 * kept, pytest.approx(until_s))


@pytest.mark.parametrize(
    ("notice_s", "kept"),
    [pytest.param(7 + 5 + 20.0, 4, id="step and save fit"), pytest.param(7 + 5 + 19.9, 0, id="they do not")],
)
def test_with_notice_no_finished_step_is_lost_if_the_save_fits(notice_s, kept):
    found, seconds = attempt(replace(RUN, save_s=20.0), 0, 10, 200 + 33.0, notice_s)
    assert found == kept
    assert seconds.lost == pytest.approx(0.0 if kept else 33.0)


@given(
    steps=st.integers(1, 60),
    step=st.integers(1, 9),
    every=st.integers(1, 20),
    start=st.integers(0, 30),
    restore=st.integers(0, 30),
    stall=st.integers(0, 9),
    save=st.integers(0, 40),
    at=st.integers(0, 59),
    until=st.integers(1, 400),
    notice=st.sampled_from([0, 5, 30]),
)
def test_an_attempt_ends_as_a_clock_stepped_second_by_second_says(
    steps, step, every, start, restore, stall, save, at, until, notice
):
    run = Run(steps=steps, step_s=step, start_s=start, restore_s=restore, stall_s=stall, save_s=save)
    at %= steps
    kept, seconds = attempt(run, at, every, until + 0.5, notice)
    assert kept == stepped(run, at, every, until + 0.5, notice)
    assert all(value >= 0 for value in asdict(seconds).values())
    assert seconds.step == (kept - at) * step


def stepped(run: Run, at: int, every: int, until_s: float, notice_s: float) -> int:
    """The step that a restart finds: a list of what happens when, and a look at it."""
    clock = run.start_s + (run.restore_s if at else 0)
    if until_s < clock:
        return at
    saves: list[tuple[float, int]] = [(0.0, at)]  # (whole at, step)
    for step in range(at + 1, run.steps + 1):
        clock += run.step_s
        if clock > until_s:  # under way when the interruption came
            whole = max(clock, saves[-1][0]) + run.stall_s + run.save_s
            if whole <= until_s + notice_s:
                return step
            break
        if step % every == 0 or step == run.steps:
            last = run.save_s if step == run.steps else 0
            begun = max(clock, saves[-1][0]) + run.stall_s
            if begun + last > until_s:
                whole = max(until_s, saves[-1][0]) + run.stall_s + run.save_s
                if whole <= until_s + notice_s:
                    return step
                break
            if step == run.steps:
                return step
            saves.append((begun + run.save_s, step))
            clock = begun
    return max(step for whole, step in saves if whole <= until_s)


@given(st.integers(0, 2**31), st.floats(0.05, 50), st.floats(0, 1), st.integers(1, 400))
def test_all_steps_are_done_once_and_every_second_is_accounted_for(seed, hours, noticed, every):
    run = Run(steps=400, step_s=3.0, start_s=20.0, restore_s=5.0, stall_s=1.0, save_s=10.0)
    interruptions = Interruptions(mean_hours_between=max(hours, every * 0.002), notice_fraction=noticed)
    seconds, times = simulate(run, interruptions, every, np.random.default_rng(seed))
    assert seconds.step == pytest.approx(1_200.0)
    assert seconds.waiting == times * interruptions.wait_s
    assert 0 < seconds.goodput <= 1


def test_a_run_that_never_reaches_a_save_says_so():
    hopeless = Interruptions(mean_hours_between=0.01, notice_fraction=0.0)
    with pytest.raises(
        ValueError, match="1000 attempts in a row were interrupted before they could save: 5000 steps of 10 s"
    ):
        simulate(RUN, hopeless, 5_000, np.random.default_rng(0))


def test_seconds_add_up_by_name():
    assert Seconds(step=1, waiting=2) + Seconds(step=3, restore=4) == Seconds(step=4, waiting=2, restore=4)
