"""Worker processes of the feed, seen from the trainer: which streams each has, its rows, and its end.

A worker is `python -m tasks.train.feed`. It is told by one JSON on stdin what to make, and writes frames to a pipe: a
batch's rows of its streams, with their position after it. A pipe and not Grain's shared memory, because a pipe ends
when either side does: the reader of a dead worker sees the end of it at once, a worker without a reader cannot write
and goes, and nothing is left behind (docs/decisions/0008-feed-workers.md).
"""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from grain import DatasetIterator

from tasks.errors import ConfigError, DataFault, HostFault
from tasks.tokens import TextTokenizer
from tasks.train.feed.frames import Frame, read_frame
from tasks.train.feed.sources import Source
from tasks.train.feed.streams import FeedConfig, State
from tasks.train.packing import Row

log = logging.getLogger(__name__)

FAULTS = {fault.__name__: fault for fault in (ConfigError, DataFault, HostFault)}


class WorkerIterator(DatasetIterator[Row]):
    """Batches from worker processes, rows in the order of the streams.

    The workers start with the first batch that is asked for, so that a position may be set before.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tokenizer: TextTokenizer,
        cfg: FeedConfig,
        streams: Sequence[int],
        start: State,
        workers: int,
        ahead: int,
    ):
        super().__init__()
        self._cfg, self._streams, self._ahead = cfg, streams, ahead
        self._order = {
            "sources": [asdict(source) for source in sources],
            "tokenizer": {"path": str(tokenizer.path.absolute()), "engine": tokenizer.engine},
            "cfg": asdict(cfg),
        }
        self._state = start
        self._number = workers
        self._workers: list[_Worker] = []

    def __next__(self) -> Row:
        if not self._workers:
            self._workers = [self._start(number) for number in range(self._number)]
        frames = [worker.next() for worker in self._workers]
        states: list[State] = [{}] * len(self._streams)
        batch: Row = {}
        for number, (header, rows) in enumerate(frames):
            states[number :: self._number] = header["states"]
            for name, array in rows.items():
                if name not in batch:
                    batch[name] = np.empty((len(self._streams), self._rows, *array.shape[1:]), array.dtype)
                batch[name][number :: self._number] = array.reshape(-1, self._rows, *array.shape[1:])
        self._state = {"streams": states}
        return {name: array.reshape(-1, *array.shape[2:]) for name, array in batch.items()}

    def get_state(self) -> State:
        return self._state

    def set_state(self, state: State) -> None:
        if len(state["streams"]) != len(self._streams):
            raise ValueError(f"a position of {len(state['streams'])} streams for {len(self._streams)}")
        self.close()
        self._state = state

    def close(self) -> None:
        """End the workers; a later batch starts them again."""
        for worker in self._workers:
            worker.close()
        self._workers = []

    @property
    def _rows(self) -> int:
        """Rows of one stream in a batch."""
        return self._cfg.rows // self._cfg.streams

    def _start(self, number: int) -> "_Worker":
        own = {
            "streams": list(self._streams[number :: self._number]),
            "states": self._state["streams"][number :: self._number],
        }
        return _Worker(f"{number + 1} of {self._number}", self._order | own, self._ahead)


class _Worker:
    """One process, and a thread that reads what it writes up to `ahead` frames before they are wanted."""

    def __init__(self, name: str, order: dict[str, Any], ahead: int):
        self._name = name
        root = str(Path(__file__).resolve().parents[3])
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
            "TOKENIZERS_PARALLELISM": "false",  # the workers are the parallelism
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tasks.train.feed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # no lock that a reader could hold while the interpreter ends
            env=environment,
            cwd=root,
        )
        self._frames: queue.Queue[Frame | None] = queue.Queue(ahead)
        thread = threading.Thread(
            target=_talk, args=(self._process, order, self._frames), daemon=True, name=f"feed-worker-{name}"
        )
        thread.start()
        self.close = weakref.finalize(self, _end, self._process, self._frames, thread)
        """End the process and the thread, now or when the iterator or the interpreter is done."""
        log.info("feed worker %s: process %s, streams %s", name, self._process.pid, order["streams"])

    def next(self) -> Frame:
        """The next frame, as soon as it is there.

        Raises:
            ConfigError, DataFault, HostFault: what the worker said; HostFault also when something killed it.
            RuntimeError: it failed in a way nobody foresaw.
        """
        frame = self._frames.get()
        if frame is None:
            self._frames.put(None)  # for whoever asks again
            raise self._died()
        if "fault" in frame[0]:
            raise FAULTS.get(frame[0]["fault"], RuntimeError)(frame[0]["message"])
        return frame

    def _died(self) -> Exception:
        code = self._process.wait()
        what = f"feed worker {self._name} (process {self._process.pid})"
        if code >= 0:
            return RuntimeError(f"{what} ended with exit code {code} and did not say why; its last lines are above.")
        why = " Memory may have run out." if code == -signal.SIGKILL else ""
        return HostFault(
            f"{what} was killed by {signal.Signals(-code).name}.{why} Nothing is lost but the steps since the newest "
            "checkpoint: the rows do not depend on the workers. The same command resumes; fewer feed_workers need "
            "less memory, 0 needs none."
        )


def _talk(process: "subprocess.Popen[bytes]", order: dict[str, Any], frames: "queue.Queue[Frame | None]") -> None:
    """Give a worker its order and put frame after frame of its answer, then None."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # a worker that is dead already has no answer
        left = memoryview(json.dumps(order).encode())
        while left:
            left = left[pipe.write(left) :]
    while (frame := read_frame(process.stdout)) is not None:
        frames.put(frame)
    frames.put(None)


def _end(process: "subprocess.Popen[bytes]", frames: "queue.Queue[Frame | None]", thread: threading.Thread) -> None:
    """End a worker; nothing that it made and nobody asked for is worth keeping."""
    process.kill()
    process.wait()
    while thread.is_alive():
        try:
            frames.get(timeout=0.01)
        except queue.Empty:
            continue
    assert process.stdout is not None
    process.stdout.close()
