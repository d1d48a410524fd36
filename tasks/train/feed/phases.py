"""A curriculum in the feed: which source a stream takes from when the mixture changes on the way."""

from collections.abc import Mapping, Sequence
from typing import Any


def lagging_source(phases: Sequence[Sequence[int]], tokens: Sequence[int], streams: int) -> int:
    """The source that lags most behind its budget, among those of the phase that a stream is in.

    A stream is as far as the tokens it took; one of several streams has an equal part of every budget. A phase ends
    with the document that fills it, its shares hold to within a document, and a source is never taken in a phase that
    does not have it. Behind the last phase its shares go on. Whole numbers only, so the answer is the same everywhere.

    Args:
        phases: For each phase the tokens that each source gives in it, in the whole mixture; no phase is empty.
        tokens: What the stream took of each source so far.
    """
    at = sum(tokens) * streams
    number, start, before = 0, 0, [0] * len(tokens)
    while number < len(phases) - 1 and at >= start + sum(phases[number]):
        start += sum(phases[number])
        before = [have + more for have, more in zip(before, phases[number], strict=True)]
        number += 1
    budgets = phases[number]
    size = sum(budgets)
    lag = {
        i: before[i] * size + budget * (at + streams - start) - tokens[i] * streams * size
        for i, budget in enumerate(budgets)
        if budget
    }
    return max(lag, key=lambda i: (lag[i], -i))


def unreached(mixture: Mapping[str, Any], tokens: int) -> list[str]:
    """Names of the phases of a mixture that a run of so many tokens ends before."""
    found: list[str] = []
    start = 0
    for phase in mixture.get("phases", ()):
        if start >= tokens and phase["total_tokens"]:
            found.append(phase["name"])
        start += phase["total_tokens"]
    return found
