"""Ends a trainer that does not get on: a host that hangs in a collective would hang the others for ever."""

import faulthandler
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)

PATIENCE = 6.0  # times the bound while more than a step is due: start, compilation, restore, save, export


class Watchdog:
    """Calls `bite(message)` once, from a thread of its own, when a beat is overdue; the stacks are then in the log."""

    def __init__(self, bound_s: float, bite: Callable[[str], None]):
        """A step has `bound_s` seconds; start, a step with a save, and end have PATIENCE times as many."""
        self._bound_s, self._bite = bound_s, bite
        self._steps = 0
        self._closed = threading.Event()
        self._allowed = time.monotonic(), PATIENCE * bound_s  # since when, how long
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def beat(self, is_stepping: bool) -> None:
        """A step is done; `is_stepping` says whether nothing but another comes next."""
        self._steps += 1
        self._allowed = time.monotonic(), self._bound_s if is_stepping else PATIENCE * self._bound_s

    def _watch(self) -> None:
        while True:
            since, allowed_s = self._allowed
            waited_s = time.monotonic() - since
            if waited_s > allowed_s:
                break
            if self._closed.wait(min(1.0, allowed_s - waited_s + 0.01)):
                return
        sys.stderr.write(_stacks())
        sys.stderr.flush()
        self._bite(
            f"no step was finished for {waited_s:.0f} s (step_timeout_s={self._bound_s:g}; {self._steps} steps in this "
            "process so far): a device, a network or another host hangs. The stacks of all threads are in the log. "
            "Steps up to the newest checkpoint are safe; the same command resumes. If steps do take that long, raise "
            "step_timeout_s."
        )


def _stacks() -> str:
    """Where every thread is, as one text: the processes of a run share a log."""
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
