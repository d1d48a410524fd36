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


@pytest.mark.parametrize("codec", ["cp932", "euc_jp"])
@pytest.mark.parametrize("label", ["iso-8859-1", "windows-1252", "us-ascii"])
def test_what_servers_say_unasked_does_not_count(codec, label):
    page = f"<p>{JAPANESE}</p>"
    found = decode(page.encode(codec), f"text/html; charset={label}")
    assert found is not None
    assert (found.text, found.encoding) == (page, codec)
    meta = f"<meta charset={codec.replace('cp932', 'Shift_JIS').replace('_', '-')}>One word: 漢字 {'x' * 500}"
    found = decode(meta.encode(codec), f"text/html; charset={label}")
    assert found is not None
    assert found.text == meta


# As browsers read them: rows 13 and 89-92 of the table, which the standard leaves free.
@pytest.mark.parametrize(("codec", "shift"), [("euc_jp", 0x80), ("iso2022_jp", 0)])
def test_vendor_characters_of_euc_and_jis_are_those_of_windows(codec, shift):
    def pair(char: str) -> bytes:
        lead, trail = char.encode("cp932")
        row = (lead - (0x81 if lead < 0xA0 else 0xC1)) * 2 + 0x21 + (trail >= 0x9F)
        cell = trail - (0x7E if trail >= 0x9F else 0x1F if trail < 0x80 else 0x20)
        return bytes((row + shift, cell + shift))

    vendor = "①㈱Ⅳ纊"
    middle = b"".join(map(pair, vendor))
    if codec == "euc_jp":
        content = JAPANESE.encode(codec) + middle + "です。".encode(codec)
    else:
        content = (
            JAPANESE.encode(codec).removesuffix(b"\x1b(B") + middle + "です。".encode(codec).removeprefix(b"\x1b$B")
        )
    found = decode(content, "text/html")
    assert found is not None
    assert (found.text, found.encoding) == (f"{JAPANESE}{vendor}です。", codec)


def test_jis_x_0213_is_read_where_windows_has_nothing():
    page = "<p>" + JAPANESE + "俱剝𠀋</p>"
    found = decode(page.encode("euc_jis_2004"), "text/html; charset=euc-jp")
    assert found is not None
    assert found.text == page


def test_half_width_katakana_in_jis_are_read():
    page = "<p>" + JAPANESE + "ｶﾀｶﾅ</p>"
    found = decode(page.encode("iso2022_jp_ext"), "text/html")
    assert found is not None
    assert found.text == page


@pytest.mark.parametrize("codec", ["cp932", "euc_jp"])
@pytest.mark.parametrize("declared", ["utf-8", "shift_jis", "euc-jp"])
def test_a_page_pasted_together_from_two_encodings_is_read_line_by_line(codec, declared):
    lines = [f"<meta charset={declared}>", "plain", *(f"{i}行目は日本語です。" for i in range(20)), "ascii only", ""]
    content = b"\n".join(line.encode("utf-8" if i % 3 else codec) for i, line in enumerate(lines))
    found = decode(content, "text/html")
    assert found is not None
    assert (found.text.split("\n"), found.encoding) == (lines, f"utf-8+{codec}")


@pytest.mark.parametrize("through", ["cp1252", "latin-1"])
def test_mojibake_of_utf8_is_undone(through):
    page = f"<p>{JAPANESE}</p>"
    broken = "".join(bytes((byte,)).decode(through, "replace") for byte in page.encode())
    broken = "".join(chr(byte) if char == "\ufffd" else char for byte, char in zip(page.encode(), broken, strict=True))
    found = decode(broken.encode(), "text/html; charset=utf-8")
    assert found is not None
    assert (found.text, found.encoding) == (page, "utf-8 twice")


def test_a_page_about_mojibake_stays_as_it_is():
    page = f"<p>{JAPANESE} ã‚ is what あ becomes, ã\x81 too</p>"
    found = decode(page.encode(), "text/html")
    assert found is not None
    assert (found.text, found.encoding) == (page, "utf-8")


@pytest.mark.parametrize(
    "label", ["punycode", "unicode_escape", "utf-7", "idna", "hex", "rot13", "base64", "undefined"]
)
def test_labels_that_are_no_encoding_of_pages_are_passed_over(label):
    found = decode(b"\xff\x80caf\xe9 " + b"x" * 5000, f"text/html; charset={label}")
    assert found is None or "x" * 5000 in found.text


def test_a_byte_that_is_broken_in_a_page_with_a_mark_of_its_encoding_costs_one_character():
    for codec in ("utf-8-sig", "utf-16"):
        content = (JAPANESE * 20).encode(codec)
        found = decode(content[:201] + content[202:] if codec == "utf-8-sig" else content[:-1], "text/html")
        assert found is not None
        assert JAPANESE in found.text


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
