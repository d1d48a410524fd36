"""Language packs: what normalising changes, and what it must leave alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest.filters import FILTERS
from tasks.ingest.languages import LANGUAGES

JA = LANGUAGES["ja"]


@pytest.mark.parametrize("code", LANGUAGES)
class TestEveryPack:
    @given(text=st.text())
    def test_normalising_twice_changes_nothing_more(self, code, text):
        once = LANGUAGES[code].normalise(text)
        assert LANGUAGES[code].normalise(once) == once

    def test_its_rules_are_those_of_known_filters(self, code):
        for name, rules in LANGUAGES[code].filters.items():
            assert isinstance(rules, FILTERS[name].rules)
        assert LANGUAGES[code].code == code


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param("Ｄｅｂｉａｎ　１２", "Debian 12", id="full-width letters, digits and spaces"),
        pytest.param("ｶﾞｲﾄﾞ｡", "ガイド。", id="half-width katakana with voicing"),
        pytest.param("①㈱～！？、。「」", "①㈱～！？、。「」", id="punctuation and vendor characters stay"),
        pytest.param("か\u3099き", "がき", id="combining marks are composed"),
        pytest.param("a\u200bb\ufeffc\u00add", "abcd", id="invisible characters go"),
        pytest.param("a\x00b\x07c", "abc", id="control characters go"),
        pytest.param("一\r\n二\r三", "一\n二\n三", id="line breaks"),
        pytest.param("一\n\n\n\n\n二", "一\n\n二", id="at most one blank line"),
        pytest.param("  • 項目   二  \n    続き", "  • 項目 二\n    続き", id="indentation stays, inner spaces shrink"),
        pytest.param("\n\n一\n\n", "一", id="no blank lines at the ends"),
    ],
)
def test_japanese_normalisation(raw, text):
    assert JA.normalise(raw) == text


def test_code_keeps_every_space():
    source = "def f():\r\n\treturn  'Ａ'   \r\n\n\n\nx = 1"
    assert LANGUAGES["python"].normalise(source) == "def f():\n\treturn  'Ａ'   \n\n\n\nx = 1\n"
