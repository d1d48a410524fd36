"""Which part of which array lies on which device: one table, logical axis -> mesh axes."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.config import MeshConfig

MESH_AXES = ("data", "fsdp", "tensor")

# Weights are cut along embed_dim for ZeRO-3 and along rows for tensor parallelism; activations along the batch.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "length": (),
    "act_embed": (),
    "act_heads": ("tensor",),
    "act_mlp": ("tensor",),
    "act_vocab": ("tensor",),
    "layers": (),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "norm": (),
}


def make_mesh(cfg: MeshConfig) -> Mesh:
    """A mesh over all devices of the run; a config for another number of devices is refused."""
    if cfg.num_devices != len(jax.devices()):
        raise ValueError(
            f"mesh data={cfg.data} x fsdp={cfg.fsdp} x tensor={cfg.tensor} needs {cfg.num_devices} devices and "
            f"JAX sees {len(jax.devices())} ({jax.default_backend()}): every device has exactly one place in the mesh. "
            "Change the mesh of the preset, or run it where that many devices are."
        )
    shape = (cfg.data, cfg.fsdp, cfg.tensor)
    return jax.make_mesh(shape, MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(shape))


def spec(axes: tuple[str, ...]) -> PartitionSpec:
    """The partition of an array whose dimensions have these logical axes."""
    return PartitionSpec(*(RULES[axis] or None for axis in axes))


def sharding(mesh: Mesh, axes: tuple[str, ...], shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of one array; a dimension that the mesh axes do not divide is refused."""
    for axis, size in zip(axes, shape, strict=True):
        check_divides(mesh, axis, size)
    return NamedSharding(mesh, spec(axes))


def check_divides(mesh: Mesh, axis: str, size: int) -> None:
    """Refuse `size` entries along a logical axis that the mesh would cut unequally."""
    parts = int(np.prod([mesh.shape[name] for name in RULES[axis]]))
    if size % parts:
        raise ValueError(
            f"{axis} has {size} entries and mesh axes {', '.join(RULES[axis])} cut it into {parts} parts: "
            f"every device holds an equal part, and {size} is not a multiple of {parts}. "
            f"Use a mesh whose {' x '.join(RULES[axis])} divides {size}."
        )


def constrain(x: jax.Array, *axes: str) -> jax.Array:
    """Say where an activation lies, when a mesh of more than one device is set; otherwise x as it is."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh | None) -> dict[str, Any]:
    """Host arrays [rows, length] onto the devices, rows cut along the batch axes."""
    if mesh is None:
        return {name: jax.device_put(array) for name, array in batch.items()}
    return {
        name: jax.make_array_from_process_local_data(sharding(mesh, ("batch", "length"), array.shape), array)
        for name, array in batch.items()
    }
