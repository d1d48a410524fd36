"""The step-time model: walk the schedule in order, with collectives in one serial queue beside the TensorCore.

step = XLA's estimated cycles / clock (no matmul above peak) + kernels (priced by hand) + stalls. A stall is when the
TensorCore waits: all of a synchronous collective, and of an asynchronous one what is left when its `done` comes up.
Collectives beside the TensorCore wait for each other, because each generation has one engine for them.
Each run of a loop's body starts with an empty queue.

Left out: contention for HBM between collectives and compute, PCIe, the network between slices, input and logging.
XLA's cycle estimates are not seconds of a chip: they rank variants. What is assumed stands in `Assumptions`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tasks.preflight.costs import matmul_flops
from tasks.preflight.hlo import Computation, Module, Op, group_size
from tasks.preflight.slices import Slice

KernelSeconds = Callable[[Op, Computation], float]


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the model takes as given."""

    ring_links: int = 2
    """Links of the one bidirectional ring on which gathers and scatters of the SparseCore run."""
    collective_latency_s: float = 1e-4
    """Of each asynchronous collective (a guess)."""


@dataclass(frozen=True)
class Wire:
    """All runs of one collective of the program in a step."""

    name: str
    kind: str
    source: str
    is_async: bool
    runs: float
    bytes: float
    """Over ICI, of one device and one run."""
    seconds: float
    """On the wire, one run."""
    window_s: float
    """TensorCore work between its start and the moment it is waited for, one run."""
    exposed_s: float
    """What of it the TensorCore waits, one run."""


@dataclass
class Timeline:
    """Seconds of one run of a computation, and its collectives."""

    compute_s: float = 0.0
    matmul_s: float = 0.0
    kernel_s: float = 0.0
    stall_s: float = 0.0
    wires: list[Wire] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.compute_s + self.kernel_s + self.stall_s

    def add(self, other: "Timeline", times: float) -> None:
        """Append `times` runs of another timeline."""
        self.compute_s += times * other.compute_s
        self.matmul_s += times * other.matmul_s
        self.kernel_s += times * other.kernel_s
        self.stall_s += times * other.stall_s
        self.wires += [
            Wire(w.name, w.kind, w.source, w.is_async, times * w.runs, w.bytes, w.seconds, w.window_s, w.exposed_s)
            for w in other.wires
        ]


def timeline(
    module: Module, slice_: Slice, kernel_seconds: KernelSeconds, assumptions: Assumptions = Assumptions()
) -> Timeline:
    """One step of one device."""
    return _Walk(module, slice_, kernel_seconds, assumptions).run(module.entry)


def ici_bytes(kind: str, op: Op, group: int) -> float:
    """Bytes that a device sends over ICI for its part of a collective."""
    share = (group - 1) / group
    if kind == "all-gather":
        return _result(op) * share
    if kind == "reduce-scatter":
        return _result(op) * (group - 1)
    if kind == "all-reduce":
        return 2 * op.bytes * share
    if kind in ("all-to-all", "ragged-all-to-all"):
        return op.bytes * share
    return _result(op) if group > 1 else 0.0


def wire_seconds(kind: str, sent: float, group: int, slice_: Slice, *, offloaded: bool, ring_links: int) -> float:
    """Seconds on the wire without latency.

    The links of all torus dimensions that the group spans carry a collective, but for gathers and scatters offloaded to
    SparseCore, which run on one ring. In an all-to-all a byte travels a quarter of a ring's length on average.
    """
    chip = slice_.chip
    side = max(slice_.shape) * chip.devices
    dimensions = min(len(slice_.shape), math.ceil(math.log(max(group, 2), max(side, 2)) - 1e-9))
    links = 2 * dimensions
    if offloaded and kind in ("all-gather", "reduce-scatter"):
        links = min(links, ring_links)
    if kind == "collective-permute":
        links = 1
    if kind in ("all-to-all", "ragged-all-to-all"):
        sent *= max(1.0, group ** (1 / dimensions) / 4)
    return sent / (links * chip.link_bytes_per_s)


class _Walk:
    def __init__(self, module: Module, slice_: Slice, kernel_seconds: KernelSeconds, assumptions: Assumptions):
        self._module, self._slice, self._assumptions = module, slice_, assumptions
        self._kernel_seconds = kernel_seconds
        self._done: dict[str, Timeline] = {}

    def run(self, name: str) -> Timeline:
        if name not in self._done:
            self._done[name] = self._run(name)
        return self._done[name]

    def _run(self, name: str) -> Timeline:
        here = self._module.computations[name]
        entered = _entering(here.ops)
        line = Timeline()
        queue = _Queue(line)
        for op in here.ops:
            phase = self._module.fused_phase(op)
            if op.kind == "while":
                line.add(self.run(op.called("body")[0]), self._module.trip_count(op))
            elif op.kind == "conditional":
                line.add(self.run(self._module.costliest_branch(op)), 1)
            elif op.kind == "call":
                line.add(self.run(op.called("to_apply")[0]), 1)
            elif op.is_kernel:
                line.kernel_s += self._kernel_seconds(op, here)
            elif found := self._module.collective(op):
                wire = self._wire(op, *found)
                if not wire.is_async:
                    line.stall_s += wire.seconds
                    line.wires.append(wire)
                elif phase:
                    queue.announce(self._module.channel(op), wire, self._latency)
                    queue.enter(self._module.channel(op))
                else:
                    queue.announce(op.name, wire, self._latency)
            elif phase:
                queue.leave(self._module.channel(op))
            else:
                flops = matmul_flops(self._module, here, op)
                chip = self._slice.chip
                # Some estimates are below what the matrix units can do; none may be.
                seconds = max(op.estimated_cycles / chip.clock_hz, flops / chip.peak_flops)
                line.compute_s += seconds
                line.matmul_s += seconds if flops else 0.0
            queue.enter(entered.get(op.name, ""))
            if op.kind.endswith("-done"):
                queue.leave(_first(op, entered))
        assert not queue.open, f"{name}: {sorted(queue.open)} never end"
        return line

    @property
    def _latency(self) -> float:
        return self._assumptions.collective_latency_s

    def _wire(self, op: Op, inner: Op, _: object) -> Wire:
        kind = inner.kind.removesuffix("-start")
        group = group_size(inner, self._slice.devices)
        sent = ici_bytes(kind, inner, group)
        is_async = op.kind.endswith("-start") or bool(self._module.fused_phase(op))
        if op.kind == "fusion" and not is_async:  # around an all-reduce and the slice of it that is kept
            kind, sent = "reduce-scatter", inner.bytes * (group - 1) / group
        offloaded = op.kind == "call-start"
        seconds = wire_seconds(
            kind, sent, group, self._slice, offloaded=offloaded, ring_links=self._assumptions.ring_links
        )
        exposed = 0.0 if is_async else seconds
        return Wire(op.name, kind, inner.source or op.source, is_async, 1, sent, seconds, 0.0, exposed)


class _Queue:
    """Collectives beside the TensorCore: announced by their start, through one after another, waited for at the end."""

    def __init__(self, line: Timeline):
        self._line = line
        self._free = 0.0  # when those so far are through
        self.open: dict[str, tuple[Wire, float]] = {}  # start -> the collective and its seconds with latency
        self._inside: dict[str, tuple[float, float]] = {}  # start -> when it is through, TensorCore work before it

    def announce(self, start: str, wire: Wire, latency: float) -> None:
        self.open[start] = (wire, wire.seconds + latency)

    def enter(self, start: str) -> None:
        if start in self.open and start not in self._inside:
            self._free = max(self._free, self._line.seconds) + self.open[start][1]
            self._inside[start] = (self._free, self._line.compute_s + self._line.kernel_s)

    def leave(self, start: str) -> None:
        if start not in self._inside:
            return
        wire, _ = self.open.pop(start)
        through, before = self._inside.pop(start)
        exposed = max(0.0, through - self._line.seconds)
        window = self._line.compute_s + self._line.kernel_s - before
        self._line.stall_s += exposed
        self._line.wires.append(
            Wire(wire.name, wire.kind, wire.source, True, 1, wire.bytes, wire.seconds, window, exposed)
        )


def _entering(ops: tuple[Op, ...]) -> Mapping[str, str]:
    """Instruction at which an asynchronous collective enters the queue (its update, or its start) -> its start."""
    starts = {op.name: op.name for op in ops if op.kind.endswith("-start")}
    for op in ops:
        if op.kind.endswith("-update") and op.operands and op.operands[0] in starts:
            start = starts.pop(op.operands[0])
            starts[op.name] = start
    return starts


def _first(op: Op, entered: Mapping[str, str]) -> str:
    return entered.get(op.operands[0], "") if op.operands else ""


def _result(op: Op) -> float:
    """Bytes of the result proper: a start names its operands first and its result second."""
    if op.kind.endswith("-start") and len(op.arrays) > 1:
        return max(array.bytes for array in op.arrays)
    return op.bytes
