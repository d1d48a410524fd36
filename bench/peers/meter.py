"""What every engine of `bench.train_step` does alike: time each step, and report on the last line of stdout.

Standard library only, because peers import it in their own environments.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

WARM_UP = 3  # steps before the clock starts: compilation, first touch of memory, caches


class Meter:
    """Runs steps that return their loss, and keeps what they took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.losses: list[float] = []

    def measure(self, step: Callable[[], float]) -> None:
        began, cpu_began = time.perf_counter(), time.process_time()
        self.losses.append(step())
        self.seconds.append(time.perf_counter() - began)
        self.cpu_seconds.append(time.process_time() - cpu_began)

    def report(self) -> None:
        """Seconds of the timed steps, all losses, and the most memory that was ever resident."""
        found = {
            "seconds": self.seconds[WARM_UP:],
            "cpu_s": self.cpu_seconds[WARM_UP:],
            "losses": self.losses,
            "peak_mb": peak_mb(),
        }
        print("\n" + json.dumps(found), flush=True)


def peak_mb() -> float:
    """Not from getrusage, which counts what the parent held when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
