"""Where the time of a run went: every second from its first launch on, under exactly one cause.

`goodput.jsonl` is a list of marks, written by the launcher and by the trainers one after another, never changed. The
time between two marks is split by what the later one says was spent, and the rest goes to the cause that its kind
stands for; so the causes add up to the whole by construction. Time is taken from the monotonic clock, which all
processes of one boot share and nobody can set; only across a reboot, or on another machine, from the wall clock, where
a jump backwards counts as nothing. The vocabulary is that of Google's ml-goodput-measurement.
"""

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

# Named and coloured in tasks/page/goodput.py: steps that count, those done again, waiting for data, stalled by a save,
# compiling, restoring, starting up, waiting for machines, anything else.
CAUSES = ("step", "lost", "data_wait", "save_stall", "compile", "restore", "start_up", "waiting", "other")
REST = {"launch": "waiting", "start": "start_up", "resume": "start_up", "steps": "other", "end": "other"}
FLUSH_S = 1.0

Marks = Sequence[Mapping[str, Any]]


def mark(path: Path, what: str, **facts: Any) -> None:
    """Add one mark of a kind in REST. One write, so that marks of two processes never mix."""
    line = {"what": what, **now(), **facts}
    text = json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n"
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":  # what a kill cut off ends here
            text = "\n" + text
        os.write(file, text.encode())
    finally:
        os.close(file)


def now() -> dict[str, Any]:
    """The clocks."""
    return {"boot": _boot(), "mono": round(time.monotonic(), 4), "wall": round(time.time(), 3)}


class Laps:
    """A trainer's stopwatch: each lap goes to one cause, and about once a second they become a mark."""

    def __init__(self, path: Path, *, writes: bool = True):
        """Of several trainers of a run only the first writes."""
        self._path, self._writes = path, writes
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._last = self._flushed = time.monotonic()

    def lap(self, cause: str) -> None:
        """All time since the lap before was spent on this."""
        at = time.monotonic()
        self._spent[cause] += at - self._last
        self._last = at

    def reached(self, step: int, *, must_write: bool = False) -> None:
        """A step is finished: write down the laps up to it if it is time to."""
        if self._writes and self._spent and (must_write or self._last - self._flushed >= FLUSH_S):
            mark(self._path, "steps", step=step, spent={cause: round(s, 5) for cause, s in self._spent.items()})
            self._spent.clear()
            self._flushed = self._last


def read_marks(path: Path) -> list[dict[str, Any]]:
    """The marks of a run, without the pieces of lines that kills left."""
    found: list[dict[str, Any]] = []
    for text in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("what") in REST and {"boot", "mono", "wall"} <= line.keys():
            found.append(line)
    return found


@dataclass(frozen=True)
class Goodput:
    """The account of a run."""

    seconds: dict[str, float]
    """By cause, in the order of CAUSES."""
    launches: int
    ends: dict[str, int]
    """How often each exit code."""

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def facts(self, devices: int, usd_per_device_hour: float | None, watts_per_device: float | None) -> dict[str, Any]:
        """For the artifact: seconds by cause, goodput, and what it cost. A machine that is waited for costs nothing."""
        hours = devices * (self.total - self.seconds["waiting"]) / 3600
        found: dict[str, Any] = {
            "goodput": round(self.seconds["step"] / self.total, 4) if self.total else 0.0,
            "total_seconds": round(self.total, 3),
            "seconds": {cause: round(seconds, 3) for cause, seconds in self.seconds.items()},
            "launches": self.launches,
            "ends": self.ends,
            "device_hours": round(hours, 4),
        }
        if usd_per_device_hour is not None:
            found["usd"] = round(hours * usd_per_device_hour, 4)
        if watts_per_device is not None:
            found["kwh"] = round(hours * watts_per_device / 1000, 5)
        return found


def account(marks: Marks) -> Goodput:
    """Add the marks up. The seconds are exactly those from the first mark to the last."""
    seconds: dict[str, float] = dict.fromkeys(CAUSES, 0.0)
    done: list[tuple[int, dict[str, float]]] = []  # steps of earlier marks that a later resume may make lost
    for before, this in pairwise(marks):
        passed = elapsed(before, this)
        spent = _within(this.get("spent"), passed)
        for cause, value in spent.items():
            seconds[cause] += value
        seconds[_rest(before, this)] += passed - sum(spent.values())
        if this["what"] == "steps":
            done.append((int(this.get("step", 0)), spent))
        elif this["what"] == "resume":
            reached = int(this.get("step", 0))
            for _, again in (entry for entry in done if entry[0] > reached):
                for cause in ("step", "data_wait"):
                    seconds[cause] -= again.get(cause, 0.0)
                    seconds["lost"] += again.get(cause, 0.0)
            done = [entry for entry in done if entry[0] <= reached]
    ends = Counter(str(this["code"]) for this in marks if "code" in this)
    # Subtraction of floats may leave a hair below nothing.
    return Goodput(
        {cause: max(0.0, value) for cause, value in seconds.items()},
        sum(this["what"] == "launch" for this in marks),
        dict(sorted(ends.items())),
    )


def elapsed(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Seconds between two marks, never below 0."""
    clock = "mono" if before["boot"] == after["boot"] else "wall"
    return max(0.0, float(after[clock]) - float(before[clock]))


def _rest(before: Mapping[str, Any], this: Mapping[str, Any]) -> str:
    """The cause of time of which nothing else is known."""
    if this["what"] == "end" and this.get("code", 0) < 0:
        # Struck down: between steps, what was under way is lost; before them, it had not begun.
        return "lost" if before["what"] == "steps" else "start_up"
    return REST[this["what"]]


def _within(spent: Any, passed: float) -> dict[str, float]:
    """What a mark says was spent, which is never more than what passed."""
    found = {
        cause: max(0.0, float(value))
        for cause, value in (spent if isinstance(spent, dict) else {}).items()
        if cause in CAUSES
    }
    total = sum(found.values())
    return {cause: value * min(1.0, passed / total) for cause, value in found.items()} if total else {}


@cache
def _boot() -> str:
    """What the monotonic clock belongs to: this boot of this machine, or this process where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"process {os.getpid()} at {time.time():.0f}"
