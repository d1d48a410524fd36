"""Footers: the share of keywords in one of the last lines decides where a text ends."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.edits.footer import FooterRules, edit, fold

BODY = "これは本文です。\n次の行も本文です。"
SWALLOW = FooterRules()


def one(text: str, rules: FooterRules = SWALLOW) -> str:
    return edit([text], rules)[0][0]


@pytest.mark.parametrize(
    ("footer", "left"),
    [
        pytest.param("プライバシーポリシー | 利用規約\n© 2024 例の会社", "", id="a line of links and all below"),
        pytest.param("Copyright © 2024\nおわり", "", id="everything below goes, keyword or not"),
        pytest.param("ログイン一二三四五六七八九十", "ログイン一二三四五六七八九十", id="4 of 14 stays"),
        pytest.param("続きはまた明日書きます。", "続きはまた明日書きます。", id="no keyword"),
        pytest.param("無断転載を禁じます", "", id="the longest keyword is taken out first"),
        pytest.param("ALL RIGHTS RESERVED.", "", id="capitals do not count"),
    ],
)
def test_a_line_of_keywords_ends_the_text(footer, left):
    assert one(f"{BODY}\n{footer}") == (f"{BODY}\n{left}" if left else BODY)


@pytest.mark.parametrize(
    ("rest", "cut"),
    [
        pytest.param("一二三四五", False, id="2 of 7"),
        pytest.param("一二三四", True, id="2 of 6"),
    ],
)
def test_more_than_three_tenths_cut(rest, cut):
    assert (one(f"{BODY}\n検索{rest}") == BODY) == cut


def test_a_share_that_equals_the_limit_stays():
    line = "検索一二三四五六七八"
    rules = FooterRules(max_fraction=0.2)
    assert one(f"{BODY}\n{line}", rules) == f"{BODY}\n{line}"  # 2 of 10
    assert one(f"{BODY}\n{line}", FooterRules(max_fraction=0.19)) == BODY


def test_only_the_last_ten_lines_are_looked_at():
    ten = "\n\n".join(f"本文の{n}行目。" for n in range(10))
    assert one(f"ログイン\n{ten}") == f"ログイン\n{ten}"
    nine = "\n\n".join(f"本文の{n}行目。" for n in range(9))
    assert one(f"{BODY}\nログイン\n{nine}") == BODY


def test_what_was_cut_is_counted():
    (left,), counts = edit([f"{BODY}\n\nログイン\n\nおわり"], SWALLOW)
    assert left == BODY
    assert (counts["lines"][0], counts["chars"][0]) == (2, len("\n\nログイン\n\nおわり"))


def test_the_config_names_the_list_by_its_digest():
    assert SWALLOW.keywords.startswith("footer-ja#sha256=")
    with pytest.raises(ValueError, match=r"is not one of .*footer-en.*Use one of these"):
        FooterRules(keywords="footer-xx")


def test_what_re_takes_for_equal_is_equal_when_folded():
    cased = [chr(code) for code in range(0x20000) if chr(code).lower() != chr(code) or chr(code).upper() != chr(code)]
    pairs = [(char, other) for char in cased for other in (char.lower(), char.upper()) if len(other) == 1]
    pairs += itertools.permutations("iIıİsSſkK\u212aµμΜςσΣϐβẛṡß", 2)
    equal = [(a, b) for a, b in pairs if re.fullmatch(re.escape(a), b, re.IGNORECASE)]
    assert len(equal) > 2000
    assert [(a, b) for a, b in equal if fold(a) != fold(b)] == []


@pytest.mark.parametrize("line", ["S\u0131te map", "S\u0130TEMAP", "\u017fitemap"])
def test_letters_that_re_takes_for_others_hide_no_keyword(line):
    assert one(f"Body.\n{line}", FooterRules(keywords="footer-en")) == "Body."


@settings(max_examples=60)
@given(texts=st.lists(st.text(alphabet="本文。\n ログイン検索©", max_size=60), max_size=5))
def test_a_text_only_ever_loses_its_end(texts):
    left, counts = edit(texts, SWALLOW)
    for old, new, chars in zip(texts, left, counts["chars"], strict=True):
        assert old.startswith(new)
        assert len(old) - len(new) == chars
    assert left == [one(text) for text in texts]
