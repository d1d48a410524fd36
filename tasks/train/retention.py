"""Which checkpoints stay. `scores.jsonl` in the run directory, if an evaluation writes one, names the best ones:
one line {"step": 500, "score": 0.93} a checkpoint, higher is better."""

from collections.abc import Collection
from pathlib import Path

from tasks.train.journal import lines


def kept(steps: Collection[int], newest: int, *, keep: int, every: int = 0, best: Collection[int] = ()) -> set[int]:
    """The steps of `steps` that stay on one tier.

    They are the last `keep` up to the newest confirmed one, all after it (they may yet become it), those at a multiple
    of `every` (0 is none), and `best`. The newest confirmed one always stays.
    """
    confirmed = sorted(step for step in steps if step <= newest)
    return {
        *(step for step in steps if step > newest),
        *confirmed[-max(1, keep) :],
        *(step for step in confirmed if every and step % every == 0),
        *(step for step in confirmed if step in best),
    }


def best_steps(scores: Path, count: int) -> set[int]:
    """The steps with the highest scores; the last line of a step counts, and of equal ones the later step wins."""
    found = {line["step"]: line["score"] for line in lines(scores) if "score" in line}
    return set(sorted(found, key=lambda step: (found[step], step), reverse=True)[:count])
