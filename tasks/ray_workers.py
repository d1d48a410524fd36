"""Shards as tasks of a Ray cluster: the same function as in a local process, one task a shard, no object store.

A task gets the key of a shard and the URLs that its function carries, and returns nothing, so a node that dies takes no
result with it. Ray gives the shard to another node; what the dead one had committed is seen in the ledger.
"""

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tasks.artifact import Workspace
from tasks.errors import ConfigError, HostFault
from tasks.shard_workers import AHEAD, Opener, ShardJob, Workers, do_shard
from tasks.storage import is_local

RETRIES = 5  # of one shard whose node or process died; a sixth death is the shard's own doing, mostly its memory
CONNECT_S = 10
PACKAGES = ("tasks", "model")  # sent to the nodes, so that all of a run is made by one commit
_ROOT = Path(__file__).resolve().parents[1]


def in_cluster(workspace: Workspace, job: ShardJob, todo: Sequence[str], workers: Workers) -> Iterator[str]:
    """The keys of the shards, each when a node has done it.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConfigError: no cluster is there, or its nodes cannot see the store.
        HostFault: a shard's worker died RETRIES + 1 times, or the cluster is lost.
        Exception: what the function raised on a shard.
    """
    ray = _import_ray()
    with _connected(ray):
        _require_shared(workspace.url, _hosts(ray), workers.shared_disk)
        task = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=False)(shard_task)
        waiting = iter(todo)
        running: dict[Any, str] = {}
        try:
            while True:
                for key in itertools.islice(waiting, _most_running(ray, workers) - len(running)):
                    running[task.remote(workspace, job.open_work, key)] = key
                if not running:
                    return
                for reference in ray.wait(list(running), num_returns=1)[0]:
                    _result(ray, reference, job, running[reference])
                    yield running.pop(reference)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


def shard_task(workspace: Workspace, open_work: Opener, key: str) -> None:
    """On a node: one shard, unless the node that had it before died only after it was committed."""
    if workspace.unit_record(key) is None:
        do_shard(workspace.ticket.holder, open_work, key)


def _result(ray: Any, reference: Any, job: ShardJob, key: str) -> None:
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # the function's own error, with the trace of the node in its text
    except ray.exceptions.RayError as error:
        raise HostFault(
            f"{job.label}: shard {key} ended {RETRIES + 1} times with the process or node that had it "
            f"({type(error).__name__}: {str(error)[:300]}): usually memory ran out. Finished shards are kept. Give the "
            "nodes more memory for each CPU, or make the shards smaller, and run again."
        ) from error


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ModuleNotFoundError(
            "runner='ray' needs ray, which the [ray] extra brings. Install it with: pip install -e '.[ray]'", name="ray"
        ) from error


@contextlib.contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """In a Ray session: the caller's, or one on the cluster at $RAY_ADDRESS (else on the one of this machine)."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _answers(address)
        ray.init(
            address=address,
            runtime_env={"py_modules": [str(_ROOT / name) for name in PACKAGES]},
            logging_level="warning",
        )
    except OSError as error:  # a ConnectionError too
        raise ConfigError(
            f"RAY_ADDRESS={address!r}: no Ray cluster answers ({error}): runner='ray' uses a cluster that is there and "
            "starts none. Start one (ray start --head --disable-usage-stats; on GKE see docs/operations.md), set "
            "RAY_ADDRESS, or use runner='local'."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """Connect to HOST:PORT and hang up: Ray itself waits for minutes where nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), CONNECT_S).close()


def _most_running(ray: Any, workers: Workers) -> int:
    """Tasks to have handed out now. Those that wait are the demand by which an autoscaled cluster grows."""
    return workers.num or AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))


def _hosts(ray: Any) -> set[str]:
    return {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}


def _require_shared(url: str, hosts: set[str], shared_disk: bool) -> None:
    others = sorted(hosts - {socket.gethostname()})
    if url.startswith("memory://") or (is_local(url) and others and not shared_disk):
        raise ConfigError(
            f"store {url} with Ray on {', '.join(sorted(hosts))}: every node writes its shards to the store itself, "
            "and this one is seen by a single machine or process. Use a bucket (gs://…), or set shared_disk=true when "
            "that path is the same disk on every node."
        )
