"""The trainer processes of one run, one a host: how they meet, wait for one another, and agree to stop."""

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.config import MESH_AXES
from tasks.train.run import RunSpec

COORDINATOR = "NESTLING_COORDINATOR"  # address of the process that introduces the others, host:port
HOSTS, HOST = "NESTLING_HOSTS", "NESTLING_HOST"  # how many processes, and which of them this one is
MEET_S = 600  # hosts start, and compile, at different speeds
PART_S = 3600  # the others wait while the first fetches a checkpoint, writes the result
SILENT_S = 100  # without a sign of life a process counts as dead
_barriers = count()  # the same for all: each reaches all of them in one order


def host_here() -> int:
    """Which trainer of its run this process is."""
    return int(os.environ.get(HOST, "0"))


def error_file(spec: RunSpec, host: int) -> Path:
    """Where a trainer writes why it stopped: the first one where all look."""
    return spec.error if host == 0 else spec.error.with_name(f"error-{host}.json")


def meet() -> None:
    """Join the other trainers if the launcher started any; before JAX touches a device.

    JAX ends a process that does not reach the others with SIGABRT, which counts as a host fault.
    """
    hosts = int(os.environ.get(HOSTS, "1"))
    if hosts == 1:
        return
    # It would take SIGTERM away from us, and it knows of no other notice; `Agreement` takes any.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        os.environ[COORDINATOR],
        hosts,
        host_here(),
        cluster_detection_method="deactivate",  # the launcher knows; nothing is guessed from variables
        initialization_timeout=MEET_S,
        heartbeat_timeout_seconds=SILENT_S,
        shutdown_timeout_seconds=PART_S,
    )


def part() -> None:
    """Wait until every trainer of the run is done: one that leaves early looks dead to the others."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def as_first(numbers: Sequence[int]) -> list[int]:
    """What the first process says: no other looks for itself at files, which it may see later or changed.

    The others wait for it, however long it looks.
    """
    if jax.process_count() == 1:
        return list(numbers)
    wait_for_all("as_first")
    count = int(multihost_utils.broadcast_one_to_all(np.int32(len(numbers))))
    own = np.resize(np.asarray(numbers, np.int32), count)  # of the others only the shape matters
    return [int(number) for number in multihost_utils.broadcast_one_to_all(own)]


def compiled_together(step: Any) -> Any:
    """The jitted step, run for the first time when every process has compiled it: gloo waits for a neighbour 30 s."""
    if jax.process_count() == 1:
        return step
    compiled: list[Any] = []

    def run(*args: Any) -> Any:
        if not compiled:
            compiled.append(step.lower(*args).compile())
            wait_for_all("compiled")
        return compiled[0](*args)

    return run


def wait_for_all(what: str) -> None:
    """Until every process is here; not by a collective, because gloo gives up on a neighbour that is 30 s late."""
    if jax.process_count() > 1:
        # Its import gives the root logger a handler: neither a flow nor a trainer that sets up its log wants that.
        from orbax.checkpoint.multihost import get_barrier_sync_fn

        get_barrier_sync_fn()(key=f"nestling:{what}:{next(_barriers)}", timeout_ms=PART_S * 1000)


class Agreement:
    """Whether any process of the run was told to stop, with the same answer for all of them at the same step.

    Each process adds one bit to every step, or-ed by a program of its own behind that of the step, and read one step
    later, when the numbers of the step are read anyway: no process ever waits for it. JAX's own protocol
    (`reached_preemption_sync_point`) knows only SIGTERM, for which it takes the handler, and no notice of ours.
    """

    def __init__(self, mesh: Mesh | None):
        self._mesh = mesh if jax.process_count() > 1 else None
        self._asked: jax.Array | None = None
        if self._mesh is not None:
            self._each = NamedSharding(self._mesh, PartitionSpec(MESH_AXES))
            all_of_them = NamedSharding(self._mesh, PartitionSpec())
            # `after` is not used: it keeps the collectives of two programs in one order on every device.
            self._or = jax.jit(lambda bits, after: jnp.max(bits), out_shardings=all_of_them, keep_unused=True)

    def __call__(self, told: bool, after: jax.Array) -> bool:
        """Whether to stop now; a process alone stops at once, several do a step after the first was told.

        `after` is any result of the step that was just given to the devices.
        """
        if self._mesh is None:
            return told
        bits = jax.make_array_from_callback((self._mesh.size,), self._each, lambda _: np.array([told], np.int32))
        asked, self._asked = self._asked, self._or(bits, after)
        return asked is not None and bool(jax.device_get(asked))
