"""Batches of one host: its own run of the streams, made in this process or in workers, ahead of the trainer.

A global position is the position of every stream. Host h of H has streams h V / H to (h + 1) V / H and makes their
rows, which are those that `jax.make_array_from_process_local_data` expects of process h. So positions of all hosts put
together are the global one, and any other number of hosts that divides the streams goes on from it.
"""

import os
from collections.abc import Sequence

from grain import DatasetIterator, IterDataset
from grain.experimental import ThreadPrefetchIterDataset

from tasks.errors import ConfigError
from tasks.tokens import TextTokenizer
from tasks.train.feed.sources import Source
from tasks.train.feed.streams import FeedConfig, State, Stream, next_rows, open_streams
from tasks.train.feed.workers import WorkerIterator
from tasks.train.packing import Row

AHEAD = 4  # batches that are made before they are asked for
CORES_A_WORKER = 4  # the others are the trainer's, its compiler's and its checkpoints'
MOST_WORKERS = 4  # one makes 0.5 M tokens a second and more: ten times what four chips of v6e take of a 2B model


class Batches(IterDataset[Row]):
    """All batches of a host, without end: arrays [rows / hosts, seq_len]."""

    def __init__(
        self, sources: Sequence[Source], tokenizer: TextTokenizer, cfg: FeedConfig, host: int = 0, hosts: int = 1
    ):
        super().__init__()
        if cfg.rows % cfg.streams:
            raise ConfigError(
                f"streams={cfg.streams} does not divide the {cfg.rows} rows of a batch: each stream gives as many "
                "rows to every batch. Use a divisor."
            )
        self.sources, self.tokenizer, self.cfg = tuple(sources), tokenizer, cfg
        self.numbers = host_streams(cfg.streams, host, hosts)

    def __iter__(self) -> "BatchIterator":
        return BatchIterator(self.streams(), self.cfg)

    def streams(self) -> list[Stream]:
        """Fresh streams of this host, at the beginning of the data."""
        return open_streams(self.sources, self.tokenizer, self.cfg, self.numbers)


class BatchIterator(DatasetIterator[Row]):
    """Rows of all streams side by side; the state is JSON."""

    def __init__(self, streams: list[Stream], cfg: FeedConfig):
        super().__init__()
        self._streams, self._cfg = streams, cfg

    def __next__(self) -> Row:
        return next_rows(self._streams, self._cfg)

    def get_state(self) -> State:
        return {"streams": [stream.get_state() for stream in self._streams]}

    def set_state(self, state: State) -> None:
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.set_state(saved)


def prefetched(batches: Batches, workers: int | None = 0) -> DatasetIterator[Row]:
    """The batches, made ahead; the state is that of the newest batch given out, and the same for any `workers`.

    Args:
        workers: processes that make them, at most one for each stream; 0 is a thread of this process, None chooses.
    """
    if workers is None:
        workers = min(MOST_WORKERS, (os.cpu_count() or 1) // CORES_A_WORKER)
    workers = min(workers, len(batches.numbers))
    if not workers:
        return iter(ThreadPrefetchIterDataset(batches, prefetch_buffer_size=AHEAD))
    start = iter(batches).get_state()
    return WorkerIterator(batches.sources, batches.tokenizer, batches.cfg, batches.numbers, start, workers, AHEAD)


def host_streams(streams: int, host: int, hosts: int) -> range:
    """The streams of one of several hosts.

    Raises:
        ConfigError: hosts cannot have equal shares.
    """
    if streams % hosts:
        raise ConfigError(
            f"{hosts} hosts cannot share streams={streams}: each makes the rows of as many whole streams. streams "
            "decides the order of the data and stays for the whole run, so use a number of hosts that divides it."
        )
    share = streams // hosts
    return range(host * share, (host + 1) * share)


def host_state(state: State, host: int, hosts: int) -> State:
    """The part of a global position that is one host's."""
    own = host_streams(len(state["streams"]), host, hosts)
    return {"streams": state["streams"][own.start : own.stop]}


def global_state(states: Sequence[State]) -> State:
    """The global position from those of all hosts, in their order."""
    return {"streams": [stream for state in states for stream in state["streams"]]}
