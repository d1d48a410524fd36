"""Verdicts: what is measured, in which order reasons count, and that a batch is nothing but its texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.filters import FILTERS
from tasks.ingest.filters.verdicts import columns_of, decide, judge, limits_of
from tasks.ingest.languages import LANGUAGES
from tasks.ingest.texts import PART_CHARS, Texts

APPLIED = {
    name: FILTERS[name].rules(**thresholds)
    for name, thresholds in {
        "length": {"min_chars": 4},
        "japanese": {"min_japanese_letters": 2},
        "sentences": {"min_mean_chars": 2},
        "duplication": {"max_sentences": 0.3},
        "character_ngrams": {},
    }.items()
}
STRINGS = st.lists(st.text(alphabet="あいア漢。\n x", max_size=30), max_size=8)


@given(STRINGS, st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_how_texts_are_batched_changes_nothing(strings, chars):
    together = judge(Texts(strings), APPLIED)
    alone = [judge(Texts([text]), APPLIED) for text in strings]
    assert together.reasons == [verdict.reasons[0] for verdict in alone]
    for name, values in together.columns.items():
        np.testing.assert_array_equal(values, [verdict.columns[name][0] for verdict in alone])
    parts = list(Texts(strings).parts(chars))
    assert [text for part in parts for text in part.strings] == strings
    assert all(sum(map(len, part.strings)) <= chars or len(part) == 1 for part in parts)


@given(STRINGS)
@settings(max_examples=50, deadline=None)
def test_measuring_everything_changes_no_reason(strings):
    some, everything = judge(Texts(strings), APPLIED), judge(Texts(strings), APPLIED, everything=True)
    assert some.reasons == everything.reasons
    assert some.reasons == decide(everything.columns, limits_of(APPLIED))
    for name, values in some.columns.items():
        measured = ~np.isnan(values)
        np.testing.assert_array_equal(values[measured], everything.columns[name][measured])


def test_expensive_filters_see_only_texts_that_nothing_dropped():
    strings = ["あ", "今日は天気が良いので散歩に行きました。"]
    found = judge(Texts(strings), APPLIED)
    assert found.reasons == ["too_short", None]
    top = found.columns["character_ngrams.top_2"]
    assert np.isnan(top[0])
    assert top[1] == 1 / 18
    assert not np.isnan(judge(Texts(strings), APPLIED, everything=True).columns["character_ngrams.top_2"]).any()


def test_the_first_broken_limit_in_order_is_the_reason():
    assert judge(Texts(["x"]), APPLIED).reasons == ["too_short"]
    assert judge(Texts(["xxxx"]), APPLIED).reasons == ["few_japanese_letters"]
    backwards = dict(reversed(APPLIED.items()))
    assert judge(Texts(["x"]), backwards).reasons == ["too_short"]


def test_thresholds_can_move_without_measuring_again():
    strings = ["あ" * 3 + "漢" * 3, "あ" * 9]
    measured = judge(Texts(strings), APPLIED, everything=True).columns
    moved = APPLIED | {"length": FILTERS["length"].rules(min_chars=7)}
    assert decide(measured, limits_of(moved)) == judge(Texts(strings), moved).reasons


@pytest.mark.parametrize("code", LANGUAGES)
def test_columns_are_known_before_anything_is_measured(code):
    applied = LANGUAGES[code].filters
    found = judge(Texts([]), applied)
    assert found.reasons == []
    assert list(found.columns) == columns_of(applied)
    assert all(values.dtype == np.float64 for values in found.columns.values())


def test_no_filter_keeps_everything():
    assert judge(Texts(["", "x"]), {}).reasons == [None, None]


def test_a_rule_that_is_switched_off_is_not_measured():
    off = {"duplication": FILTERS["duplication"].rules(max_lines=1.0)}
    assert columns_of(off) == ["duplication.line_chars"]


def test_a_text_longer_than_a_part_is_judged_whole():
    strings = ["x", "あいう。" * (PART_CHARS // 4 + 1), "x", "漢字とかな。"]
    lengths = judge(Texts(strings), {"length": APPLIED["length"]}).columns["length.chars"]
    assert lengths.tolist() == [1, PART_CHARS + 4, 1, 6]


def test_urls_belong_to_texts():
    assert list(Texts(["a", "b", "c"], ["u", "v", "w"]).take([2, 0]).urls) == ["w", "u"]
    with pytest.raises(ValueError, match="1 urls for 2 texts"):
        Texts(["a", "b"], ["u"])
