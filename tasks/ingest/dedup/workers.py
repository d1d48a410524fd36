"""Parts on the local disk side by side in processes of their own. Their number changes nothing but the time."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tasks.children import die_with
from tasks.errors import HostFault


def side_by_side(work: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, what: str) -> Iterator[Any]:
    """The results of `work(*call)` in the order of the calls, by at most so many processes (0 = one a core).

    Raises:
        HostFault: a worker was killed.
    """
    workers = min(workers or os.cpu_count() or 1, len(calls))
    if workers <= 1:
        yield from (work(*call) for call in calls)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    with ProcessPoolExecutor(workers, context, initializer=_be_a_worker, initargs=(os.getpid(),)) as pool:
        running = [pool.submit(work, *call) for call in calls]
        try:
            for done in running:
                yield done.result()
        except BrokenProcessPool as error:
            raise HostFault(
                f"a worker of {what} was killed ({workers} workers): usually memory ran out. Finished shards are kept. "
                "Set workers or memory_bytes lower, and run again."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _be_a_worker(parent: int) -> None:
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and with it this process
