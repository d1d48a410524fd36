"""Units committed by worker processes, spawned or forked.

`python -m tests.tasks.artifact.worker_units URL FOLDER METHOD` makes four units at URL and prints, as JSON, what each
worker was told when it left a note. It may fork, so it is a process without JAX and its threads.
"""

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tasks.artifact import Workspace
from tasks.artifact.lease import hold


def make_unit(ws: Workspace, number: int) -> str:
    """In a worker process: one unit, and the error of a note that would be lost."""
    with ws.unit(f"unit-{number}") as unit:
        unit.write_bytes(f"{number}.txt", str(number).encode())
        unit.count(1, 1)
    try:
        ws.note(lost=True)
    except RuntimeError as error:
        return str(error)
    return ""


def main(url: str, folder: str, method: str) -> None:
    """Four units by two workers."""
    with hold(url) as lease:
        ws = Workspace(url, "name", Path(folder), lease.ticket, "code")
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            print(json.dumps(list(pool.map(make_unit, [ws] * 4, range(4)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
