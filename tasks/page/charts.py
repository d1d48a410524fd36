"""The charts of the pages: SVG written by hand, safely. Every attribute and text is escaped in `element`, so that
charts can hold untrusted words; colours are class names, and the page's style sheet themes them for light and dark.

Each chart stands beside a table with the same numbers, so none carries a fact alone. Bars and dots are drawn inside
table cells and stretch with them (a phone is as readable as a screen); curves are small multiples 360 units wide, about
the width of a phone, so their letters keep their size.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 230  # of a small multiple
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 16, 40


def element(name: str, *children: str | Markup, **attributes: object) -> Markup:
    """One element. `class_` and `stroke_width` become `class` and `stroke-width`; None leaves an attribute out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup(f"<{name}{written}>") + inside + Markup(f"</{name}>")


def number(value: object) -> str:
    """A coordinate with two decimals at most, so that the same data gives the same bytes everywhere."""
    if isinstance(value, float):
        text = f"{value:.2f}".rstrip("0").rstrip(".")
        return "0" if text in ("-0", "") else text
    return str(value)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that lie in [low, high], about `count` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.8)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def domain(values: Sequence[float], pad: float = 0.06) -> tuple[float, float]:
    """The range of the values with a little air; never empty."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = (high - low) * pad or abs(high) * 0.1 or 1.0
    return low - air, high + air


def text_width(text: str, size: float) -> float:
    """A generous estimate of how wide a sans-serif text is: East Asian characters are square."""
    return sum(1.0 if ord(char) > 0x2E7F else 0.6 for char in text) * size


def shorten(text: str, limit: int) -> str:
    """The text with its middle left out when it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


@dataclass(frozen=True)
class Part:
    """A piece of a bar: its share of the whole cell (0 to 1) and the class that colours it."""

    share: float
    kind: str


def bar(parts: Sequence[Part]) -> Markup:
    """A horizontal bar that fills its table cell. Decoration of the number beside it, so hidden from readers aloud."""
    pieces: list[Markup] = []
    x = 0.0
    for part in parts:
        width = min(max(part.share, 0.0) * 1000, 1000 - x)
        if width > 0:
            shown = max(width, 3.0)  # one row in a million is still visible
            pieces.append(element("rect", x=x, y=0, width=shown, height=12, class_=f"mark {part.kind}"))
        x += width
    return element("svg", *pieces, class_="bar", viewBox="0 0 1000 12", preserveAspectRatio="none", aria_hidden="true")


def dot(value: float, low: float, high: float, span: tuple[float, float], kind: str) -> Markup:
    """A value with its interval from `low` to `high`, on an axis that covers `span`."""

    def x(v: float) -> float:
        return 20 + 960 * (min(max(v, span[0]), span[1]) - span[0]) / ((span[1] - span[0]) or 1.0)

    return element(
        "svg",
        element("line", x1=0, x2=1000, y1=6, y2=6, class_="rule"),
        element("line", x1=x(low), x2=x(high), y1=6, y2=6, class_=f"whisker {kind}"),
        element("line", x1=x(value), x2=x(value), y1=6, y2=6, class_=f"point {kind}"),
        class_="bar",
        viewBox="0 0 1000 12",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


@dataclass(frozen=True)
class Curve:
    """A down-sampled series: at each x the mean, and the least and greatest value it stands for."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def downsample(x: Sequence[float], y: Sequence[float], limit: int = 120) -> Curve:
    """At most `limit` points of a series sorted by x. Peaks stay visible in `low` and `high`."""
    size = len(x)
    count = min(limit, size)
    edges = [round(i * size / count) for i in range(count + 1)] if count else []
    groups = [(x[a:b], y[a:b]) for a, b in itertools.pairwise(edges)]
    return Curve(
        x=tuple(xs[-1] for xs, _ in groups),
        mean=tuple(sum(ys) / len(ys) for _, ys in groups),
        low=tuple(min(ys) for _, ys in groups),
        high=tuple(max(ys) for _, ys in groups),
    )


def line_chart(curve: Curve, *, title: str, x_label: str, y_label: str, kind: str) -> Markup:
    """One curve with its band of noise, axes with units and the last value written at its end."""
    x0, x1 = (min(curve.x), max(curve.x)) if len(set(curve.x)) > 1 else domain(curve.x)
    if 0 < x0 < 0.1 * x1:
        x0 = 0.0  # a curve that begins near the origin shows it
    y0, y1 = domain([*curve.low, *curve.high])

    def px(v: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (v - x0) / (x1 - x0)

    def py(v: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (y1 - v) / (y1 - y0)

    parts: list[Markup] = [element("title", title)]
    heights = ticks(y0, y1)
    digits = next(d for d in range(9) if d == 8 or all(abs(round(tick, d) - tick) < 1e-9 for tick in heights))
    for tick in heights:
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=py(tick), y2=py(tick), class_="grid"))
        parts.append(
            element(
                "text",
                _short(tick, digits, y1),
                x=LEFT - 6,
                y=py(tick) + 4,
                class_="tick end",
            )
        )
    for tick in ticks(x0, x1, 4):
        anchor = "end" if px(tick) > WIDTH - RIGHT - 14 else "middle"
        parts.append(element("text", compact(tick), x=px(tick), y=HEIGHT - BOTTOM + 16, class_=f"tick {anchor}"))
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="axis"))
    parts.append(element("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, class_="label middle"))
    parts.append(element("text", y_label, x=0, y=11, class_="label"))

    there = [f"{_xy(px(x))},{_xy(py(y))}" for x, y in zip(curve.x, curve.high, strict=True)]
    back = [f"{_xy(px(x))},{_xy(py(y))}" for x, y in zip(curve.x, curve.low, strict=True)]
    parts.append(element("polygon", points=" ".join([*there, *reversed(back)]), class_=f"band {kind}"))
    mean = [f"{_xy(px(x))},{_xy(py(y))}" for x, y in zip(curve.x, curve.mean, strict=True)]
    parts.append(element("polyline", points=" ".join(mean), class_=f"curve {kind}"))
    if curve.x:
        value = curve.mean[-1]
        is_small = 0 < abs(value) < 0.1
        last = compact(value) if abs(value) >= 100 else f"{value:.2e}" if is_small else f"{value:.2f}"
        y = py(curve.mean[-1])
        parts.append(element("circle", cx=px(curve.x[-1]), cy=y, r=3.5, class_=f"mark {kind}"))
        # The label stands above the band of noise, or below it when there is no room.
        room = py(curve.high[-1]) - 8
        parts.append(element("text", last, x=WIDTH - RIGHT, y=room if room > TOP + 14 else y + 20, class_="value end"))
    return element("svg", *parts, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img")


def _short(tick: float, digits: int, highest: float) -> str:
    """A tick that fits beside the axis."""
    if highest >= 1e5:
        return compact(tick)
    return f"{tick:.{digits}f}" if digits < 4 or not tick else f"{tick:.1e}".replace("e-0", "e-")


def _xy(value: float) -> str:
    return f"{value:.1f}"


def size(count: float) -> str:
    """Bytes: 47 B, 5.68 kB."""
    text = compact(count)
    return f"{text}B" if " " in text else f"{text} B"


def compact(value: float) -> str:
    """A count in at most four characters and a unit: 950, 12.3 k, 4.56 M."""
    for limit, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.4g}"
