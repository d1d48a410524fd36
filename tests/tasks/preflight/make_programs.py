"""Compiles the small programs of test_hlo.py for a TPU: `python tests/tasks/preflight/make_programs.py FOLDER`.

Run with the environment of `tasks.preflight.compiler`; each is written as FOLDER/NAME.txt, metadata left out.
"""

import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.compiler import COMPILER_OPTIONS

LAYERS, ROWS, WIDTH = 3, 512, 1024


def sharded_scan(flags: dict[str, str] | None) -> str:
    """4 chips, 3 layers: weights [1024, 1024] gathered in a loop, and the sum of squares scattered at the end."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v6e:2x2").devices
    mesh = Mesh(devices, ("fsdp",))

    def local(x: jax.Array, weights: jax.Array) -> jax.Array:
        def layer(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(x @ lax.all_gather(w, "fsdp", axis=0, tiled=True)), None

        x, _ = lax.scan(layer, x, weights)
        return lax.psum_scatter(x.T @ x, "fsdp", scatter_dimension=0, tiled=True)

    rows, cut = PartitionSpec("fsdp"), PartitionSpec(None, "fsdp")
    step = jax.shard_map(local, mesh=mesh, in_specs=(rows, cut), out_specs=rows, check_vma=False)
    x = jax.ShapeDtypeStruct((4 * ROWS, WIDTH), jnp.bfloat16, sharding=NamedSharding(mesh, rows))
    w = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.bfloat16, sharding=NamedSharding(mesh, cut))
    return text(jax.jit(step, compiler_options=flags).lower(x, w))


def gather_in_fusions() -> str:
    """16 chips of v5e: a gather of 32 MB beside a matmul of another layer, which v5e moves from within the fusion."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4").devices
    mesh = Mesh(devices, ("fsdp",))

    def local(x: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ first) @ lax.all_gather(second, "fsdp", axis=0, tiled=True)

    cut, whole = PartitionSpec("fsdp"), PartitionSpec()
    step = jax.shard_map(local, mesh=mesh, in_specs=(cut, whole, cut), out_specs=cut, check_vma=False)
    shapes = ((16 * 2048, 4096, cut), (4096, 4096, whole), (4096, 4096, cut))
    arrays = [jax.ShapeDtypeStruct((m, n), jnp.bfloat16, sharding=NamedSharding(mesh, s)) for m, n, s in shapes]
    return text(jax.jit(step).lower(*arrays))


def batched_matmul() -> str:
    """One chip: 6 products [128, 256] x [256, 384], which TPU makes a convolution with holes."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v6e:2x2").devices
    where = NamedSharding(Mesh(devices[:1], ("x",)), PartitionSpec())
    a = jax.ShapeDtypeStruct((6, 128, 256), jnp.bfloat16, sharding=where)
    b = jax.ShapeDtypeStruct((6, 256, 384), jnp.bfloat16, sharding=where)
    return text(jax.jit(lambda a, b: jnp.einsum("bmk,bkn->bmn", a, b), out_shardings=where).lower(a, b))


def text(lowered: Any) -> str:
    found = re.sub(r", metadata=\{[^{}]*\}", "", lowered.compile().as_text())
    found = re.sub(r'"(?:used_)?scoped_memory_configs":\[[^\]]*\],?', "", found)
    module, _, rest = found.partition("\n")
    return f"{module}\n\n{rest[re.search(r'^(%|ENTRY )', rest, re.MULTILINE).start() :]}"  # no names of source files


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    programs = {
        "scan_sparsecore": lambda: sharded_scan(dict(COMPILER_OPTIONS["TPU v6 lite"])),
        "scan_blocking": lambda: sharded_scan(None),
        "gather_in_fusions": gather_in_fusions,
        "batched_matmul": batched_matmul,
    }
    for name, make in programs.items():
        (folder / f"{name}.txt").write_text(make())
