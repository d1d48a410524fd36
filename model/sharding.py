"""Which part of which array lies on which device, and what devices tell each other.

One table maps logical axes to mesh axes. A training step on a mesh runs inside one `shard_map` over all of it, so every
collective is written out below; along an axis of one device, or outside of a mesh, each of them is the identity.

Shape letters in this file: B batch, T position, S key position.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.config import MESH_AXES, MeshConfig

# Weights are cut along their rows: between the devices of a tensor group, then for ZeRO-3. Activations along the batch
# and the length.
RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp", "expert"),
    "length": ("context",),
    "one": (),
    "layers": ("stage",),
    "experts": ("expert",),
    "vocab": ("tensor", "fsdp"),
    "heads": ("tensor", "fsdp"),
    "kv_heads": ("tensor", "fsdp"),
    "mlp": ("tensor", "fsdp"),
    "router": (),
    "rank": (),
    "embed": (),
    "norm": (),
}
# Devices along these hold other tokens; along tensor they share the work on the same ones.
TOKEN_AXES = ("data", "fsdp", "expert", "context", "stage")
GATHERED = "gathered_weight"  # name of weights put together, which no remat policy keeps
TILE = 16  # rows of a bfloat16 tile on TPU
_LETTERS = {"B": "batch", "T": "length", "1": "one", "K": "one"}


def make_mesh(cfg: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over all devices of the run (or those given); a config for another number of devices is refused."""
    devices = jax.devices() if devices is None else devices
    if cfg.num_devices != len(devices):
        sizes = " x ".join(f"{axis}={getattr(cfg, axis)}" for axis in MESH_AXES)
        raise ValueError(
            f"mesh {sizes} needs {cfg.num_devices} devices and JAX sees {len(devices)} ({devices[0].platform}): "
            "every device has exactly one place in the mesh. "
            "Change the mesh of the preset, or run it where that many devices are."
        )
    shape = tuple(getattr(cfg, axis) for axis in MESH_AXES)
    # In the order in which the platform lists them. `jax.make_mesh` finds another one for v6e 16 x 16, and for that one
    # XLA leaves gathers to the compute cores, where nothing overlaps them (libtpu 0.0.42).
    return Mesh(np.array(devices).reshape(shape), MESH_AXES)


def spec(axes: tuple[str, ...]) -> PartitionSpec:
    """The partition of an array whose dimensions have these logical axes."""
    return PartitionSpec(*(RULES[axis] or None for axis in axes))


def sharding(mesh: Mesh, axes: tuple[str, ...], shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of one array; a dimension that the mesh axes do not divide is refused."""
    for axis, size in zip(axes, shape, strict=True):
        cut = [name for name in RULES[axis] if mesh.shape[name] > 1]
        parts = int(np.prod([mesh.shape[name] for name in cut]))
        if size % parts:
            raise ValueError(
                f"{axis} has {size} entries and mesh axes {', '.join(cut)} cut it into {parts} parts: "
                f"every device holds an equal part, and {size} is not a multiple of {parts}. "
                f"Use a mesh whose {' x '.join(cut)} divides {size}."
            )
    return NamedSharding(mesh, spec(axes))


def batch_axes(name: str) -> tuple[str, ...]:
    """The logical axes of an array of a batch, from the letters at the end of its name: tokens_BT, noise_B1."""
    return tuple(_LETTERS[letter] for letter in name.rpartition("_")[2])


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh | None, rows: int | None = None) -> dict[str, Any]:
    """Host arrays [rows, length] onto the devices that want them.

    Where a process has only the rows of its own devices, `rows` is how many the whole batch has.
    """
    if mesh is None:
        return {name: jax.device_put(array) for name, array in batch.items()}
    placed = {}
    for name, array in batch.items():
        whole = (rows or array.shape[0], *array.shape[1:])
        where = sharding(mesh, batch_axes(name), whole)
        placed[name] = jax.make_array_from_process_local_data(where, array, whole)
    return placed


def on_host(x: jax.Array) -> np.ndarray:
    """The whole array in the memory of this process; where several processes have parts of it, all of them must ask."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def parts(*axes: str) -> int:
    """Devices along these mesh axes; 1 outside of a `shard_map` over them."""
    mesh = jax.sharding.get_abstract_mesh()
    return int(np.prod([mesh.shape[axis] for axis in axes if axis in mesh.manual_axes]))


def place(axis: str) -> jax.Array | int:
    """This device's place along a mesh axis."""
    return jax.lax.axis_index(axis) if parts(axis) > 1 else 0


def whole_rows(w: jax.Array, dtype: Any) -> jax.Array:
    """A weight [..., rows, columns] in `dtype` with the rows of all ZeRO-3 parts; its gradient is scattered back."""
    w = w.astype(dtype)
    if parts("fsdp") == 1:
        return w
    return checkpoint_name(jax.lax.all_gather(w, "fsdp", axis=w.ndim - 2, tiled=True), GATHERED)


def whole_tiles(table_RD: jax.Array) -> jax.Array:
    """The rows of a table on this device, filled up to whole tiles where devices share it.

    Gathered from devices with a broken tile each, a table is moved by the compute cores (seen on v6e: 1,000 rows).
    """
    return jnp.pad(table_RD, ((0, -table_RD.shape[0] % TILE), (0, 0))) if parts("fsdp", "tensor") > 1 else table_RD


def scattered_rows(d_w: jax.Array, dtype: Any) -> jax.Array:
    """The gradient of `whole_rows`: float32 rows of this device, added up in `dtype` over the ZeRO-3 parts."""
    if parts("fsdp") > 1:
        axis = d_w.ndim - 2
        d_w = jax.lax.psum_scatter(d_w.astype(dtype), "fsdp", scatter_dimension=axis, tiled=True)
    return d_w.astype(jnp.float32)


def whole_length(x: jax.Array, axis: int) -> jax.Array:
    """All positions of rows of which each device of the context group holds a run; its gradient is scattered back."""
    return jax.lax.all_gather(x, "context", axis=axis, tiled=True) if parts("context") > 1 else x


def sum_over(x: Any, *axes: str) -> Any:
    """A tree of sums over mesh axes. Its gradient is summed over the devices too: each made its own loss of the sum."""
    axes = tuple(axis for axis in axes if parts(axis) > 1)
    return jax.lax.psum(x, axes) if axes else x


def max_over(x: jax.Array, axis: str) -> jax.Array:
    """The largest along a mesh axis."""
    return jax.lax.pmax(x, axis) if parts(axis) > 1 else x


@jax.custom_vjp
def enter_tensor(x: jax.Array) -> jax.Array:
    """What each device of a tensor group goes on with in its own way: the gradients of all are added up."""
    return x


enter_tensor.defvjp(lambda x: (x, None), lambda _, d: (sum_over(d, "tensor"),))


@jax.custom_vjp
def leave_tensor(x: jax.Array) -> jax.Array:
    """The sum of what the devices of a tensor group made; the gradient of each part is that of the sum."""
    return sum_over(x, "tensor")


leave_tensor.defvjp(lambda x: (leave_tensor(x), None), lambda _, d: (d,))
