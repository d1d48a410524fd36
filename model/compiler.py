"""Flags of the TPU compiler, one table by generation: what a real run and a preflight compile with alike."""

from collections.abc import Mapping

from jax.sharding import Mesh

# v6e. By default every collective of a step blocks the TensorCore. These flags move gathers, scatters and reductions to
# the SparseCore, where they run beside it, and make a true reduce-scatter of a gradient's all-reduce and slice
# (`nd_reduce_scatter`). The continuation fusions that other generations use for that are refused on v6e.
_SPARSE_CORE: Mapping[str, str] = {
    **{f"xla_tpu_enable_async_collective_fusion_fuse_{kind}": "false" for kind in ("all_gather", "all_reduce")},
    "xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter": "false",
    **{
        flag: "true"
        for kind in ("all_gather", "all_reduce", "reduce_scatter")
        for flag in (f"xla_tpu_enable_sparse_core_collective_offload_{kind}", f"xla_tpu_enable_{kind}_offload_tracing")
    },
    "xla_tpu_enable_sparse_core_reduce_scatter_v2": "true",
    "xla_tpu_enable_sparse_core_collective_offload_nd_reduce_scatter": "true",
    "xla_tpu_scoped_vmem_limit_kib": "98304",
}

COMPILER_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "TPU v6 lite": _SPARSE_CORE,
}  # by jax.Device.device_kind; a kind that is not here compiles with the compiler's own choices


def compiler_options(mesh: Mesh | None) -> dict[str, str] | None:
    """The flags of a program on these devices, None where the compiler's own are best."""
    if mesh is None:
        return None
    return dict(COMPILER_OPTIONS.get(mesh.devices.flat[0].device_kind, {})) or None
