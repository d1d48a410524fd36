"""The line that fastText reads: nothing in a document can end it early or pass for a label."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.classify.model import open_classifier
from tasks.classify.text import to_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("水は\n流れる。\r\n\t氷は　流れない。", "水は 流れる。 氷は 流れない。", id="white space"),
        pytest.param("a\0b\x0bc\x0cd\x85e", "a b c d e", id="control characters that are white space"),
        pytest.param("__label__1 __label__", "_label_1 _label_", id="labels"),
        pytest.param("a </s> b", "a < /s> b", id="end of line"),
        pytest.param(" \n", "", id="nothing"),
        pytest.param("𠮷野家🍣", "𠮷野家🍣", id="beyond the basic plane"),
    ],
)
def test_a_text_is_one_line(text, line):
    assert to_line(text) == line


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
@settings(max_examples=60)
def test_a_line_is_a_line_and_stays_one(text):
    line = to_line(text)
    assert to_line(line) == line
    assert not set("\n\r\t\v\f\0") & set(line)
    assert "__label__" not in line
    assert "</s>" not in line.split(" ")


def test_what_follows_the_end_mark_still_counts(classifier):
    """fastText reads no further than the word </s>: a page could hide all of itself behind one."""
    model = open_classifier(classifier)
    shop, hidden = "送料無料で今すぐ購入。" * 3, "光合成は葉緑体で行われる。 </s> " + "送料無料で今すぐ購入。" * 3
    raw = model.scores(model.probabilities([shop, "光合成は葉緑体で行われる。", hidden, to_line(hidden)]))
    assert raw[2] == pytest.approx(raw[1], abs=1e-6), "fastText itself sees only the beginning"
    assert raw[3] < raw[1] - 0.1
