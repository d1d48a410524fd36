"""How a run fares on machines that are taken away: goodput, days, and how often to save.

Attempt after attempt is drawn: the machines start, compile and restore, train and save until they are taken away, and
come back after a while. Interruptions have no memory (times between them are exponential).
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tasks.preflight.slices import GIB, Slice

DRAWS = 100  # runs that an expectation is the mean of
MOST_SAVES = 2_000  # of a run, in the search for the best interval
MOST_IN_VAIN = 1_000  # attempts without a save
HOST_CHIPS = 4  # of a slice of more than one host


class Interruptions(BaseModel):
    """How often machines are taken away, and what coming back takes. All defaults are assumptions: put yours in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean_hours_between: float = Field(default=24.0, gt=0, description="Mean time between interruptions of the slice.")
    notice_fraction: float = Field(
        default=0.8, ge=0, le=1, description="Part of the interruptions that come with notice; the rest are faults."
    )
    notice_s: float = Field(default=30.0, ge=0, description="From a notice to the end.")
    wait_s: float = Field(default=900.0, ge=0, description="Until there are machines again.")
    start_s: float = Field(default=240.0, ge=0, description="Start-up and compilation of an attempt.")
    device_gigabytes_per_s: float = Field(
        default=4.0, gt=0, description="From a chip to its host's memory; meanwhile no step runs."
    )
    storage_gigabytes_per_s: float = Field(
        default=1.0, gt=0, description="From a host to the bucket and back; bench.checkpoint measures that of a disk."
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as the simulation sees it."""

    steps: int
    step_s: float
    start_s: float
    restore_s: float
    stall_s: float
    """What steps wait for, each save."""
    save_s: float
    """From the end of the stall until a restart can use the save."""


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Where time goes, by the causes of tasks/train/goodput.py. `step` is goodput, all else badput."""

    step: float = 0.0
    save_stall: float = 0.0
    start_up: float = 0.0
    restore: float = 0.0
    lost: float = 0.0
    waiting: float = 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    @property
    def total(self) -> float:
        return sum(asdict(self).values())

    @property
    def goodput(self) -> float:
        return self.step / self.total


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Means over the runs that were drawn."""

    save_every_steps: int
    interruptions: float
    seconds: Seconds


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """A run saved as it is configured, and as often as would be best."""

    run: Run
    own: Expected
    best: Expected


def expect(run: Run, interruptions: Interruptions, every: int, *, seed: int = 0, draws: int = DRAWS) -> Expected:
    """What a run takes in the mean when it is saved every so many steps. A seed draws the same interruptions again."""
    sums, times = Seconds(), 0
    for draw in range(draws):
        spent, interrupted = simulate(run, interruptions, every, np.random.default_rng([seed, draw]))
        sums, times = sums + spent, times + interrupted
    mean = Seconds(**{name: value / draws for name, value in asdict(sums).items()})
    return Expected(save_every_steps=every, interruptions=times / draws, seconds=mean)


def best_interval(run: Run, interruptions: Interruptions, *, seed: int = 0) -> Expected:
    """The interval with the most goodput of a geometric grid, each tried on the same interruptions."""
    found: Expected | None = None
    for every in sorted({round(every) for every in np.geomspace(max(1, run.steps // MOST_SAVES), run.steps, 24)}):
        try:
            one = expect(run, interruptions, every, seed=seed)
        except ValueError:
            if found is None:  # what saves less often gets nowhere either
                raise
            break
        if found is None or one.seconds.goodput > found.seconds.goodput:
            found = one
    assert found is not None
    return found


def run_on(slice_: Slice, interruptions: Interruptions, *, steps: int, step_s: float, state_gib: float) -> Run:
    """A run whose state (weights and moments) is so large on each device."""
    gigabytes = state_gib * GIB / 1e9
    host_s = gigabytes * slice_.chip.devices * min(HOST_CHIPS, slice_.chips) / interruptions.storage_gigabytes_per_s
    return Run(
        steps=steps,
        step_s=step_s,
        start_s=interruptions.start_s,
        restore_s=host_s,
        stall_s=gigabytes / interruptions.device_gigabytes_per_s,
        save_s=host_s,
    )


def simulate(run: Run, interruptions: Interruptions, every: int, rng: np.random.Generator) -> tuple[Seconds, int]:
    """One run: where its time went, and how often it was interrupted.

    Raises:
        ValueError: no attempt gets as far as its first save.
    """
    at, spent, times, in_vain = 0, Seconds(), 0, 0
    while True:
        until_s = rng.exponential(interruptions.mean_hours_between * 3600)
        notice_s = interruptions.notice_s if rng.random() < interruptions.notice_fraction else 0.0
        reached, seconds = attempt(run, at, every, until_s, notice_s)
        spent += seconds
        if reached == run.steps:
            return spent, times
        spent += Seconds(waiting=interruptions.wait_s)
        at, times, in_vain = reached, times + 1, 0 if reached > at else in_vain + 1
        if in_vain == MOST_IN_VAIN:
            raise ValueError(
                f"{in_vain} attempts in a row were interrupted before they could save: {every} steps of "
                f"{run.step_s:.3g} s between saves, {interruptions.mean_hours_between:.3g} hours between "
                "interruptions. Save more often."
            )


def attempt(run: Run, at: int, every: int, until_s: float, notice_s: float) -> tuple[int, Seconds]:
    """From one start to the end of the run, or to the interruption `until_s` after the start.

    Returns the step that the next start finds (all steps: the run is through) and where the time went.
    """
    restore_s = run.restore_s if at else 0.0
    clock_s = run.start_s + restore_s
    if until_s < clock_s:
        start_s = min(until_s, run.start_s)
        return at, Seconds(start_up=start_s, restore=until_s - start_s)
    step, saved, before = at, at, at  # the newest save and the one before it
    ready_s = waited_s = 0.0  # the newest can be used from ready_s on
    while step < run.steps:
        count = min(every - step % every, run.steps - step)
        if clock_s + count * run.step_s > until_s:
            done = step + math.floor((until_s - clock_s) / run.step_s)
            finished, finished_s = done + 1, clock_s + (done + 1 - step) * run.step_s
            break
        step, clock_s = step + count, clock_s + count * run.step_s
        # One save at a time: steps wait for the one before. The last is waited for as well.
        begun_s = max(clock_s, ready_s) + run.stall_s + (run.save_s if step == run.steps else 0.0)
        if begun_s > until_s:
            waited_s += until_s - clock_s
            finished, finished_s = step, until_s
            break
        waited_s += begun_s - clock_s
        clock_s, before, saved, ready_s = begun_s, saved, step, begun_s + run.save_s
    else:
        steps_s = (run.steps - at) * run.step_s
        return run.steps, Seconds(step=steps_s, save_stall=waited_s, start_up=run.start_s, restore=restore_s)
    # With notice the step under way is finished and saved, if both fit.
    whole_s = max(finished_s, ready_s) + run.stall_s + run.save_s
    if whole_s <= until_s + notice_s:
        kept, waited_s, until_s = finished, waited_s + whole_s - finished_s, whole_s
    else:
        kept = saved if ready_s <= until_s else before
    steps_s = (kept - at) * run.step_s
    lost_s = until_s - run.start_s - restore_s - waited_s - steps_s
    return kept, Seconds(step=steps_s, save_stall=waited_s, start_up=run.start_s, restore=restore_s, lost=lost_s)
