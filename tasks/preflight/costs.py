"""Adds up what a compiled program does, with loops counted in full: FLOPs of matmuls, cycles, bytes through HBM.

XLA's own `cost_analysis` counts the body of a loop once and a Pallas kernel as nothing, so on a scanned model it is
20 times too low. Here a `while` is its body times its trip count, and kernels are listed so that they can be priced.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.preflight.hlo import HBM, Array, Computation, Module, Op

FREE = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id",
    "while", "conditional", "call", "optimization-barrier", "add-dependency", "iota",
}  # fmt: skip


@dataclass(frozen=True)
class Totals:
    """What one step of one device does."""

    matmul_flops: float
    cycles: float
    """XLA's estimate for all of the TensorCore's work but Pallas kernels and collectives."""
    matmul_cycles: float
    hbm_bytes: float
    kernels: Mapping[str, float]
    """Pallas calls by the path of names they come from."""
    remat_ops: int
    """Instructions that XLA computes again by itself, because memory is short."""


def totals(module: Module) -> Totals:
    """Everything that one step does, loops counted in full."""
    all_flops = cycles = matmul_cycles = hbm = 0.0
    kernels: dict[str, float] = {}
    remat = 0
    for computation, times in module.runs():
        remat += sum(op.is_remat for op in computation.ops)
        for op in computation.ops:
            flops = matmul_flops(module, computation, op)
            all_flops += times * flops
            cycles += times * op.estimated_cycles
            matmul_cycles += times * (op.estimated_cycles if flops else 0)
            hbm += times * hbm_bytes(module, computation, op)
            if op.is_kernel:
                kernels[op.source] = kernels.get(op.source, 0.0) + times
    return Totals(all_flops, cycles, matmul_cycles, hbm, kernels, remat)


def matmul_flops(module: Module, computation: Computation, op: Op) -> float:
    """FLOPs of the matmuls of one instruction (a matmul, or a fusion that holds some); loops are left out."""
    if op.kind == "convolution":
        return convolution_flops(op, *(computation.by_name[name].arrays[0] for name in op.operands[:2]))
    if op.kind == "dot":
        return dot_flops(op, computation.by_name[op.operands[0]].arrays[0])
    if op.kind != "fusion":
        return 0.0
    total = 0.0
    for name in op.called("calls"):
        if name not in module.matmul_flops:
            inside = module.computations[name]
            module.matmul_flops[name] = sum(matmul_flops(module, inside, inner) for inner in inside.ops)
        total += module.matmul_flops[name]
    return total


def dot_flops(op: Op, left: Array) -> float:
    """Two FLOPs for each element of the result and each contracted place."""
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", op.attributes)
    sizes = [left.dims[int(axis)] for axis in contracted.group(1).split(",") if axis] if contracted else []
    return 2.0 * op.arrays[0].elements * math.prod(sizes)


def convolution_flops(op: Op, left: Array, right: Array) -> float:
    """What TPU makes of a matmul: two FLOPs for each product that falls on real numbers, not on padding or holes.

    A batched matmul becomes a convolution over the batch whose padding or dilation leaves one product of many, so
    places are counted one dimension after another (as XLA's HloCostAnalysis does).
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", op.attributes)
    assert labels, op.attributes[:200]
    lhs, rhs, out = labels.groups()
    window = dict(re.findall(r"(\w+)=([\w\-]+)", _braces(op.attributes, "window=")))
    spatial = sorted(label for label in lhs if label.isdigit())
    products = 1.0
    for axis, label in enumerate(spatial):

        def at(key: str, default: str, axis: int = axis) -> str:
            return window[key].split("x")[axis] if key in window else default

        low = int(at("pad", "0_0").split("_")[0])
        products *= _places(
            size=left.dims[lhs.index(label)],
            kernel=right.dims[rhs.index(label)],
            out=op.arrays[0].dims[out.index(label)],
            stride=int(at("stride", "1")),
            low=low,
            lhs_dilate=int(at("lhs_dilate", "1")),
            rhs_dilate=int(at("rhs_dilate", "1")),
        )
    batch = op.arrays[0].dims[out.index("b")]
    features = op.arrays[0].dims[out.index("f")]
    return 2.0 * batch * features * right.dims[rhs.index("i")] * products


def _places(*, size: int, kernel: int, out: int, stride: int, low: int, lhs_dilate: int, rhs_dilate: int) -> int:
    """Pairs (place of the result, place of the kernel) that meet a real element along one dimension."""
    if kernel == 1 and low == 0 and lhs_dilate == 1 and stride == 1:
        return min(out, size)
    dilated = (size - 1) * lhs_dilate + 1
    count = 0
    for k in range(kernel):
        for o in range(out):
            place = o * stride + k * rhs_dilate - low
            count += 0 <= place < dilated and place % lhs_dilate == 0
    return count


def hbm_bytes(module: Module, computation: Computation, op: Op) -> float:
    """Bytes that one instruction reads from and writes to HBM; what stays in VMEM is left out.

    A slice of a big array counts as the slice, an update in place as the update, and a kernel reads its operands
    once, though blocks of keys and values come more often.
    """
    if op.kind in FREE or op.kind.endswith(("-done", "-update")):
        return 0.0
    if op.kind == "copy-start":
        return sum(array.bytes for array in op.arrays[:2] if array.space == HBM)
    if op.kind.endswith("-start"):  # its result names its operands as well
        return _sum(op.arrays)
    read = [computation.by_name[name] for name in dict.fromkeys(op.operands) if name in computation.by_name]
    if op.kind in ("dynamic-slice", "slice", "gather"):
        return _sum(op.arrays) + (_sum(op.arrays) if read and _sum(read[0].arrays) else 0.0)
    if op.kind == "dynamic-update-slice":
        return _sum(computation.by_name[op.operands[1]].arrays) + (
            _sum(op.arrays) and computation.by_name[op.operands[1]].bytes
        )
    if op.kind == "fusion":
        return _fusion_bytes(module.computations[op.called("calls")[0]], op, computation)
    return _sum(op.arrays) + sum(_sum(source.arrays) for source in read)


def _fusion_bytes(inside: Computation, op: Op, outside: Computation) -> float:
    parameters = {int(inner.attributes.partition(")")[0]): inner for inner in inside.ops if inner.kind == "parameter"}
    total = 0.0
    for index, name in enumerate(op.operands):
        source = outside.by_name[name]
        if _sum(source.arrays) and index in parameters:
            total += min(_sum(source.arrays), _read(inside, parameters[index].name, source.bytes))
    return total + sum(_written(inside, root, array) for root, array in zip(_roots(inside), op.arrays, strict=False))


def _read(inside: Computation, name: str, whole: float) -> float:
    """Bytes of a parameter that the fusion looks at."""
    total = 0.0
    for user in inside.users.get(name, ()):
        if user.kind in ("dynamic-slice", "slice", "gather") and user.operands[0] == name:
            total += user.bytes
        elif user.kind == "dynamic-update-slice" and user.operands[0] == name:
            continue  # updated in place
        elif user.kind == "bitcast":
            total += _read(inside, user.name, whole)
        else:
            return whole
    return total


def _written(inside: Computation, root: Op | None, array: Array) -> float:
    if array.space != HBM:
        return 0.0
    while root is not None and root.kind == "bitcast":
        root = inside.by_name.get(root.operands[0])
    if root is not None and root.kind == "dynamic-update-slice":
        return inside.by_name[root.operands[1]].bytes
    return array.bytes


def _roots(inside: Computation) -> list[Op | None]:
    root = next(op for op in inside.ops if op.is_root)
    if root.kind != "tuple":
        return [root] * len(root.arrays)
    return [inside.by_name.get(name) for name in root.operands]


def _braces(text: str, key: str) -> str:
    at = text.find(key + "{")
    return text[at + len(key) + 1 : text.index("}", at)] if at >= 0 else ""


def _sum(arrays: tuple[Array, ...]) -> float:
    return sum(array.bytes for array in arrays if array.space == HBM)
