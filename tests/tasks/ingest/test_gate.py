"""The fast gate lets Japanese pages in, keeps most others out, and says nothing about what it cannot see."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.gate import HEAD_BYTES, passes_gate


def page(title: str = "", lang: str = "", head: str = "") -> str:
    return f"<!DOCTYPE html>\n<html{lang}><head>{head}<title>{title}</title></head><body>text</body></html>"


@pytest.mark.parametrize(
    "lang", [' lang="ja"', " lang=ja", " lang='ja-JP'", ' class="x" LANG = "JA"', ' xml:lang="ja"']
)
def test_a_japanese_lang_passes(lang):
    assert passes_gate(page("Home", lang).encode(), "text/html")


@pytest.mark.parametrize("lang", ["", ' lang="en"', ' lang="zh"', ' data-lang="ja"'])
def test_another_lang_and_a_foreign_title_do_not(lang):
    assert not passes_gate(page("Home", lang).encode(), "text/html")


@pytest.mark.parametrize("codec", ["utf-8", "cp932", "euc_jp", "iso2022_jp", "utf-16"])
def test_kana_in_the_title_pass_in_every_encoding(codec):
    assert passes_gate(page("はじめに").encode(codec), "text/html")
    assert passes_gate(page("Introduction カタログ").encode(codec), "text/html")


def test_kana_as_entities_pass():
    assert passes_gate(page("&#12399;&#x3058;").encode(), "text/html")


def test_kanji_alone_pass_only_where_a_japanese_encoding_is_declared():
    assert not passes_gate(page("会社案内").encode(), "text/html")
    assert passes_gate(page("会社案内", head='<meta charset="Shift_JIS">').encode("cp932"), "text/html")
    assert passes_gate(page("会社案内").encode("euc_jp"), "text/html; charset=EUC-JP")


@pytest.mark.parametrize("title", ["Café – prix", "Über uns", "公司简介", "Главная страница", "회사 소개"])
def test_other_languages_stay_out(title):
    assert not passes_gate(page(title).encode(), "text/html")


def test_what_is_not_html_always_passes():
    assert passes_gate(b"plain", "text/plain")
    assert passes_gate(b"x = 1", "text/x-python")


def test_only_the_head_is_looked_at():
    late = b" " * HEAD_BYTES + page("はじめに", ' lang="ja"').encode()
    assert not passes_gate(late, "text/html")
    assert passes_gate(late[HEAD_BYTES - 100 :], "text/html")


@pytest.mark.parametrize(
    "content", [b"", b"<html", b"<title>", b"<title>\xff\xfe\x80</title>", b"<html " + b"a" * 500_000]
)
def test_damaged_heads_are_no_error(content):
    assert passes_gate(content, "text/html") is False


@given(st.binary(max_size=300), st.text(max_size=20))
@settings(max_examples=50, deadline=None)
def test_no_bytes_ever_raise(content, content_type):
    passes_gate(b"<title>" + content + b"</title>", f"text/html; {content_type}")
