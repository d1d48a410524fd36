"""Punctuation: the majority of marks after Japanese decides, independently for commas and full stops."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.edits.punctuation import PunctuationRules, edit

SWALLOW = PunctuationRules()


def one(text: str, rules: PunctuationRules = SWALLOW) -> tuple[str, int, int]:
    (new,), counts = edit([text], rules)
    return new, int(counts["commas"][0]), int(counts["full_stops"][0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("春は，あけぼの．", "春は、あけぼの。", id="western only"),
        pytest.param("春は，夏は、", "春は，夏は、", id="a tie changes nothing"),
        pytest.param("春は，夏は，秋は、", "春は、夏は、秋は、", id="two against one"),
        pytest.param("春は，あけぼの。", "春は、あけぼの。", id="commas and full stops vote by themselves"),
        pytest.param("春は，，，夏．．．", "春は、、、夏。。。", id="the length of a run stays"),
        pytest.param(
            "それは１，０００円，つまり安い，と３．１４は",
            "それは１，０００円、つまり安い、と３．１４は",
            id="digits keep theirs",
        ),
        pytest.param("Ａ，Ｂ，Ｃ，", "Ａ，Ｂ，Ｃ，", id="marks after letters do not vote"),
        pytest.param("（春），「夏」，秋、", "（春）、「夏」、秋、", id="closing brackets vote"),
        pytest.param("サーバー，サーバー，", "サーバー、サーバー、", id="the long vowel is Japanese"),
        pytest.param("A, B. C, D.", "A, B. C, D.", id="half-width marks are no style of Japanese"),
        pytest.param("", "", id="empty"),
    ],
)
def test_the_majority_of_marks_decides(text, expected):
    assert one(text)[0] == expected


def test_replaced_characters_are_counted_by_kind():
    assert one("春は，，夏．") == ("春は、、夏。", 2, 1)
    assert one("春は、夏。") == ("春は、夏。", 0, 0)


def test_a_style_can_be_left_alone():
    assert one("春は，夏．", PunctuationRules(commas=False)) == ("春は，夏。", 0, 1)


@settings(max_examples=60)
@given(texts=st.lists(st.text(alphabet="春ァー，、．。１Ａa)」\n ", max_size=30), max_size=6))
def test_editing_keeps_lengths_and_does_not_depend_on_the_batch(texts):
    together, counts = edit(texts, PunctuationRules())
    assert [len(text) for text in together] == [len(text) for text in texts]
    assert together == [one(text)[0] for text in texts]
    for index, (old, new) in enumerate(zip(texts, together, strict=True)):
        changed = sum(a != b for a, b in zip(old, new, strict=True))
        assert changed == counts["commas"][index] + counts["full_stops"][index]
