"""Parts on the local disk side by side in processes of their own. Their number changes nothing but the time."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tasks.shard_workers import process_pool


def side_by_side(work: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, what: str) -> Iterator[Any]:
    """The results of `work(*call)` in the order of the calls, by at most so many processes (0 = one a core).

    Raises:
        HostFault: a worker was killed.
    """
    workers = min(workers or os.cpu_count() or 1, len(calls))
    if workers <= 1:
        yield from (work(*call) for call in calls)
        return
    with process_pool(workers, what) as pool:
        for done in [pool.submit(work, *call) for call in calls]:
            yield done.result()
