"""From a compiled step to what a person asks: does it fit, how fast is it, what does the run cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model.config import DecoderConfig
from tasks.preflight.compiler import Compiled
from tasks.preflight.config import PreflightConfig, TrainedStep
from tasks.preflight.costs import totals
from tasks.preflight.hlo import parse
from tasks.preflight.kernels import Attention, kernel_name, visible_scores
from tasks.preflight.schedule import Assumptions, Timeline, Wire, timeline
from tasks.preflight.slices import GIB, Slice


@dataclass(frozen=True, kw_only=True)
class Memory:
    """GiB of one device."""

    arguments: float
    temp: float
    peak: float
    available: float


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """All collectives of one kind, one device and one step."""

    kind: str
    ops: float
    gigabytes: float
    """Sent over ICI."""
    seconds: float
    """On the wire."""
    async_fraction: float
    """Of the bytes: those that move while the TensorCore computes."""
    exposed_s: float
    """What the TensorCore waits."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one optimizer step, by the model of `schedule.py`."""

    matmul_s: float
    other_s: float
    kernels_s: float
    stalls_s: float
    step_s: float
    mfu: float
    """6 N T over peak FLOP/s and step_s."""
    mfu_low: float
    mfu_high: float
    tokens_per_s_per_chip: float
    roofline_s: float
    """The least that FLOPs, HBM and ICI allow, each at its peak and all at once."""
    roofline_bound: str


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """The whole run, without restarts and evaluation."""

    tokens: int
    steps: int
    days: float
    chip_hours: float
    usd: float
    kwh: float
    kg_co2e: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One program: what it is, whether it fits, and (if it does) what it does."""

    remat: str
    rows_at_once: float
    accumulate: int
    rows: int
    digest: str
    compile_s: float
    fits: bool
    refusal: str
    params: int
    model_flops: float
    """6 N T, of a device and step; of a mixture N is what a token goes through."""
    attention_model_flops: float
    """Forward and backward over visible scores, which 6 N T leaves out."""
    memory: Memory | None = None
    matmul_flops: float = 0.0
    kernel_flops: float = 0.0
    cost_analysis_flops: float = 0.0
    hbm_gigabytes: float = 0.0
    kernels: dict[str, float] | None = None
    remat_ops: int = 0
    time: StepTime | None = None
    traffic: tuple[Traffic, ...] = ()
    wires: tuple[Wire, ...] = ()
    cost: RunCost | None = None

    @property
    def xla_flops(self) -> float:
        """Matmuls and kernels of the compiled program, loops counted in full."""
        return self.matmul_flops + self.kernel_flops

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(compiled: Compiled, step: TrainedStep, cfg: DecoderConfig, config: PreflightConfig) -> Estimate:
    """Everything that is known of one program."""
    slice_ = Slice.parse(config.slice)
    tokens = step.rows * step.seq_len / slice_.devices
    base = Estimate(
        remat=str(step.compute["remat"]),
        rows_at_once=step.rows_at_once,
        accumulate=step.accumulate,
        rows=step.rows,
        digest=compiled.digest,
        compile_s=compiled.facts["compile_s"],
        fits=compiled.fits,
        refusal=compiled.facts["refusal"],
        params=cfg.num_params,
        model_flops=6.0 * cfg.num_active_params * tokens,
        attention_model_flops=attention_model_flops(cfg, step.seq_len) * step.rows / slice_.devices,
    )
    if not compiled.fits:
        return base
    return _measured(base, compiled, step, cfg, config, slice_)


def attention_model_flops(cfg: DecoderConfig, seq_len: int) -> float:
    """Of one row, forward and backward without recomputation: 12 x head_dim x heads x visible scores."""
    scores = sum(visible_scores(seq_len, window) for window in cfg.layer_windows)
    return 12.0 * cfg.head_dim * cfg.num_heads * scores


def _measured(
    base: Estimate, compiled: Compiled, step: TrainedStep, cfg: DecoderConfig, config: PreflightConfig, slice_: Slice
) -> Estimate:
    module = parse(compiled.hlo())
    calls = [(op, here, times) for here, times in module.runs() for op in here.ops if op.is_kernel]
    attention = Attention.of(cfg, step.seq_len, step.mesh.get("context", 1), {kernel_name(op) for op, _, _ in calls})
    found = totals(module)
    kernel_flops = sum(times * attention.flops(op, here) for op, here, times in calls)
    speed = slice_.chip.peak_flops * config.attention_efficiency
    line = timeline(
        module,
        slice_,
        lambda op, here: attention.flops(op, here) / speed,
        Assumptions(ring_links=config.ring_links, collective_latency_s=config.collective_latency_s),
    )
    ici = sum(wire.runs * wire.bytes for wire in line.wires)
    bounds = {
        "compute": (found.matmul_flops + kernel_flops) / slice_.chip.peak_flops,
        "HBM": found.hbm_bytes / slice_.chip.hbm_bytes_per_s,
        "ICI": ici / (slice_.chip.links * slice_.chip.link_bytes_per_s),
    }
    time = _time(base, line, config, slice_, step, bounds)
    memory = compiled.facts["memory"]
    kernels: dict[str, float] = {}
    for op, _, times in calls:
        kernels[kernel_name(op)] = kernels.get(kernel_name(op), 0.0) + times
    return Estimate(
        **{name: getattr(base, name) for name in _BASE},
        memory=Memory(
            arguments=memory["argument"] / GIB,
            temp=memory["temp"] / GIB,
            peak=memory["peak"] / GIB,
            available=slice_.chip.hbm_bytes / GIB,
        ),
        matmul_flops=found.matmul_flops,
        kernel_flops=kernel_flops,
        cost_analysis_flops=compiled.facts["cost_analysis_flops"],
        hbm_gigabytes=found.hbm_bytes / 1e9,
        kernels=kernels,
        remat_ops=found.remat_ops,
        time=time,
        traffic=traffic(line.wires),
        wires=tuple(sorted(line.wires, key=lambda wire: -wire.runs * wire.exposed_s)),
        cost=run_cost(step, time.step_s, slice_, config) if step.total_tokens else None,
    )


_BASE = (
    "remat", "rows_at_once", "accumulate", "rows", "digest", "compile_s", "fits", "refusal", "params",
    "model_flops", "attention_model_flops",
)  # fmt: skip


def _time(
    base: Estimate,
    line: Timeline,
    config: PreflightConfig,
    slice_: Slice,
    step: TrainedStep,
    bounds: dict[str, float],
) -> StepTime:
    peak = slice_.chip.peak_flops

    def mfu(efficiency: float) -> float:
        seconds = line.seconds + line.kernel_s * (config.attention_efficiency / efficiency - 1)
        return base.model_flops / peak / seconds

    bound = max(bounds, key=lambda name: bounds[name])
    return StepTime(
        matmul_s=line.matmul_s,
        other_s=line.compute_s - line.matmul_s,
        kernels_s=line.kernel_s,
        stalls_s=line.stall_s,
        step_s=line.seconds,
        mfu=mfu(config.attention_efficiency),
        mfu_low=mfu(config.attention_efficiency_low),
        mfu_high=mfu(config.attention_efficiency_high),
        tokens_per_s_per_chip=step.rows * step.seq_len / line.seconds / slice_.chips,
        roofline_s=bounds[bound],
        roofline_bound=bound,
    )


def traffic(wires: Sequence[Wire]) -> tuple[Traffic, ...]:
    """Collectives by kind, the most bytes first."""
    found = []
    for kind in dict.fromkeys(wire.kind for wire in wires):
        same = [wire for wire in wires if wire.kind == kind]
        size = sum(wire.runs * wire.bytes for wire in same)
        beside = sum(wire.runs * wire.bytes for wire in same if wire.is_async)
        found.append(
            Traffic(
                kind=kind,
                ops=sum(wire.runs for wire in same),
                gigabytes=size / 1e9,
                seconds=sum(wire.runs * wire.seconds for wire in same),
                async_fraction=beside / size if size else 0.0,
                exposed_s=sum(wire.runs * wire.exposed_s for wire in same),
            )
        )
    return tuple(sorted(found, key=lambda one: -one.gigabytes))


def run_cost(step: TrainedStep, step_s: float, slice_: Slice, config: PreflightConfig) -> RunCost:
    """Steps x seconds, and what the chips of the slice take in that time."""
    tokens = step.total_tokens or 0
    steps = max(1, tokens // (step.rows * step.seq_len))
    hours = steps * step_s / 3600
    chip_hours = hours * slice_.chips
    price = slice_.chip.usd_per_hour if config.usd_per_chip_hour is None else config.usd_per_chip_hour
    watts = slice_.chip.watts if config.watts_per_chip is None else config.watts_per_chip
    kwh = chip_hours * watts * config.pue / 1000
    return RunCost(
        tokens=tokens,
        steps=steps,
        days=hours / 24,
        chip_hours=chip_hours,
        usd=chip_hours * price,
        kwh=kwh,
        kg_co2e=kwh * config.grams_co2e_per_kwh / 1000,
    )
