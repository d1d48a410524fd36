"""The form in which texts are compared: a batch is the same as one by one, for any Unicode."""

import sys
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.comparable import comparable, comparables

NASTY = "がかﾞﾟ゙é́ΐŉﬁ①㈱…　\x1c\x85ßİſ각각가\u0345\U0001d15eﷺ½²´¨ \n\tA"
LETTERS = st.one_of(st.sampled_from(NASTY), st.characters())  # of any category, lone surrogates too


@given(st.lists(st.text(LETTERS, max_size=25), max_size=6))
@settings(max_examples=150)
def test_a_batch_is_the_same_as_one_by_one(texts):
    assert comparables(texts) == [comparable(text) for text in texts]


def test_every_character_stands_alone_as_in_a_text():
    """Each code point between letters that others like to melt into, against Python's own normaliser."""
    texts = [f"a{chr(code)}e\u1100{chr(code)}" for code in range(0x3400)]
    texts += [f"か{chr(code)}" for code in range(0x3400, 0x20100) if not 0x4E10 < code < 0x9F00]
    texts += [f"x{chr(code)}" for code in (*range(0x2F7F0, 0x30010), 0xE0001, 0x10FFFF)]
    assert comparables(texts) == [comparable(text) for text in texts]


def test_ideographs_that_are_not_looked_up_are_their_own_form():
    for code in range(0x20000, 0x2F800):
        character = chr(code)
        assert unicodedata.normalize("NFKC", character) == character
        assert character.casefold() == character


def test_a_text_of_blanks_is_empty_and_neighbours_do_not_melt():
    assert comparables(["  ", "a", "", " b ", "　\n"]) == ["", "a", "", "b", ""]
    assert comparables(["か", "\u3099"]) == ["か", comparable("\u3099")]
    assert sys.maxunicode == 0x10FFFF
