"""Which rows of a batch a trainer of several makes, and how what each of them has is put together again."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from model.sharding import sharding
from tasks.errors import ConfigError
from tasks.train.feed.batches import global_state, host_state
from tasks.train.feed.streams import State
from tasks.train.hosts import wait_for_all
from tasks.train.packing import Row


@dataclass(frozen=True)
class Share:
    """An equal part of every batch. Processes whose devices hold the same rows, as stages do, have the same."""

    part: int
    speakers: tuple[int, ...]
    """For each part, the first process that has it."""

    @classmethod
    def here(cls, rows: int, mesh: Mesh | None) -> Self:
        """The rows of the devices of this process.

        Raises:
            ConfigError: the mesh cuts the batch at other places than hosts begin.
        """
        if mesh is None or jax.process_count() == 1:
            return cls(0, (0,))
        return cls.of(jax.process_index(), rows, mesh)

    @classmethod
    def of(cls, process: int, rows: int, mesh: Mesh) -> Self:
        """The same for any process of the mesh."""
        devices: defaultdict[int, list[Any]] = defaultdict(list)
        for device in mesh.devices.flat:
            devices[device.process_index].append(device)
        runs = {number: _runs(rows, mesh, own) for number, own in sorted(devices.items())}
        parts = sorted({run for own in runs.values() for run in own})
        size = rows // len(parts)
        equal = [(n * size, (n + 1) * size) for n in range(len(parts))]
        if parts != equal or any(len(own) > 1 for own in runs.values()):
            raise ConfigError(
                f"{len(devices)} hosts cannot share the {rows} rows of a batch on a mesh of {dict(mesh.shape)}: they "
                f"would hold rows {list(runs.values())}, but each makes an equal run of them. Use another order or "
                "number of hosts, or a mesh whose data, fsdp and expert axes a host holds whole parts of."
            )
        speakers = tuple(min(number for number, own in runs.items() if own == [part]) for part in parts)
        return cls(parts.index(runs[process][0]), speakers)

    @property
    def parts(self) -> int:
        return len(self.speakers)

    def rows(self, rows: int) -> slice:
        """Where the part is in a batch of so many rows."""
        size = rows // self.parts
        return slice(self.part * size, (self.part + 1) * size)

    def own_state(self, state: State) -> State:
        """The part of a global position of the feed."""
        return host_state(state, self.part, self.parts)

    def whole_state(self, state: State) -> State:
        """The global position, from that of this process; all must ask."""
        if jax.process_count() == 1:
            return state
        wait_for_all("state")
        text = np.frombuffer(json.dumps(state).encode(), np.uint8)
        lengths = multihost_utils.process_allgather(np.int32(len(text)))
        texts = multihost_utils.process_allgather(np.pad(text, (0, int(lengths.max()) - len(text))))
        return global_state([json.loads(texts[n][: lengths[n]].tobytes()) for n in self.speakers])

    def whole_batch(self, batch: Row) -> Row:
        """All rows, from those of this process; all must ask."""
        if jax.process_count() == 1:
            return batch
        wait_for_all("batch")
        each = {name: multihost_utils.process_allgather(array) for name, array in batch.items()}
        return {name: np.concatenate([arrays[n] for n in self.speakers]) for name, arrays in each.items()}


def _runs(rows: int, mesh: Mesh, devices: Sequence[Any]) -> list[tuple[int, int]]:
    """The rows that devices hold: (first, end) of every run of them."""
    spans = sharding(mesh, ("batch",), (rows,)).devices_indices_map((rows,))
    runs: list[tuple[int, int]] = []
    for first, end in sorted({spans[device][0].indices(rows)[:2] for device in devices}):
        if runs and runs[-1][1] == first:
            first = runs.pop()[0]
        runs.append((first, end))
    return runs
