"""What a trainer knows of the others; what they do together is in launchers/test_processes.py."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from model.config import MESH_AXES, MeshConfig
from tasks.train import hosts
from tasks.train.hosts import Agreement, as_first, error_file, host_here, meet, own_rows
from tests.tasks.train.nano import nano_spec


def test_a_trainer_alone_needs_nobody(monkeypatch):
    monkeypatch.delenv(hosts.HOSTS, raising=False)
    monkeypatch.delenv(hosts.HOST, raising=False)
    meet()
    hosts.part()
    assert host_here() == 0
    assert as_first([3, 0, 7]) == [3, 0, 7]
    assert own_rows(8, None) == slice(0, 8)
    agreed = Agreement(None)
    assert [agreed(told, jnp.zeros(())) for told in (False, True, False)] == [False, True, False], "at once"


def test_only_the_first_writes_where_all_look(tmp_path, text_pack):
    spec = nano_spec(tmp_path, text_pack)
    assert error_file(spec, 0) == spec.error
    assert error_file(spec, 3).name == "error-3.json"


class Device:
    """A device of a process, as far as a sharding looks at one."""

    def __init__(self, number: int, process: int):
        self.id, self.process_index = number, process
        self.platform, self.device_kind = "cpu", "cpu"


@pytest.mark.parametrize(
    ("mesh", "rows"),
    [
        pytest.param({"fsdp": 4}, [slice(0, 4), slice(4, 8)], id="each its half"),
        pytest.param({"data": 2, "fsdp": 2}, [slice(0, 4), slice(4, 8)], id="batch over two axes"),
        pytest.param({"stage": 2, "fsdp": 2}, [slice(0, 8), slice(0, 8)], id="stages see the same rows"),
        pytest.param({"data": 2, "tensor": 2}, [slice(0, 4), slice(4, 8)], id="tensor groups within a host"),
        pytest.param({"tensor": 4}, [slice(0, 8), slice(0, 8)], id="a tensor group over both hosts"),
    ],
)
def test_every_host_has_the_rows_of_its_devices(mesh, rows):
    cfg = MeshConfig(**mesh)
    devices = [Device(number, number // 2) for number in range(4)]
    shape = tuple(getattr(cfg, axis) for axis in MESH_AXES)
    grid = Mesh(np.array(devices).reshape(shape), MESH_AXES)
    assert [hosts._rows_of(8, grid, [d for d in devices if d.process_index == host]) for host in (0, 1)] == rows
