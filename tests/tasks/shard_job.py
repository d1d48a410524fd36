"""A tiny stage done by shard workers, for the proofs: each shard is a file that holds the shard's key in capitals.

A shard whose key names a mishap has it once: `kill-…` ends the worker's process, `fail-…` raises. `die-…` always kills.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tasks.artifact import Artifact, Stage, Workspace, produce
from tasks.config import StageConfig, operational_field
from tasks.errors import DataFault
from tasks.shard_workers import Runner, ShardJob, Work, Workers, each_shard


class ShoutConfig(StageConfig):
    """Knobs of the tiny stage."""

    keys: tuple[str, ...]
    notes: str = operational_field("A folder where workers leave notes.")
    workers: int = operational_field("Shards at a time.", default=1)
    runner: Runner = operational_field("Who works.", default="local")
    shared_disk: bool = operational_field("For a path on several hosts.", default=False)
    seconds: float = operational_field("Time that a shard takes.", default=0.0)


def shout(workspace: Workspace, config: ShoutConfig, inputs: dict[str, Artifact]) -> None:
    """One unit a key."""
    del inputs
    job = ShardJob("shout", {key: len(key) for key in config.keys}, partial(open_shout, workspace, config))
    each_shard(workspace, job, Workers(config.workers, config.runner, config.shared_disk))


@contextlib.contextmanager
def open_shout(workspace: Workspace, config: ShoutConfig) -> Iterator[Work]:
    """In a worker: what makes one shard. A note tells that it was opened."""
    notes = Path(config.notes)
    notes.mkdir(parents=True, exist_ok=True)
    (notes / f"opened-{os.getpid()}").touch()

    def work(key: str) -> None:
        happened = notes / f"happened-{key}"
        if key.startswith("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if key.startswith(("kill", "fail")) and not happened.exists():
            happened.touch()
            if key.startswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            raise DataFault(f"shard {key} is bad")
        with workspace.unit(key) as unit:
            time.sleep(config.seconds)
            unit.write_bytes(f"{key}.txt", key.upper().encode(), rows=1)
            unit.count(1, 1)
        (notes / f"done-{key}-{os.getpid()}-{time.monotonic_ns()}").touch()

    yield work
    (notes / f"closed-{os.getpid()}").touch()


SHOUT = Stage("shout", "1", shout, ("tests.tasks.shard_job",))


def shouted(store: Path | str, config: ShoutConfig) -> Artifact:
    """The artifact of the tiny stage."""
    return produce(str(store), SHOUT, "x", config, {})


def keys(number: int, *mishaps: str) -> tuple[str, ...]:
    """So many keys, with some that have a mishap in between."""
    plain = [f"shard-{i:03}" for i in range(number)]
    return tuple(plain[: number // 2] + list(mishaps) + plain[number // 2 :])
