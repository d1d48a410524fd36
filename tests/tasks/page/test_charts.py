"""Charts: nothing is lost in down-sampling, nothing runs out of a bar, nothing unescaped gets in."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.page.charts import Part, bar, compact, dot, downsample, element, line_chart, number, shorten, size, ticks

finite = st.floats(-1e6, 1e6, allow_nan=False)


def test_element_escapes_text_and_attributes():
    written = element("text", '<script>alert("1")</script>', class_='a" onload="x', x=1.0)
    parsed = ET.fromstring(written)
    assert parsed.text == '<script>alert("1")</script>'
    assert parsed.attrib == {"class": 'a" onload="x', "x": "1"}


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (1.236, "1.24"), (-0.001, "0"), (0.5, "0.5"), ("a", "a"), (120.0, "120"), (7, "7")]
)
def test_coordinates_have_two_decimals_at_most(value, text):
    assert number(value) == text


@given(st.lists(finite, min_size=1, max_size=700), st.integers(1, 150))
def test_downsampling_keeps_the_peaks_and_the_ends(values, limit):
    steps = [float(i) for i in range(len(values))]
    curve = downsample(steps, values, limit)
    assert len(curve.x) == min(limit, len(values))
    assert max(curve.high) == max(values)
    assert min(curve.low) == min(values)
    assert curve.x[-1] == steps[-1]
    assert list(curve.x) == sorted(set(curve.x))
    for low, mean, high in zip(curve.low, curve.mean, curve.high, strict=True):
        assert low - 1e-6 <= mean <= high + 1e-6


def test_downsampling_of_nothing_is_nothing():
    assert downsample([], []).x == ()


@given(finite, st.floats(1e-3, 1e6))
def test_ticks_lie_inside_and_are_few(low, width):
    found = ticks(low, low + width)
    assert 1 <= len(found) <= 8
    slack = 1e-6 * max(abs(low), width)
    assert all(low - slack <= tick <= low + width + slack for tick in found)


def test_ticks_are_round_numbers():
    assert ticks(4.4, 9.2) == [5, 6, 7, 8, 9]
    assert ticks(0, 420, 4) == [0, 100, 200, 300, 400]
    assert ticks(1, 1) == [1]


@given(st.lists(st.floats(0, 3), max_size=8))
def test_a_bar_never_leaves_its_cell(shares):
    svg = ET.fromstring(bar([Part(share, "kept") for share in shares]))
    for rect in svg:
        # A piece too thin to be seen is widened to 3 of 1000, the only way past the edge.
        assert float(rect.get("x", "0")) + float(rect.get("width", "0")) <= 1003.001


def test_the_pieces_of_a_bar_follow_each_other():
    rects = list(ET.fromstring(bar([Part(0.25, "kept"), Part(0.5, "lost")])))
    assert [(r.get("x"), r.get("width"), r.get("class")) for r in rects] == [
        ("0", "250", "mark kept"),
        ("250", "500", "mark lost"),
    ]


def test_a_dot_stands_between_the_ends_of_its_whisker():
    _, whisker, point = ET.fromstring(dot(0.5, 0.4, 0.6, (0.0, 1.0), "after"))
    assert float(whisker.get("x1", "")) < float(point.get("x1", "")) < float(whisker.get("x2", ""))
    assert point.get("x1") == "500"


@pytest.mark.parametrize("losses", [[3.0], [2.0, 2.0, 2.0], [9.0, 5.0, 4.0, 3.9], [1e6, 3.0], [0.0, 0.0]])
def test_a_curve_stays_inside_its_axes(losses):
    steps = [float(i + 1) for i in range(len(losses))]
    svg = ET.fromstring(
        line_chart(downsample(steps, losses), title="Loss", x_label="step", y_label="nats", kind="after")
    )
    line = svg.find("polyline")
    assert line is not None
    for point in line.get("points", "").split():
        x, y = map(float, point.split(","))
        assert 46 <= x <= 346.1
        assert 16 <= y <= 190.1
    said = ["".join(text.itertext()) for text in svg.iter("text")]
    assert "step" in said
    assert "nats" in said
    assert svg.findtext("title") == "Loss"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (999.4, "999.4"), (1000, "1 k"), (12_345, "12.3 k"), (4_560_000, "4.56 M"), (2e12, "2 T")],
)
def test_compact_counts(value, text):
    assert compact(value) == text


def test_sizes_have_a_unit():
    assert size(47) == "47 B"
    assert size(5680) == "5.68 kB"


@given(st.text(max_size=60), st.integers(6, 40))
def test_a_shortened_name_fits_and_keeps_both_ends(text, limit):
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short == text if len(text) <= limit else short[0] == text[0] and short[-1] == text[-1]


def test_the_numbers_of_a_chart_do_not_depend_on_the_platform_rounding():
    assert number(math.pi * 100) == "314.16"
