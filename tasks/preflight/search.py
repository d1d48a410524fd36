"""Which batch and which remat policy: tried by compiling, because only the compiler knows what fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.preflight.estimate import Estimate

Try = Callable[[int, str], Estimate]  # (rows at once, remat) -> what became of it


@dataclass(frozen=True)
class Found:
    """What the search ends with. None where nothing that was tried fits."""

    best: Estimate | None
    """The most tokens per second."""
    largest: Estimate | None
    """The most rows of a device at once; of equal ones the fastest."""
    trials: tuple[Estimate, ...]
    complete: bool
    """Whether everything that could be better was tried."""


def search(attempt: Try, policies: Sequence[str], *, first: Sequence[Estimate], most_rows: int, compiles: int) -> Found:
    """Try policies that keep more and batches that are larger, and stop where memory ends.

    Args:
        policies: by the memory that they keep, least first; what does not fit under one fits under none after it.
        first: what was tried before, which counts but is not tried again.
        compiles: most programs to try.
    """
    tried = {(round(one.rows_at_once), one.remat): one for one in first if one.rows_at_once == round(one.rows_at_once)}
    left = compiles
    rows, complete = 1, True
    while rows <= most_rows:
        fitted = False
        for policy in policies:
            if (rows, policy) not in tried:
                if left == 0:
                    complete = False
                    break
                left -= 1
                tried[rows, policy] = attempt(rows, policy)
            if not tried[rows, policy].fits:
                break
            fitted = True
        if not fitted:
            break
        rows *= 2
    trials = tuple(tried.values())
    fitting = [one for one in trials if one.fits]
    return Found(
        best=max(fitting, key=_speed, default=None),
        largest=max(fitting, key=lambda one: (one.rows_at_once, _speed(one)), default=None),
        trials=tuple(sorted(trials, key=lambda one: (one.rows_at_once, policies.index(one.remat)))),
        complete=complete,
    )


def _speed(one: Estimate) -> float:
    return one.time.tokens_per_s_per_chip if one.time else 0.0
