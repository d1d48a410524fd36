"""The pages about a classifier and about a cut: figures in tables, and the same as plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from tasks.classify.config import ClassifierConfig, CutConfig
from tasks.classify.histogram import BIN_WIDTH, LIMIT, NUM_BINS, Threshold
from tasks.classify.judgement import Judgement
from tasks.classify.metrics import Reliability, f1
from tasks.page import content_security_policy, environment, style
from tasks.page.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, element

if TYPE_CHECKING:
    from tasks.classify.cut import Plan

BARS = 60  # of a histogram on the page
MOST_GROUPS = 40  # histograms on one page
_WIDE, _HIGH = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


def classifier_page(name: str, config: ClassifierConfig, facts: Mapping[str, Any], found: Judgement) -> str:
    """The HTML text about a trained classifier."""
    return _render(
        "classifier.html.jinja",
        name=name,
        config=config,
        facts=facts,
        found=found,
        f1=dict(zip(found.marks, f1(found.confusion), strict=True)),
        plots={mark: reliability_plot(rows, mark) for mark, rows in found.reliability.items()},
    )


def cut_page(name: str, config: CutConfig, plan: "Plan") -> str:
    """The HTML text about a cut."""
    shown = list(plan.histograms)[:MOST_GROUPS]
    return _render(
        "cut.html.jinja",
        name=name,
        config=config,
        plan=plan,
        left_out=len(plan.histograms) - len(shown),
        plots={group: histogram_plot(plan.histograms[group], plan.of(group), group) for group in shown},
    )


def reliability_plot(rows: Reliability, mark: int) -> Markup:
    """What was said (x) against what came true (y): an honest classifier lies on the diagonal."""
    parts = [*_frame(f"Reliability of “at least {mark}”", "probability said", "share that came true")]
    parts.append(element("line", x1=_x(0), y1=_y(0), x2=_x(1), y2=_y(1), class_="axis"))
    filled = [i for i, count in enumerate(rows.counts) if count]
    points = [(rows.confidence[i], rows.accuracy[i]) for i in filled]
    line = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
    parts.append(element("polyline", points=line, class_="curve after"))
    for i, (x, y) in zip(filled, points, strict=True):
        radius = 2.5 + 6 * (rows.counts[i] / rows.total) ** 0.5
        parts.append(element("circle", cx=_x(x), cy=_y(y), r=radius, class_="mark after"))
    return element("svg", *parts, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img")


def histogram_plot(counts: np.ndarray, threshold: Threshold, group: str) -> Markup:
    """Documents by log-odds of their score; what is dropped has another colour."""
    filled = np.flatnonzero(counts)
    low, high = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, NUM_BINS)
    edges = np.unique(
        np.append(np.linspace(low, high, BARS + 1).astype(int), np.clip((threshold.bin, threshold.end), low, high))
    )
    starts, ends = edges[:-1], edges[1:]
    heights = np.add.reduceat(counts[:high], starts)
    density = heights / (ends - starts)
    top = float(density.max()) or 1.0
    span = high - low
    parts = [element("title", f"Scores of {group}")]
    for start, end, value in zip(starts, ends, density, strict=True):
        x, height = LEFT + _WIDE * (start - low) / span, _HIGH * float(value) / top
        kind = "kept" if threshold.bin <= start < threshold.end else "lost"
        width = max(_WIDE * (end - start) / span - 0.5, 0.5)
        parts.append(
            element(
                "rect", x=float(x), y=TOP + _HIGH - height, width=float(width), height=height, class_=f"mark {kind}"
            )
        )
    for place in (low, (low + high) // 2, high):
        x = float(LEFT + _WIDE * (place - low) / span)
        parts.append(element("text", f"{place * BIN_WIDTH - LIMIT:.1f}", x=x, y=HEIGHT - 24, class_="tick middle"))
    parts.append(element("text", "log-odds of the score", x=LEFT + _WIDE / 2, y=HEIGHT - 6, class_="label middle"))
    return element("svg", *parts, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img")


def _frame(title: str, x_label: str, y_label: str) -> list[Markup]:
    parts = [element("title", title)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=_y(tick), y2=_y(tick), class_="grid"))
        parts.append(element("text", f"{tick:g}", x=LEFT - 6, y=_y(tick) + 4, class_="tick end"))
        parts.append(element("text", f"{tick:g}", x=_x(tick), y=HEIGHT - BOTTOM + 16, class_="tick middle"))
    parts.append(element("text", x_label, x=LEFT + _WIDE / 2, y=HEIGHT - 6, class_="label middle"))
    parts.append(element("text", y_label, x=0, y=11, class_="label"))
    return parts


def _x(share: float) -> float:
    return LEFT + _WIDE * share


def _y(share: float) -> float:
    return TOP + _HIGH * (1 - share)


def _render(template: str, **facts: Any) -> str:
    sheet = style()
    made = environment(Path(__file__).parent / "templates").get_template(template)
    return made.render(style=sheet, policy=content_security_policy(sheet), **facts)
