"""Many devices do what one does. Eight CPU devices in a process of their own: JAX fixes their number at its start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax.sharding import AbstractMesh

from model.checkpoint import Checkpoints
from model.config import MeshConfig, OptimizerConfig
from model.loop import abstract_state, param_axes, param_sharding
from model.sharding import RULES, make_mesh, sharding, spec
from tests.model.random_decoders import small_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    out = tmp_path_factory.mktemp("eight")
    # Without optimisation: eight programs in one are slow to compile, and this is about where the numbers lie.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(ROOT / "tests/model/eight_devices.py"), str(out)]
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=500)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1]) | {"out": out}


@pytest.mark.parametrize("mesh", ["fsdp=8", "data=2 fsdp=2 tensor=2"])
def test_every_mesh_has_the_loss_curve_of_one_device(eight, mesh):
    """Sums are made in another order, so float32 rounding is all that may differ."""
    np.testing.assert_allclose(eight["losses"][mesh], eight["losses"]["one"], rtol=2e-5)


def test_weights_and_moments_are_cut_as_the_mesh_says(eight):
    assert eight["devices"] == 8
    assert eight["shards"] == {
        "one": [1, 1],
        "fsdp=8": [1 / 8, 1 / 8],
        "data=2 fsdp=2 tensor=2": [1 / 4, 1 / 4],
    }


def test_a_checkpoint_moves_between_meshes(eight):
    assert eight["restored"] == [3, 160 * 32 // 8]
    like = abstract_state(small_config(num_layers=2), OptimizerConfig(peak_lr=1e-2, total_steps=10, z_loss=1e-3))
    with Checkpoints(eight["out"] / "run") as checkpoints:
        restored = checkpoints.restore(like)  # on the one device of this process, digests compared
    assert restored.extra == {"mesh": "fsdp=8"}
    assert int(restored.state.step) == 3


def test_a_sharded_load_writes_the_same_file_and_trains(eight):
    again, whole = ((eight["out"] / d / "model.safetensors").read_bytes() for d in ("again", "whole"))
    assert again == whole
    assert eight["trained"] == 1


def test_a_mesh_for_other_machines_says_how_many_devices_it_needs():
    with pytest.raises(ValueError, match=r"data=1 x fsdp=256 x tensor=1 needs 256 devices and JAX sees 1 \(cpu\)"):
        make_mesh(MeshConfig(fsdp=256))


def test_a_dimension_that_does_not_divide_is_named():
    class Mesh:
        shape = {"data": 1, "fsdp": 8, "tensor": 1}  # noqa: RUF012

    with pytest.raises(ValueError, match="embed has 36 entries and mesh axes fsdp cut it into 8 parts"):
        sharding(Mesh(), ("mlp", "embed"), (64, 36))  # type: ignore[arg-type]


@pytest.mark.parametrize(("heads", "kv_heads", "named"), [(4, 1, "kv_heads has 1 entries"), (2, 2, None)])
def test_a_head_is_never_cut_in_two(heads, kv_heads, named):
    """Its 16 rows would divide; half of them on another device would be half a rotation."""
    cfg = small_config(num_heads=heads, num_kv_heads=kv_heads)
    mesh: Any = AbstractMesh((1, 1, 2), ("data", "fsdp", "tensor"))
    if named is None:
        assert param_sharding(cfg, mesh)["layers"]["attention"]["key"].spec == spec(("layers", "kv_heads", "embed"))
        return
    with pytest.raises(ValueError, match=named):
        param_sharding(cfg, mesh)


def test_every_weight_has_axes_of_the_table_and_no_mesh_axis_twice():
    axes = param_axes(small_config())
    assert axes["embed"] == ("vocab", "embed")
    assert axes["layers"]["attention"]["query"] == ("layers", "heads", "embed")

    def leaves(tree):
        return [tree] if isinstance(tree, tuple) else [leaf for child in tree.values() for leaf in leaves(child)]

    for names in leaves(axes):
        used = [axis for name in names for axis in RULES[name]]
        assert len(used) == len(set(used))
        assert len(spec(names)) == len(names)
