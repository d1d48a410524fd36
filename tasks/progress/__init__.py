"""How far a long piece of work is: rate and time left, on stderr and to whoever listens."""

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LINE_EVERY_S = 5.0
TTY_EVERY_S = 0.2
RATE_WINDOW_S = 30.0  # the rate is the mean of the last half minute, so that it follows a change of speed


@dataclass(frozen=True)
class Progress:
    """A snapshot. `total` and `eta_s` are None when unknown; `rate` is units a second."""

    label: str
    done: float
    total: float | None
    unit: str
    rate: float
    eta_s: float | None
    elapsed_s: float
    note: str = ""
    finished: bool = False

    @property
    def fraction(self) -> float | None:
        """Between 0 and 1, None when the total is unknown."""
        return min(1.0, self.done / self.total) if self.total else None

    def __str__(self) -> str:
        of = f"/{self.total:,.0f}" if self.total is not None else ""
        share = f" {self.fraction:.0%}" if self.fraction is not None else ""
        left = f", {_clock(self.eta_s)} left" if self.eta_s is not None and not self.finished else ""
        took = f", took {_clock(self.elapsed_s)}" if self.finished else ""
        note = f", {self.note}" if self.note else ""
        return (
            f"{self.label}: {self.done:,.0f}{of} {self.unit}{share}, {_rate(self.rate)} {self.unit}/s{left}{took}{note}"
        )


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []
_lock = threading.Lock()


@contextlib.contextmanager
def listen(callback: Listener) -> Iterator[None]:
    """Send every snapshot of this process to the callback (a few a second at most) while the block runs."""
    with _lock:
        _listeners.append(callback)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(callback)


class Bar:
    """The progress of one piece of work; safe to advance from several threads."""

    def __init__(self, label: str, total: float | None, unit: str):
        self._label, self._unit = label, unit
        self._began = time.monotonic()
        self._samples: deque[tuple[float, float]] = deque([(self._began, 0.0)])
        self._first = 0.0
        self._lock = threading.Lock()
        self._shown = self._told = 0.0
        self.total = total
        self.done = 0.0
        self.note = ""

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        """Add to what is done."""
        with self._lock:
            self.done += amount
            if note is not None:
                self.note = note
        self._tell()

    def resume(self, done: float) -> None:
        """Say what was done before, or while starting: it counts for the share, not for the rate."""
        with self._lock:
            self.done += done
            self._samples = deque([(time.monotonic(), self.done)])
            self._first += done
        self._tell()

    def snapshot(self, finished: bool = False) -> Progress:
        """Where the work is now."""
        now = time.monotonic()
        with self._lock:
            self._samples.append((now, self.done))
            while len(self._samples) > 2 and now - self._samples[0][0] > RATE_WINDOW_S:
                self._samples.popleft()
            began, first = (self._began, self._first) if finished else self._samples[0]
            rate = (self.done - first) / max(now - began, 1e-9) if self.done > first else 0.0
            left = None
            if self.total is not None and rate > 0:
                left = max(0.0, self.total - self.done) / rate
            return Progress(
                self._label, self.done, self.total, self._unit, rate, left, now - self._began, self.note, finished
            )

    def close(self) -> None:
        """Tell the last state."""
        self._tell(finished=True)

    def _tell(self, finished: bool = False) -> None:
        now = time.monotonic()
        tty = sys.stderr.isatty()
        show = finished or now - max(self._shown, self._began if not tty else 0) >= (
            TTY_EVERY_S if tty else LINE_EVERY_S
        )
        tell = finished or now - self._told >= TTY_EVERY_S
        if not (show or tell):
            return
        state = self.snapshot(finished)
        if show:
            self._shown = now
            _show(state, tty)
        if tell:
            self._told = now
            with _lock:
                listeners = tuple(_listeners)
            for callback in listeners:
                callback(state)


@contextlib.contextmanager
def track(label: str, total: float | None = None, unit: str = "rows") -> Iterator[Bar]:
    """`with track("clean ja", 120, "pages") as bar: bar.advance(1)`.

    On a terminal one line is rewritten; elsewhere a line is written every LINE_EVERY_S seconds and one at the end.
    """
    bar = Bar(label, total, unit)
    try:
        yield bar
    finally:
        bar.close()


def _show(state: Progress, tty: bool) -> None:
    if tty:
        sys.stderr.write(f"\r\x1b[2K{state}" + ("\n" if state.finished else ""))
    else:
        sys.stderr.write(f"{state}\n")
    sys.stderr.flush()


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
