"""The verdict in words: for the terminal, for Prefect, and for a run that is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tasks.page.goodput import SHOWN
from tasks.preflight.config import PreflightConfig
from tasks.preflight.estimate import Estimate
from tasks.preflight.interruptions import Outlook
from tasks.preflight.search import Found
from tasks.preflight.slices import Slice

CAVEAT = (
    "Memory is the compiler's account; times are a model (XLA's cycle estimates, assumed ICI and attention speeds), "
    "never checked on this slice."
)


def summary(config: PreflightConfig, own: Estimate, found: Found, outlook: Outlook | None) -> str:
    """A screen of text."""
    rows = [*facts(config, own), *prospects(config, own, outlook)]
    lines = [title(config), "", *(f"{name:22} {value}" for name, value in rows), ""]
    lines += [f"{name:22} {value}" for name, value in choices(own, found)]
    return "\n".join([*lines, "", CAVEAT]) + "\n"


def title(config: PreflightConfig) -> str:
    assert config.step is not None
    slice_ = Slice.parse(config.slice)
    return f"{config.run} on {slice_} ({slice_.chips} chips): {config.step.model}, {config.step.seq_len:,} tokens a row"


def facts(config: PreflightConfig, own: Estimate) -> list[tuple[str, str]]:
    """Name and value of everything worth a line."""
    rows = [
        ("verdict", "fits" if own.fits else f"DOES NOT FIT: {own.refusal}"),
        ("step", f"{own.rows:,} rows, {own.rows_at_once:g} of a device at once, remat {own.remat}"),
        (
            "model FLOPs",
            f"{own.model_flops:.4g} (6 N T, N = {own.params:,}) + {own.attention_model_flops:.3g} attention",
        ),
    ]
    if own.memory is None or own.time is None:
        return rows
    memory, time = own.memory, own.time
    rows += [
        (
            "memory of a device",
            f"peak {memory.peak:.2f} of {memory.available:.2f} GiB; arguments {memory.arguments:.2f}, "
            f"all buffers {memory.temp:.2f}",
        ),
        (
            "XLA's FLOPs",
            f"{own.xla_flops:.4g} = {own.matmul_flops:.4g} matmuls ({own.matmul_flops / own.model_flops:.2f} x 6NT) + "
            f"{own.kernel_flops:.3g} kernels (XLA's cost analysis: {own.cost_analysis_flops:.3g})",
        ),
        ("XLA's own remat", f"{own.remat_ops} instructions" + (": memory is short" if own.remat_ops else "")),
        ("HBM", f"{own.hbm_gigabytes:,.1f} GB a step"),
        *((f"ICI {one.kind}", traffic_line(one)) for one in own.traffic),
        (
            "step time",
            f"{time.step_s:.4g} s = matmuls {time.matmul_s:.4g} + other {time.other_s:.4g} + attention "
            f"{time.kernels_s:.4g} + stalls {time.stalls_s:.4g}",
        ),
        ("roofline", f"{time.roofline_s:.4g} s ({time.roofline_bound})"),
        ("MFU", f"{time.mfu:.1%} (attention faster or slower: {time.mfu_low:.1%} to {time.mfu_high:.1%})"),
        ("speed", f"{time.tokens_per_s_per_chip:,.0f} tokens/s/chip"),
    ]
    if own.cost is not None:
        cost = own.cost
        rows += [
            ("run", f"{cost.tokens:,} tokens, {cost.steps:,} steps, {cost.days:,.1f} days"),
            ("price", f"{cost.chip_hours:,.0f} chip-hours, ${cost.usd:,.0f} ({config.price_source})"),
            ("energy", f"{cost.kwh:,.0f} kWh, {cost.kg_co2e:,.0f} kg CO2e ({config.power_source})"),
        ]
    return rows


def prospects(config: PreflightConfig, own: Estimate, outlook: Outlook | None) -> list[tuple[str, str]]:
    """What interruptions make of the run."""
    if outlook is None or own.cost is None:
        return []
    run, mine, best, assumed = outlook.run, outlook.own, outlook.best, config.interruptions
    longer = mine.seconds.total / (own.cost.steps * run.step_s)
    bad = {cause: seconds for cause, seconds in asdict(mine.seconds).items() if cause != "step"}
    badput = ", ".join(
        f"{SHOWN[cause][0]} {seconds / mine.seconds.total:.1%}"
        for cause, seconds in sorted(bad.items(), key=lambda item: -item[1])
    )
    return [
        (
            "interruptions",
            f"assumed every {assumed.mean_hours_between:g} h, {assumed.notice_fraction:.0%} with "
            f"{assumed.notice_s:g} s of notice: {mine.interruptions:.1f} in the run",
        ),
        (
            "a save",
            f"{run.stall_s:.2g} s of waiting, whole after {run.save_s:.3g} s; restored in {run.restore_s:.3g} s",
        ),
        ("goodput", f"{mine.seconds.goodput:.1%} saving every {mine.save_every_steps:,} steps ({badput})"),
        ("best interval", f"{best.save_every_steps:,} steps: {best.seconds.goodput:.1%}"),
        (
            "run with them",
            f"{mine.seconds.total / 86_400:,.1f} days, ${own.cost.usd * longer:,.0f} if waiting is paid for too",
        ),
    ]


def traffic_line(one: Any) -> str:
    """One kind of collective."""
    return (
        f"{one.gigabytes:,.1f} GB in {one.ops:,.0f}, {one.async_fraction:.0%} beside compute, "
        f"{one.seconds:.3g} s on the wire, {one.exposed_s:.3g} s waited for"
    )


def choices(own: Estimate, found: Found) -> list[tuple[str, str]]:
    """What the search says."""
    if len(found.trials) < 2:
        return []
    rows = [(f"{one.rows_at_once:g} rows, {one.remat}", trial_line(one)) for one in found.trials]
    more = "" if found.complete else " (of what was tried: the search was cut short)"
    if found.best is not None and found.largest is not None:
        rows += [
            ("best", f"{found.best.rows_at_once:g} rows of a device at once, remat {found.best.remat}{more}"),
            ("largest batch", f"{found.largest.rows_at_once:g} rows of a device at once{more}"),
        ]
    else:
        rows += [("best", "nothing that was tried fits" + more)]
    return rows


def trial_line(one: Estimate) -> str:
    if one.memory is None or one.time is None:
        return "does not fit"
    warn = f", {one.remat_ops} instructions computed again by XLA" if one.remat_ops else ""
    return f"peak {one.memory.peak:.2f} GiB, MFU {one.time.mfu:.1%}, stalls {one.time.stalls_s:.3f} s{warn}"


def refusal(verdict: Mapping[str, Any]) -> str:
    """Why a run is refused, and what to do."""
    own, best = verdict["own"], verdict["best"]
    remedy = (
        f"It fits with {best['rows_at_once']:g} rows at once and remat {best['remat']!r}: change accumulate and "
        "remat of the run so."
        if best
        else "Nothing smaller that was tried fits: take a larger slice, or cut the model further (mesh)."
    )
    return (
        f"{verdict['run']} on {verdict['slice']} does not fit: {own['rows_at_once']:g} rows of a device at once with "
        f"remat {own['remat']!r}, and the compiler says: {own['refusal']} A step that does not fit stops before its "
        f"first token, with every chip paid for. {remedy}"
    )


def markdown(config: PreflightConfig, own: Mapping[str, Any], text: str, page: str) -> str:
    """For Prefect's list of artifacts."""
    verdict = "fits" if own["fits"] else "**does not fit**"
    return f"## {config.run} on {config.slice}: {verdict}\n\n```text\n{text}```\n\n[page]({page})\n"


def rows_of_table(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The search as a table."""
    return [
        {
            "rows at once": one["rows_at_once"],
            "remat": one["remat"],
            "fits": one["fits"],
            "peak GiB": round(one["memory"]["peak"], 2) if one["memory"] else None,
            "MFU": round(one["time"]["mfu"], 4) if one["time"] else None,
            "tokens/s/chip": round(one["time"]["tokens_per_s_per_chip"]) if one["time"] else None,
            "stalls s": round(one["time"]["stalls_s"], 4) if one["time"] else None,
        }
        for one in trials
    ]
