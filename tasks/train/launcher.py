"""Has a run trained to its end, however many trainers that takes: follows them and decides what their end means."""

import contextlib
import json
import logging
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tasks.errors import ConfigError, DataFault, HostFault, NestlingError, Preempted
from tasks.progress import Bar, track
from tasks.train.goodput import mark
from tasks.train.live import Live
from tasks.train.run import RunSpec

log = logging.getLogger(__name__)

TAIL_LINES = 15
DONE, PREEMPTED, HOST, DATA, CONFIG = (
    0,
    Preempted.exit_code,
    HostFault.exit_code,
    DataFault.exit_code,
    ConfigError.exit_code,
)


class TrainerError(NestlingError):
    """The trainer stopped on something that nobody foresaw."""


class Launcher(Protocol):
    """Starts one trainer and waits for its end."""

    def run(self, spec: RunSpec, run_json: Path, follow: "Follow") -> int:
        """The exit code; negative for a signal, as subprocess says it."""
        ...


class Follow(Protocol):
    """Called a few times a second while a trainer runs."""

    def __call__(self) -> None: ...


def train_to_the_end(spec: RunSpec, launcher: Launcher, label: str, steps: int) -> int:
    """Run trainers until one finishes; returns how many were started.

    Pre-emptions and host faults are tried again, each with its own budget, which is full again after every new
    checkpoint: a run that gets on is never given up. Data, config and code faults are not tried again.

    Raises:
        DataFault, ConfigError, TrainerError: what the trainer said.
        Preempted, HostFault: a budget is spent.
    """
    run_json = spec.write()
    budgets = {PREEMPTED: spec.config.preempt_budget, HOST: spec.config.fault_budget}
    left = dict(budgets)
    reached, starts = _reached(spec), 0
    live = Live(spec, label, steps)
    with track(label, steps, unit="steps") as bar, contextlib.ExitStack() as at_end:
        at_end.callback(live, is_over=True)
        follow = _Follower(spec.metrics, bar, live)
        follow.resume()
        while True:
            starts += 1
            follow.is_warm = False
            mark(spec.goodput, "launch")
            code = launcher.run(spec, run_json, follow)
            mark(spec.goodput, "end", code=code)
            if code == DONE:
                return starts
            kind = HOST if code < 0 else code
            if kind not in budgets:
                raise _fault(spec, code)
            if _reached(spec) > reached:
                reached, left = _reached(spec), dict(budgets)
            if not left[kind]:
                raise _spent(spec, code, budgets[kind])
            left[kind] -= 1
            log.warning("%s; started again (%s of %s left)", _said(spec, code), left[kind], budgets[kind])


@dataclass
class _Follower:
    """Turns new lines of metrics.jsonl into progress."""

    path: Path
    bar: Bar
    live: Live
    step: int = 0
    offset: int = 0
    is_warm: bool = False  # the first step of a trainer holds its start and its compilation

    def resume(self) -> None:
        """Count what an earlier run did as done."""
        line = self._newest()
        if line is not None:
            self.step = line["step"]
            self.bar.resume(self.step)

    def __call__(self) -> None:
        """Tell the bar about the newest line."""
        line = self._newest()
        if line is not None and line["step"] > self.step:
            loss = "left out" if line["loss"] is None else f"loss {line['loss']:.3f}"
            note = f"{loss}, {line['tokens_per_s']:,.0f} tokens/s"
            if not self.is_warm:
                self.bar.resume(line["step"] - self.step)
            else:
                self.bar.advance(line["step"] - self.step, note=note)
            self.step, self.is_warm = line["step"], True
        self.live()

    def _newest(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        if self.path.stat().st_size < self.offset:  # a resumed trainer took lines away
            self.offset = 0
        with self.path.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.offset += len(whole)
        try:
            return json.loads(whole.splitlines()[-1]) if whole else None
        except ValueError:  # read while it was replaced; read all of it the next time
            self.offset = 0
            return None


def _fault(spec: RunSpec, code: int) -> NestlingError:
    for kind in (DataFault, ConfigError):
        if code == kind.exit_code:
            return kind(_said(spec, code))
    tail = "\n".join(f"  | {line}" for line in _tail(spec.log))
    return TrainerError(
        f"{_said(spec, code)}\n{tail}\nThis is a fault in the program, so it is not tried again. What was trained is "
        f"kept in {spec.run_dir}; please report the lines above."
    )


def _spent(spec: RunSpec, code: int, budget: int) -> NestlingError:
    text = (
        f"{_said(spec, code)} That was number {budget + 1} in a row without a new checkpoint, {budget} are tried "
        f"again. Steps up to {_reached(spec)} are kept in {spec.run_dir}, the same command resumes. Look at "
        f"{spec.log}; raise preempt_budget or fault_budget, or save more often (save_every_steps)."
    )
    return Preempted(text) if code == PREEMPTED else HostFault(text)


def _said(spec: RunSpec, code: int) -> str:
    """What the trainer wrote about its end, or what its exit code means."""
    try:
        return str(json.loads(spec.error.read_text())["message"])
    except (OSError, ValueError, KeyError):
        pass
    if code < 0:
        why = " (memory may have run out)" if code == -signal.SIGKILL else ""
        return f"the trainer was killed by {signal.Signals(-code).name}{why}."
    return f"the trainer ended with exit code {code}."


def _reached(spec: RunSpec) -> int:
    """The newest step with a finished checkpoint."""
    if not spec.checkpoints.is_dir():
        return 0
    return max((int(path.name) for path in spec.checkpoints.iterdir() if path.name.isdigit()), default=0)


def _tail(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    except OSError:
        return []
