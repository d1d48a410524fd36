"""Reads the optimized, scheduled HLO text of a TPU program: computations, loops and how often they run, collectives."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32,
    "s64": 64, "u64": 64, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "f4e2m1fn": 4, "f8e4m3": 8, "f8e4m3fn": 8,
    "f8e5m2": 8, "f8e8m0fnu": 8, "c64": 64, "c128": 128, "token": 0, "opaque": 0,
}  # fmt: skip
HBM = 0  # memory space of an array whose layout names none; 1 is VMEM, 5 the host's memory
COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "ragged-all-to-all", "collective-permute")
NO_ESTIMATE = 1 << 60  # XLA's placeholder where it has no estimate

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_OP = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_PHASE = re.compile(r'custom_call_target="(AsyncCollective(?:Start|Done))"')
_NAME = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True, slots=True)
class Array:
    """One array of a shape."""

    dtype: str
    dims: tuple[int, ...]
    space: int

    @property
    def elements(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        return self.elements * BITS[self.dtype] / 8


@dataclass(frozen=True)
class Op:
    """One instruction."""

    name: str
    kind: str
    shape: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Arrays of the result; nested tuples are flattened."""
        return tuple(
            Array(dtype, tuple(int(size.lstrip("<=")) for size in dims.split(",") if size), _space(layout))
            for dtype, dims, layout in _ARRAY.findall(self.shape)
        )

    @property
    def bytes(self) -> float:
        return sum(array.bytes for array in self.arrays)

    @cached_property
    def estimated_cycles(self) -> int:
        """XLA's estimate for the TensorCore; 0 where it has none, and for what runs beside it (start, update, done)."""
        if self.kind.endswith(("-start", "-done", "-update")):
            return 0
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        cycles = int(found.group(1)) if found else 0
        return cycles if cycles < NO_ESTIMATE else 0

    @cached_property
    def source(self) -> str:
        """The path of names in the program that it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""

    def called(self, *keys: str) -> list[str]:
        """The computations that an attribute names."""
        names: list[str] = []
        for key in keys:
            for group in re.findall(rf"\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes):
                names += re.findall(r"[\w.\-]+", group)
        return names

    @property
    def is_kernel(self) -> bool:
        """A Pallas kernel."""
        return self.kind == "custom-call" and 'custom_call_target="tpu_custom_call"' in self.attributes

    @property
    def is_remat(self) -> bool:
        """Computed again by XLA itself, because memory was short."""
        return ".remat" in self.name


@dataclass(frozen=True)
class Computation:
    """A list of instructions in the order of the schedule."""

    name: str
    ops: tuple[Op, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Op]:
        return {op.name: op for op in self.ops}

    @cached_property
    def users(self) -> Mapping[str, list[Op]]:
        found: dict[str, list[Op]] = {}
        for op in self.ops:
            for operand in dict.fromkeys(op.operands):
                found.setdefault(operand, []).append(op)
        return found


@dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: Mapping[str, Computation]
    entry: str
    matmul_flops: dict[str, float] = field(default_factory=dict, compare=False)
    """Of computations, remembered by `costs.matmul_flops`."""

    def trip_count(self, op: Op) -> int:
        """How often the body of a loop runs.

        Raises:
            ValueError: the loop has no constant bound.
        """
        known = re.search(r'"?known_trip_count"?\D*(\d+)', op.attributes)
        if known:
            return int(known.group(1))
        (condition,) = op.called("condition")
        bounds = {
            int(bound)
            for name in [condition, *(n for o in self.computations[condition].ops for n in o.called("calls"))]
            for inner in self.computations[name].ops
            if inner.kind == "constant" and inner.shape.startswith(("s32[]", "u32[]"))
            for bound in re.findall(r"^(\d+)", inner.attributes)
        }
        if len(bounds) != 1:
            raise ValueError(
                f"the loop {op.name} of {op.source or 'the step'} has {len(bounds)} constant bounds: how often it runs "
                "is known only to the running program (so in chunked attention), and its body cannot be priced. On TPU "
                "use attention='splash'; otherwise report it with the HLO text."
            )
        return bounds.pop()

    def collective(self, op: Op) -> tuple[Op, Computation] | None:
        """The collective that an instruction is or starts, with the computation it stands in."""
        if op.kind.removesuffix("-start") in COLLECTIVES:
            return op, self.computations[self.entry]
        starts = op.kind in ("call-start", "async-start") or self.fused_phase(op) == "AsyncCollectiveStart"
        if starts or (op.kind == "fusion" and "all-reduce-scatter" in op.attributes):
            for name in op.called("to_apply", "calls", "called_computation"):
                for inner in self.computations[name].ops:
                    if found := self.collective(inner):
                        return found[0], self.computations[name]
        return None

    def fused_phase(self, op: Op) -> str:
        """AsyncCollectiveStart or AsyncCollectiveDone for a fusion that is one: v5e moves data from within fusions."""
        if op.kind == "fusion":
            for name in op.called("calls"):
                for inner in self.computations[name].ops:
                    if inner.kind == "custom-call" and (found := _PHASE.search(inner.attributes)):
                        return found.group(1)
        return ""

    def channel(self, op: Op) -> str:
        """The channel of the collective in a fusion; its start and its done share it."""
        for name in op.called("calls"):
            for inner in self.computations[name].ops:
                if inner.kind in COLLECTIVES and (found := re.search(r"channel_id=(\d+)", inner.attributes)):
                    return f"channel {found.group(1)}"
        raise ValueError(f"{op.name} holds no collective with a channel: report it with the HLO text.")

    def runs(self) -> Iterator[tuple[Computation, float]]:
        """Each scheduled computation (the entry, bodies of loops, branches) with how often it runs."""
        yield from self._runs(self.entry, 1.0)

    def _runs(self, name: str, times: float) -> Iterator[tuple[Computation, float]]:
        here = self.computations[name]
        yield here, times
        for op in here.ops:
            if op.kind == "while":
                yield from self._runs(op.called("body")[0], times * self.trip_count(op))
            elif op.kind == "conditional":
                yield from self._runs(self.costliest_branch(op), times)
            elif op.kind == "call":
                yield from self._runs(op.called("to_apply")[0], times)

    def costliest_branch(self, op: Op) -> str:
        """The branch with the most estimated cycles; ties go to the first."""
        branches = op.called("branch_computations", "true_computation", "false_computation")
        return max(branches, key=lambda name: sum(inner.estimated_cycles for inner in self.computations[name].ops))


def parse(text: str) -> Module:
    """A module from `compiled.as_text()`.

    Raises:
        ValueError: no entry computation.
    """
    computations: dict[str, list[Op]] = {}
    pending: list[str] = []
    current: list[Op] | None = None
    entry = ""

    def flush() -> None:
        if pending and current is not None:
            current.append(_parse_op("\n".join(pending)))
        pending.clear()

    for line in text.splitlines():
        if not line.startswith(" ") and (header := _HEADER.match(line)):
            flush()
            current = computations.setdefault(header.group(2), [])
            entry = header.group(2) if header.group(1) else entry
        elif _OP.match(line):
            flush()
            pending.append(line)
        elif pending and line != "}":  # the text of a Pallas kernel spreads over lines
            pending.append(line)
    flush()
    if not entry:
        raise ValueError(
            f"{len(text):,} characters of text have no ENTRY computation: this is not the text of a compiled program. "
            "Give what compiled.as_text() returns."
        )
    return Module({name: Computation(name, tuple(ops)) for name, ops in computations.items()}, entry)


def group_size(op: Op, devices: int) -> int:
    """Devices that take part in one instance of a collective."""
    attributes = op.attributes
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*(?:device_ids=\S+\s*)?\{([^}]*)\}", attributes):
        sizes = {axis: int(size) for axis, size in re.findall(r"'([^']+)'=(\d+)", found.group(1))}
        parts = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", found.group(2))
        return math.prod(int(part) if part else sizes[axis] for axis, _, part in parts)
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", attributes):
        return int(found.group(2))
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return found.group(1).count(",") + 1
    return devices


def _parse_op(text: str) -> Op:
    header = _OP.match(text)
    assert header
    at = header.end()
    end = _closing(text, at) + 1 if text[at] == "(" else text.index(" ", at)
    shape = text[at:end]
    opened = text.index("(", end)
    kind = text[end:opened].strip()
    closed = _closing(text, opened)
    inside = text[opened + 1 : closed]
    # The numbers of constants and parameters stand where other instructions have operands.
    attributes = inside + text[closed:] if kind in ("constant", "parameter") else text[closed + 1 :]
    operands = () if kind in ("constant", "parameter") else tuple(_NAME.findall(inside))
    return Op(header.group(2), kind, shape, operands, attributes, bool(header.group(1)))


def _closing(text: str, opened: int) -> int:
    depth = 0
    for at in range(opened, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at
    raise ValueError(f"no closing bracket in {text[:200]!r}: the HLO text is cut off. Compile it again.")


def _space(layout: str) -> int:
    found = re.search(r"S\((\d+)\)", layout)
    return int(found.group(1)) if found else HBM
