"""Whose rows are whose; what several processes put together is in launchers/test_processes.py."""

import numpy as np
import pytest
from jax.sharding import Mesh

from model.config import MESH_AXES, MeshConfig
from tasks.errors import ConfigError
from tasks.train.share import Share


class Device:
    """A device of a process, as far as a sharding looks at one."""

    def __init__(self, number: int, process: int):
        self.id, self.process_index = number, process
        self.platform, self.device_kind = "cpu", "cpu"


def mesh(axes: dict[str, int], processes: list[int]) -> Mesh:
    cfg = MeshConfig(**axes)
    devices = [Device(number, process) for number, process in enumerate(processes)]
    return Mesh(np.array(devices).reshape([getattr(cfg, axis) for axis in MESH_AXES]), MESH_AXES)


def test_a_trainer_alone_has_all_rows():
    share = Share.here(8, None)
    assert share.rows(8) == slice(0, 8)
    assert share.whole_state({"streams": [1, 2]}) == share.own_state({"streams": [1, 2]}) == {"streams": [1, 2]}
    batch = {"tokens_BT": np.ones((8, 4))}
    assert share.whole_batch(batch) is batch


@pytest.mark.parametrize(
    ("axes", "processes", "parts", "speakers"),
    [
        pytest.param({"fsdp": 4}, [0, 0, 1, 1], [0, 1], (0, 1), id="each its half"),
        pytest.param({"fsdp": 4}, [1, 1, 0, 0], [1, 0], (1, 0), id="in another order"),
        pytest.param({"data": 2, "fsdp": 2}, [0, 0, 1, 1], [0, 1], (0, 1), id="batch over two axes"),
        pytest.param({"stage": 2, "fsdp": 2}, [0, 0, 1, 1], [0, 0], (0,), id="stages see the same rows"),
        pytest.param({"data": 2, "tensor": 2}, [0, 0, 1, 1], [0, 1], (0, 1), id="tensor groups within a host"),
        pytest.param({"tensor": 4}, [0, 0, 1, 1], [0, 0], (0,), id="a tensor group over both hosts"),
        pytest.param({"data": 2, "tensor": 4}, [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1], (0, 2), id="over half of them"),
    ],
)
def test_every_host_makes_the_rows_of_its_devices(axes, processes, parts, speakers):
    found = [Share.of(process, 8, mesh(axes, processes)) for process in sorted(set(processes))]
    assert [share.part for share in found] == parts
    assert {share.speakers for share in found} == {speakers}
    size = 8 // len(speakers)
    assert [share.rows(8) for share in found] == [slice(part * size, (part + 1) * size) for part in parts]


@pytest.mark.parametrize(
    ("axes", "processes"),
    [
        pytest.param({"data": 4}, [0, 1, 0, 1], id="in pieces"),
        pytest.param({"data": 4}, [0, 1, 1, 1], id="unequal"),
        pytest.param({"data": 3, "tensor": 2}, [0, 0, 0, 1, 1, 1], id="overlapping"),
    ],
)
def test_hosts_that_would_hold_other_parts_are_refused(axes, processes):
    with pytest.raises(ConfigError, match="hosts cannot share the 12 rows"):
        Share.of(0, 12, mesh(axes, processes))


def test_positions_are_cut_where_rows_are():
    second = Share.of(1, 8, mesh({"fsdp": 4}, [0, 0, 1, 1]))
    assert second.own_state({"streams": [1, 2, 3, 4]}) == {"streams": [3, 4]}
