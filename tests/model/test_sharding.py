"""Many devices do what one does. Eight CPU devices in a process of their own: JAX fixes their number at its start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from model.checkpoint import Checkpoints
from model.config import MESH_AXES, MeshConfig, OptimizerConfig
from model.loop import abstract_state, param_axes, param_sharding
from model.sharding import RULES, make_mesh, spec
from tests.model.eight_devices import ADAPTERS, EXPERT_MESHES, EXPERT_SHAPE, MESHES, RARELY, SHAPE
from tests.model.random_decoders import small_config

ROOT = Path(__file__).parents[2]


def run_with_eight(out, *what):
    # Without optimisation: eight programs in one are slow to compile, and this is about where the numbers lie.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(ROOT / "tests/model/eight_devices.py"), str(out), *what]
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=500)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1]) | {"out": out}


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    return run_with_eight(tmp_path_factory.mktemp("eight"))


@pytest.fixture(scope="module")
def eight_experts(tmp_path_factory):
    return run_with_eight(tmp_path_factory.mktemp("experts"), "experts")


@pytest.fixture(scope="module")
def eight_rarely(tmp_path_factory):
    return run_with_eight(tmp_path_factory.mktemp("rarely"), "rarely")


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param(mesh, marks=[pytest.mark.slow] if mesh in RARELY else [])
        for mesh in (*MESHES, *EXPERT_MESHES, ADAPTERS)
        if mesh not in ("one", "one, experts")
    ],
)
def test_every_mesh_has_the_loss_curve_of_one_device(request, mesh):
    """Sums are made in another order, so float32 rounding is all that may differ."""
    process = "eight_rarely" if mesh in RARELY else "eight_experts" if mesh in EXPERT_MESHES else "eight"
    losses = request.getfixturevalue(process)["losses"]
    one = "one, experts" if mesh in EXPERT_MESHES else "one, adapters" if mesh == ADAPTERS else "one"
    np.testing.assert_allclose(losses[mesh], losses[one], rtol=2e-5)


def test_experts_are_cut_and_written_as_they_were(eight_experts):
    assert eight_experts["parts"] == 8
    again, whole = ((eight_experts["out"] / d / "model.safetensors").read_bytes() for d in ("again", "whole"))
    assert again == whole


def test_weights_and_moments_are_cut_as_the_mesh_says(eight):
    assert eight["devices"] == 8
    assert eight["parts"] == {
        "one": [1, 1],  # of a layer's weight, and of a moment of the embeddings
        "data=2 fsdp=2 tensor=2": [4, 4],
        "fsdp=4 stage=2": [8, 4],
        "tensor=2 context=2 stage=2": [4, 2],
        ADAPTERS: [4, 4],  # of an adapter's rows, and of the frozen weight
    }


def test_a_checkpoint_moves_between_meshes(eight):
    assert eight["restored"] == [3, 160 * 32 // 8]
    like = abstract_state(small_config(**SHAPE), OptimizerConfig(peak_lr=1e-2, total_steps=10, z_loss=1e-3))
    with Checkpoints(eight["out"] / "run") as checkpoints:
        restored = checkpoints.restore(like)  # on the one device of this process, digests compared
    assert restored.extra == {"mesh": "fsdp=4 stage=2"}
    assert int(restored.state.step) == 3


def test_a_sharded_load_writes_the_same_file_and_trains(eight):
    again, whole = ((eight["out"] / d / "model.safetensors").read_bytes() for d in ("again", "whole"))
    assert again == whole
    assert eight["trained"] == 1


def test_a_mesh_for_other_machines_says_how_many_devices_it_needs():
    with pytest.raises(ValueError, match=r"fsdp=256 .* tensor=1 needs 256 devices and JAX sees 1 \(cpu\)"):
        make_mesh(MeshConfig(fsdp=256))


def mesh_of(**sizes):
    """An abstract mesh: no devices are needed to ask where things would lie."""
    return jax.sharding.AbstractMesh(tuple(sizes.get(axis, 1) for axis in MESH_AXES), MESH_AXES)


@pytest.mark.parametrize(
    ("sizes", "shape", "message"),
    [
        ({"fsdp": 8}, {"mlp_dim": 36}, "mlp has 36 entries and mesh axes fsdp cut it into 8 parts"),
        ({"tensor": 2, "fsdp": 8}, {"mlp_dim": 40}, "mlp has 40 entries and mesh axes tensor, fsdp cut it into 16"),
        ({"tensor": 4}, {}, "num_kv_heads=2 cannot be cut by tensor=4"),
        ({"expert": 3}, EXPERT_SHAPE, "experts has 4 entries and mesh axes expert cut it into 3 parts"),
        ({"stage": 4}, {}, "num_layers=4 cannot be cut by stage=4: .* a period of 2 layers stays whole"),
    ],
)
def test_what_a_mesh_cannot_cut_is_named(sizes, shape, message):
    with pytest.raises(ValueError, match=message):
        param_sharding(small_config(**shape), mesh_of(**sizes))  # type: ignore[arg-type]


def test_a_mesh_keeps_the_order_of_the_devices():
    devices = [f"device {i}" for i in range(4)]
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2), devices)
    assert list(mesh.devices.flat) == devices
    assert mesh.shape["fsdp"] == mesh.shape["tensor"] == 2


def test_what_a_mesh_can_just_cut_is_cut():
    assert param_sharding(small_config(mlp_dim=48), mesh_of(tensor=2, fsdp=8))  # type: ignore[arg-type]
    assert param_sharding(small_config(), mesh_of(stage=2))  # type: ignore[arg-type]


def test_every_weight_has_axes_of_the_table_and_no_mesh_axis_twice():
    axes, with_experts = param_axes(small_config()), param_axes(small_config(**EXPERT_SHAPE))
    assert axes["embed"] == ("vocab", "embed")
    assert axes["layers"]["attention"]["query"] == ("layers", "heads", "embed")
    assert with_experts["layers"]["mlp"]["gate"] == ("layers", "experts", "mlp", "embed")

    def leaves(tree):
        return [tree] if isinstance(tree, tuple) else [leaf for child in tree.values() for leaf in leaves(child)]

    for names in leaves(axes) + leaves(with_experts):
        used = [axis for name in names for axis in RULES[name]]
        assert len(used) == len(set(used))
        assert len(spec(names)) == len(names)
