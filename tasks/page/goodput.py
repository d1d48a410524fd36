"""Where the time of a training run went, as a page shows it: from the facts that tasks/train/goodput.py leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tasks.page.charts import Part, bar

SHOWN = {  # cause -> words and colour
    "step": ("steps that count", "c0"),
    "lost": ("steps done again", "c1"),
    "data_wait": ("waiting for data", "c2"),
    "save_stall": ("stalled by saves", "c3"),
    "compile": ("compiling", "c4"),
    "restore": ("restoring", "c6"),
    "start_up": ("starting up", "c5"),
    "waiting": ("waiting for machines", "before"),
    "other": ("anything else", "lost"),
}


@dataclass(frozen=True)
class Slice:
    """One cause."""

    words: str
    colour: str
    seconds: float
    share: float


@dataclass(frozen=True)
class TimeSpent:
    """The account of a run; its slices add up to the whole."""

    slices: tuple[Slice, ...]
    total_s: float
    launches: int
    usd: float | None
    kwh: float | None

    @property
    def goodput(self) -> float:
        return self.slices[0].share

    @property
    def shown(self) -> list[Slice]:
        """The causes that took time, and the steps even if there were none."""
        return [part for number, part in enumerate(self.slices) if not number or part.seconds > 0]

    @property
    def bar(self) -> Markup:
        return bar([Part(part.share, part.colour) for part in self.slices])


def time_spent(facts: Any) -> TimeSpent | None:
    """The facts of a run; None when there are none, or they are of another kind."""
    seconds = facts.get("seconds") if isinstance(facts, Mapping) else None
    if not isinstance(seconds, Mapping) or not all(isinstance(seconds.get(cause, 0), (int, float)) for cause in SHOWN):
        return None
    total = sum(seconds.get(cause, 0) for cause in SHOWN)
    if total <= 0:
        return None
    usd, kwh = facts.get("usd"), facts.get("kwh")
    return TimeSpent(
        slices=tuple(
            Slice(words, colour, seconds.get(cause, 0), seconds.get(cause, 0) / total)
            for cause, (words, colour) in SHOWN.items()
        ),
        total_s=total,
        launches=int(facts.get("launches", 1)),
        usd=usd if isinstance(usd, (int, float)) else None,
        kwh=kwh if isinstance(kwh, (int, float)) else None,
    )
