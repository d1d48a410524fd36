"""A disk on which the process dies (or the space ends) at the n-th change.

`python -m tests.tasks.artifact.dying_disk FOLDER SHARDS` makes the tiny artifact in FOLDER/store-0, store-1, ..., dying
before change 0, 1, ... of the disk, until one run lives. It forks, so it is a process without JAX and its threads.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tasks.artifact import produce
from tasks.storage import LocalStorage
from tests.tasks.artifact.counting_stage import COUNT, CountingConfig


class Dies(LocalStorage):
    """Calls `fault` at the n-th change and at every one after it."""

    def __init__(self, at: int, fault: Callable[[], None]):
        self.left, self.fault = at, fault

    def step(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.fault()

    def write(self, url: str, source: Any) -> None:
        self.step()
        super().write(url, source)

    def remove(self, url: str) -> None:
        self.step()
        super().remove(url)


def run_with(storage: LocalStorage, store: str, config: CountingConfig) -> None:
    """Make the tiny artifact on that disk."""
    with patch("tasks.storage.LOCAL", storage):
        produce(store, COUNT, "kill", config, {})


def main(folder: str, shards: str) -> None:
    """Print the number of runs that died."""
    at, code = 0, -1
    while code != 0:
        child = os.fork()
        if child == 0:
            try:
                run_with(
                    Dies(at, lambda: os._exit(9)), str(Path(folder, f"store-{at}")), CountingConfig(shards=int(shards))
                )
            except BaseException:
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9), code
        at += 1
    print(at - 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
