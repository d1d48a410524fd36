"""Encodings of pages: detected, decoded without loss, or refused as garbage."""

import json
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ingest.decode import decode
from tasks.ingest.mojibake import undo_mojibake

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "html-ja"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 3
ENCODINGS = {"Shift_JIS": "cp932", "EUC-JP": "euc_jp", "ISO-2022-JP": "iso2022_jp", "UTF-8": "utf-8"}


@pytest.mark.parametrize(("label", "codec"), ENCODINGS.items())
@pytest.mark.parametrize("declared", ["http", "meta", "nowhere"])
def test_japanese_is_decoded_whether_or_not_it_is_declared(label, codec, declared):
    meta = f'<meta charset="{label}">' if declared == "meta" else ""
    page = f"<html>{meta}<p>{JAPANESE}</p>"
    found = decode(page.encode(codec), f"text/html; charset={label}" if declared == "http" else "text/html")
    assert found is not None
    assert (found.text, found.encoding) == (page, codec)


@pytest.mark.parametrize(("label", "codec"), list(ENCODINGS.items())[:3])
def test_a_wrong_declaration_does_not_count(label, codec):
    page = f'<meta charset="utf-8"><p>{JAPANESE}</p>'
    found = decode(page.encode(codec), "text/html; charset=utf-8")
    assert found is not None
    assert found.text == page


def test_utf8_that_is_declared_as_latin_is_utf8():
    page = f"<p>{JAPANESE}</p>"
    found = decode(page.encode(), "text/html; charset=iso-8859-1")
    assert found is not None
    assert found.text == page


@pytest.mark.parametrize("label", ["Shift_JIS", "sjis", "x-sjis", "Windows-31J"])
def test_vendor_characters_survive_the_web_label_of_shift_jis(label):
    page = f"<p>{JAPANESE}①②㈱～－髙﨑</p>"
    found = decode(page.encode("cp932"), f"text/html; charset={label}")
    assert found is not None
    assert found.text == page


def test_a_bom_comes_before_everything():
    for codec in ("utf-8-sig", "utf-16"):
        found = decode(JAPANESE.encode(codec), "text/html; charset=iso-8859-1")
        assert found is not None
        assert found.text == JAPANESE


def test_western_pages_in_windows_1252_keep_their_quotes():
    page = '<meta charset="iso-8859-1"><p>“Café” costs 5 € – naïve</p>'
    found = decode(page.encode("cp1252"), "text/html")
    assert found is not None
    assert found.text == page


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_garbage(seed):
    assert decode(random.Random(seed).randbytes(5000), "text/html") is None


@pytest.mark.parametrize("content", [b"\x00" * 1000, b"\x7fELF" + b"\x00\x01" * 500, bytes(range(1, 32)) * 40])
def test_binary_files_are_garbage(content):
    assert decode(content, "text/html") is None


def test_one_broken_byte_does_not_cost_the_page():
    page = f"<p>{JAPANESE * 20}</p>".encode()
    found = decode(page[:300] + b"\xff" + page[300:], "text/html; charset=utf-8")
    assert found is not None
    assert found.text.count("\ufffd") <= 2


def test_python_source_follows_its_coding_line():
    assert decode("# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"), "text/x-python").text.endswith("'é'\n")  # type: ignore[union-attr]
    assert decode("x = 'é'\n".encode("latin-1"), "text/x-python") is None
    assert decode(b"# -*- coding: nonsense -*-\n", "text/x-python") is None


def test_an_unknown_label_is_passed_over():
    found = decode(b"<p>plain</p>", "text/html; charset=x-no-such-thing")
    assert found is not None
    assert found.text == "<p>plain</p>"


@given(st.text(min_size=1))
def test_any_text_in_utf8_comes_back_or_is_garbage(text):
    found = decode(text.encode("utf-8", "surrogatepass"), "text/html")
    assert (
        found is None
        or found.text in (text.removeprefix("\ufeff"), undo_mojibake(text)[0])
        or "\x1b" in text
        or "\ufffd" in found.text
    )


@given(st.binary())
def test_no_bytes_ever_raise(content):
    decode(content, "text/html; charset=euc-jp")


def test_real_legacy_pages_decode_to_the_same_text_as_their_utf8_originals():
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    originals: dict[str, str] = {}
    with tarfile.open(SHARED / "pages-ja.tar.gz") as archive:
        for member in archive:
            if member.isfile():
                originals[member.name] = archive.extractfile(member).read().decode("utf-8", "replace")  # type: ignore[union-attr]
    compared = 0
    with tarfile.open(SHARED / "legacy-encodings.tar.gz") as archive:
        for member in archive:
            label, _, name = member.name.partition("/")
            if not member.isfile() or label not in ENCODINGS:
                continue
            content = archive.extractfile(member).read()  # type: ignore[union-attr]
            found = decode(content, "text/html")
            assert found is not None, member.name
            assert found.text == content.decode(ENCODINGS[label]), member.name
            compared += name in originals
    assert compared > 40, json.dumps(sorted(originals)[:5])
