"""Language packs: what normalising changes, and what it must leave alone."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.characters import INVISIBLE
from tasks.ingest.filters import FILTERS
from tasks.ingest.languages import LANGUAGES
from tasks.ingest.languages.pack import tidy

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


def slow_tidy(text: str) -> str:
    """What `tidy` says it does, one character and one line at a time: the oracle."""
    text = "".join(char for char in text if not "\ud800" <= char <= "\udfff").replace("\r\n", "\n")
    text = "".join("\n" if char in "\r\x0c\x85\u2028\u2029" else char for char in text)
    text = unicodedata.normalize("NFC", "".join(char for char in text if not INVISIBLE.match(char)))
    lines: list[str] = []
    for line in text.replace("\u00a0", " ").split("\n"):
        made, at = "", 0
        while at < len(line):
            end = at
            while end < len(line) and (line[end] in " \t\u202f\u205f\u3000" or "\u2000" <= line[end] <= "\u200a"):
                end += 1
            if end == at:
                made, at = made + line[at], at + 1
            else:
                made, at = made + (" " if at and not line[at - 1].isspace() else line[at:end]), end
        lines.append(made.rstrip())
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip("\n")


_UNTIDY = "ab あが\u3099\t \u00a0\u3000\u2003\u1680\n\n\r\x0b\x0c\x85\u2028\u200b\ufeff\ud800\x1c\u00ad"


@settings(max_examples=300)
@given(st.one_of(st.text(alphabet=_UNTIDY, max_size=30), st.text(max_size=30)))
def test_tidying_is_what_it_says(text):
    assert tidy(text) == slow_tidy(text)


def test_code_keeps_every_space():
    source = "def f():\r\n\treturn  'Ａ'   \r\n\n\n\nx = 1"
    assert LANGUAGES["python"].normalise(source) == "def f():\n\treturn  'Ａ'   \n\n\n\nx = 1\n"
