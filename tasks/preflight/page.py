"""The page about a preflight: self-contained HTML with bars for time and memory and a table of collectives."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from tasks.preflight.config import PreflightConfig
from tasks.preflight.estimate import Estimate
from tasks.preflight.interruptions import Outlook
from tasks.preflight.schedule import Wire
from tasks.preflight.search import Found
from tasks.preflight.slices import Slice
from tasks.preflight.summary import CAVEAT, choices, facts, prospects, title, trial_line

PAGE = "report.html"
MOST_WIRES = 24


def page(config: PreflightConfig, own: Estimate, found: Found, outlook: Outlook | None) -> str:
    """The HTML text."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.jinja").render(
        title=title(config),
        own=own,
        facts=[*facts(config, own), *prospects(config, own, outlook)],
        time_bar=_time_bar(own),
        memory_bar=_memory_bar(own),
        wires=_places(own.wires),
        trials=[(one, trial_line(one)) for one in found.trials],
        choices=[row for row in choices(own, found) if row[0] in ("best", "largest batch")],
        found=found,
        chip=Slice.parse(config.slice).chip,
        config=config,
        caveat=CAVEAT,
    )


def _time_bar(own: Estimate) -> list[tuple[str, float, float]]:
    """Name, seconds and share of the step."""
    if own.time is None:
        return []
    parts = {
        "matmuls": own.time.matmul_s,
        "other compute": own.time.other_s,
        "attention kernels": own.time.kernels_s,
        "stalls": own.time.stalls_s,
    }
    return [(name, seconds, seconds / own.time.step_s) for name, seconds in parts.items()]


def _memory_bar(own: Estimate) -> list[tuple[str, float, float]]:
    """Name, GiB and share of the HBM that a program may use."""
    if own.memory is None:
        return []
    memory = own.memory
    parts = {
        "weights and optimizer": memory.arguments,
        "activations, gradients, buffers": max(0.0, memory.peak - memory.arguments),
        "free": max(0.0, memory.available - max(memory.peak, memory.arguments)),
    }
    return [(name, size, size / memory.available) for name, size in parts.items()]


def _places(wires: Sequence[Wire]) -> list[Wire]:
    """What is waited for longest, then what is largest."""
    return sorted(wires, key=lambda wire: (-wire.runs * wire.exposed_s, -wire.runs * wire.bytes))[:MOST_WIRES]
