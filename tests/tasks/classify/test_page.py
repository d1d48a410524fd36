"""Plots hold every document they stand for, and no word of a source is markup."""

import re
import xml.etree.ElementTree as ET

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.classify.config import CutConfig
from tasks.classify.cut import Plan
from tasks.classify.histogram import NUM_BINS, Threshold, drift, top_fraction
from tasks.classify.metrics import reliability
from tasks.classify.page import cut_page, histogram_plot, reliability_plot


def counts_of(places: list[int]) -> np.ndarray:
    return np.bincount(np.array(places, int), minlength=NUM_BINS)


@given(st.lists(st.integers(0, NUM_BINS - 1), min_size=1, max_size=50), st.integers(0, NUM_BINS - 1))
@settings(max_examples=40)
def test_the_bars_of_a_histogram_hold_all_documents_and_change_colour_at_the_threshold(places, threshold):
    parsed = ET.fromstring(histogram_plot(counts_of(places), Threshold(threshold, 0.0, 0, 0, 0), "g"))
    bars = [rect for rect in parsed.iter() if rect.tag.endswith("rect")]
    low, high = min(places), max(places) + 1
    left, width = 46.0, 300.0
    span = high - low
    for rect in bars:
        x = (float(rect.attrib["x"]) - left) / width * span + low
        assert -1e-6 <= float(rect.attrib["height"]) <= 230
        if abs(x - threshold) > span / 100:  # coordinates have two decimals
            assert ("kept" in rect.attrib["class"]) == (x >= threshold)
    assert max(float(rect.attrib["height"]) for rect in bars) == 174.0, "the highest bar fills the plot"


def test_a_reliability_plot_has_a_point_for_each_bin_with_texts():
    rows = reliability(np.array([0.05, 0.15, 0.95]), np.array([False, True, True]))
    parsed = ET.fromstring(reliability_plot(rows, 2))
    assert len([node for node in parsed.iter() if node.tag.endswith("circle")]) == 3
    assert "at least 2" in "".join(parsed.itertext())


def test_the_name_of_a_source_is_no_markup():
    name = '<script>alert("x")</script>'
    counts = {name: counts_of([5, 6, 7])}
    plan = Plan(
        highest=1,
        min_score=None,
        thresholds={name: top_fraction(counts[name], 0.3, 1)},
        histograms=counts,
        drifts={name: drift(counts[name], counts[name])},
        warnings=(f"{name} PSI",),
    )
    page = cut_page(name, CutConfig(), plan)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert re.search(r"33\.33 %", page)
