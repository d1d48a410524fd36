"""The shards of a stage by many workers: processes of this machine, or tasks of a Ray cluster.

A shard is a unit of work, so what is finished is seen in the ledger: a run that was killed goes on where it was, with
any other number or kind of workers, and ends with the same bytes. A worker gets names and settings and writes to the
store itself; no document passes through the process that hands the shards out. It hands out a few more than there are
workers, so a million shards wait in a list and not in a queue.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Literal

from tasks.artifact import ConservationError, Workspace
from tasks.artifact.ledger import UnitRecord
from tasks.children import die_with
from tasks.errors import HostFault
from tasks.progress import track

AHEAD = 2  # shards handed out for each worker: one that it works on, one that waits for it

Work = Callable[[str], None]  # makes the unit of one shard; called with the shard's key
Opener = Callable[[], AbstractContextManager[Work]]  # picklable; opened once in each worker, for what is dear to start
Runner = Literal["local", "ray"]


@dataclass(frozen=True)
class Workers:
    """Who works on the shards. None of it changes what is made."""

    num: int = 0  # 0 = one a core, of this machine or of the cluster
    runner: Runner = "local"
    shared_disk: bool = False  # ray: a store that is a path is the same disk on every node


@dataclass(frozen=True)
class ShardJob:
    """What is to be done: the shards by key with their size, and how a worker begins."""

    label: str  # as progress and errors name it
    shards: Mapping[str, int]  # key of the unit -> rows, for progress and for the order
    open_work: Opener
    rows: str = "rows"  # what the sizes count


def each_shard(workspace: Workspace, job: ShardJob, workers: Workers) -> None:
    """Do every shard that has no finished unit yet, the long ones first, so that the workers end together.

    Raises:
        HostFault: a worker was killed; finished shards are kept.
        ConfigError: the cluster is not there, or its nodes cannot see the store.
        ModuleNotFoundError: runner="ray" without Ray.
    """
    done = workspace.finished(job.shards)
    todo = [key for key in job.shards if key not in done]
    todo.sort(key=lambda key: (-job.shards[key], key))
    with track(job.label, sum(job.shards.values()), job.rows) as bar:
        bar.resume(sum(job.shards.values()) - sum(job.shards[key] for key in todo))
        for key in _run(workspace, job, todo, workers):
            bar.advance(job.shards[key])


def require_every_row(label: str, expected: int, records: Iterable[UnitRecord]) -> None:
    """See that the units together took in as many rows as the inputs' manifests say there are.

    A unit counts what it was given to read; only this finds rows that no unit was given.

    Raises:
        ConservationError: rows are missing, or were read twice.
    """
    counted = sum(record.counts.in_ for record in records)
    if counted != expected:
        raise ConservationError(
            f"{label}: the inputs hold {expected:,} rows, the units took in {counted:,}: every row is kept or dropped "
            "with a reason, once, because silent loss is the most expensive fault. This is a fault of the stage: "
            "report it with the ledger of this artifact."
        )


def _run(workspace: Workspace, job: ShardJob, todo: Sequence[str], workers: Workers) -> Iterator[str]:
    """The keys of the shards, each when it is done."""
    if workers.runner == "ray" and todo:
        from tasks.ray_workers import in_cluster  # Ray takes seconds to import, and few runs want it

        return in_cluster(workspace, job, todo, workers)
    num = min(workers.num or os.cpu_count() or 1, len(todo))
    if num <= 1 or workspace.url.startswith("memory://"):  # a store in memory is seen by this process alone
        return _here(job, todo)
    return _in_processes(workspace, job, todo, num)


def _here(job: ShardJob, todo: Sequence[str]) -> Iterator[str]:
    if not todo:
        return
    with job.open_work() as work:
        for key in todo:
            work(key)
            yield key


def _in_processes(workspace: Workspace, job: ShardJob, todo: Sequence[str], num: int) -> Iterator[str]:
    waiting = iter(todo)
    running: dict[Future[None], str] = {}
    run = workspace.ticket.holder
    with process_pool(num, job.label) as pool:
        while True:
            for key in itertools.islice(waiting, AHEAD * num - len(running)):
                running[pool.submit(do_shard, run, job.open_work, key)] = key
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(future)
                future.result()
                yield key


@contextlib.contextmanager
def process_pool(num: int, label: str) -> Iterator[ProcessPoolExecutor]:
    """So many worker processes that die with this one; what they have not begun when an error comes, they never begin.

    Raises:
        HostFault: a worker was killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(num, context, initializer=_be_a_worker, initargs=(os.getpid(),)) as pool:
        try:
            yield pool
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise HostFault(
                    f"a worker of {label} was killed ({num} workers): usually memory ran out. Finished shards are "
                    "kept. Set workers lower, or make the shards smaller, and run again."
                ) from error
            raise


@dataclass(frozen=True)
class _Opened:
    run: str
    work: Work
    stack: ExitStack


_opened: _Opened | None = None


def do_shard(run: str, open_work: Opener, key: str) -> None:
    """In a worker: one shard. What `open_work` opens stays open for the shards of the same run."""
    global _opened  # one for the life of the worker process; it ends with it
    if _opened is None or _opened.run != run:
        if _opened is not None:
            _opened.stack.close()
        stack = contextlib.ExitStack()
        _opened = _Opened(run, stack.enter_context(open_work()), stack)
    _opened.work(key)


def _be_a_worker(parent: int) -> None:
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and with it this process
