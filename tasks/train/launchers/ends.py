"""How a group of trainers ended, when each ended in its own way: the first end is the cause, the others follow it."""

import signal
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.train.launcher import CONFIG, DATA, DONE, HOST, PREEMPTED

TOGETHER_S = 1.0  # ends closer than this cannot be told apart: a container's end is known to the second


@dataclass(frozen=True)
class End:
    """The end of one trainer."""

    host: int
    code: int
    """As subprocess says it: negative for a signal."""
    at_s: float
    """When, on any clock that all ends of a group share."""


def decisive(ends: Iterable[End]) -> End:
    """The end that stands for the group.

    A trainer whose neighbour is gone fails in a collective, with a host fault or an abort; so among ends that cannot be
    told apart by time those two are the consequence, and what no neighbour can cause is the reason. Pre-empted is said
    by a trainer when all of them have saved, so whatever comes later lost nothing.
    """
    found = sorted(ends, key=lambda end: end.at_s)
    bad = [end for end in found if end.code != DONE]
    if not bad:
        return found[0]
    first = [end for end in bad if end.at_s <= bad[0].at_s + TOGETHER_S]
    return min(first, key=lambda end: (_rank(end.code), end.at_s, end.host))


def _rank(code: int) -> int:
    if code < 0 and code != -signal.SIGABRT:
        return 0  # killed from outside
    return {CONFIG: 1, DATA: 1, PREEMPTED: 3, HOST: 4, -signal.SIGABRT: 4}.get(code, 2)
