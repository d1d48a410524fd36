"""The shards that one run decides about, and the room it has for that."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.dedup.index import ROW_BITS, Shard, read_index, shard_of
from tasks.ingest.dedup.spill import Records, num_parts

DROP = np.dtype([("doc", "<i8"), ("kept", "<i8"), ("similarity", "<f8"), ("reason", "<u1")])
REASONS = ("exact_duplicate", "near_duplicate", "old_duplicate")
EXACT, NEAR, OLD = range(3)
_DROP_WORK = 4  # sorting and joining hold so many times the records


@dataclass(frozen=True)
class Corpus:
    """New shards first, then old ones, numbered in that order; with how many documents each has."""

    shards: tuple[Shard, ...]
    documents: tuple[int, ...]
    config: DedupConfig
    scratch: Path

    @classmethod
    def of(cls, new: Sequence[Shard], old: Sequence[Shard], config: DedupConfig, scratch: Path) -> "Corpus":
        """The corpus of these shards, whose indexes are there."""
        shards = (*new, *old)
        return cls(shards, tuple(len(read_index(shard, ["length"])[1]) for shard in shards), config, scratch)

    @cached_property
    def first_old(self) -> int:
        """The number from which on documents are old."""
        return sum(not shard.old for shard in self.shards) << ROW_BITS

    @cached_property
    def total(self) -> int:
        """How many documents there are, old ones included."""
        return sum(self.documents)

    @cached_property
    def worker_config(self) -> DedupConfig:
        """The config of one of the processes that work side by side: they share the memory."""
        share = self.config.memory_bytes // (self.config.workers or os.cpu_count() or 1)
        return self.config.with_changes({"memory_bytes": max(8 << 20, share)})

    @property
    def buffer_bytes(self) -> int:
        """What may wait in memory to be spilled."""
        return self.config.memory_bytes // 8

    @cached_property
    def shards_per_group(self) -> int:
        """Drops are divided by groups of shards, so that those of one group fit in a quarter of the memory."""
        groups = num_parts(self.total * DROP.itemsize * _DROP_WORK, self.config.memory_bytes // 4)
        return -(-len(self.shards) // groups) or 1

    @cached_property
    def num_groups(self) -> int:
        return -(-len(self.shards) // self.shards_per_group)

    def group_of(self, docs: np.ndarray) -> np.ndarray:
        """The group of shards that each document is in."""
        return shard_of(docs) // self.shards_per_group

    def records(self, name: str, dtype: np.dtype) -> Records:
        """Files for one step."""
        return Records(self.scratch / name, dtype, self.buffer_bytes)

    def is_old(self, docs: np.ndarray) -> np.ndarray:
        return docs >= self.first_old


def of_shard(drops: np.ndarray, shard: Shard) -> np.ndarray:
    """Those of some drops, sorted by document, that are of one shard."""
    low, high = np.searchsorted(drops["doc"], (shard.number << ROW_BITS, (shard.number + 1) << ROW_BITS))
    return drops[low:high]


class DropReader:
    """The drops of one shard after the other; holds one group."""

    def __init__(self, corpus: Corpus, drops: Records):
        self._corpus, self._drops = corpus, drops
        self._group, self._records = -1, np.zeros(0, DROP)

    def of(self, shard: Shard) -> np.ndarray:
        """The drops of a shard, by document."""
        group = shard.number // self._corpus.shards_per_group
        if group != self._group:
            found = self._drops.read(group)
            self._group, self._records = group, found[np.argsort(found["doc"])]
        return of_shard(self._records, shard)
