"""Letters are those of casefold(NFKC(text)), whatever stands beside a text in its batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.decontaminate.letters import SEPARATOR, UNSPACED, letters, text_of
from tests.tasks.decontaminate.slow import is_unspaced, plain

# Characters above the last plane with letters are no letters here; Python 3.11 knows none there either.
TEXTS = st.text(st.characters(codec=None, max_codepoint=0x3347F), max_size=40)
TRICKY = st.text(st.sampled_from("aｱｶﾞ゙゚がｶé́eßİıſﬁ①½㈱…ー々ABCａｂ１２한ᄒ" + "ᅡᆫ" + "Å\u0344\u0f73 \n\0"), max_size=20)


def read(texts: list[str]) -> list[str]:
    found = letters(texts)
    assert found.codes.dtype == np.uint32
    starts = [0, *found.ends[:-1].tolist()]
    return [text_of(found.codes[a:b]) for a, b in zip(starts, found.ends.tolist(), strict=True)]


@given(st.lists(TEXTS | TRICKY, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_letters_are_those_of_the_normalised_text(texts):
    assert [text.split() for text in read(texts)] == [plain(text).split() for text in texts]


def check_points(points: range, contexts: tuple[str, ...]) -> None:
    for context in contexts:
        texts = [context + chr(c) for c in points if not 0xD800 <= c < 0xE000]
        assert [text.split() for text in read(texts)] == [plain(text).split() for text in texts]


@pytest.mark.slow
def test_code_points_of_the_first_plane_after_a_letter_that_may_join():
    check_points(range(0x0000, 0x3400), ("e",))
    check_points(range(0x3041, 0x3100), ("か", "가"))
    check_points(range(0xF900, 0x10000), ("か",))


@pytest.mark.slow
def test_every_code_point_by_itself_and_after_letters():
    check_points(range(0x33480), ("", "か", "가", "e"))


def test_each_text_ends_with_a_separator_so_that_no_word_goes_on_in_the_next():
    found = letters(["abc", "", "def"])
    assert found.ends.tolist() == [4, 5, 9]
    assert [found.codes[end - 1] for end in found.ends] == [SEPARATOR] * 3


@pytest.mark.parametrize("text", ["漢字かなカナ々ーｶﾅ", "ภาษาไทย", "abc한국어ёж١٢"])
def test_scripts_without_spaces_are_marked(text):
    found = letters([text])
    shown = text_of(found.codes[found.codes != SEPARATOR])
    assert [bool(c & UNSPACED) for c in found.codes[found.codes != SEPARATOR]] == [is_unspaced(c) for c in shown]


def test_a_lone_surrogate_is_no_letter_and_no_fault():
    assert read(["a\ud800b"]) == ["a b "]
