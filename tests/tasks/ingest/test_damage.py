"""Damage as in real crawls, from archive to text: repaired, dropped with the right reason, or passed on whole."""

import gzip
from pathlib import Path

import pytest

from tasks.ingest.config import CleanConfig
from tasks.ingest.extract import Extracted, Extractor, page_text
from tasks.ingest.languages import LANGUAGES
from tasks.ingest.sources.archives import records
from tasks.ingest.sources.source import Page

SENTENCE = "この文書は、壊れたページをどう読むかを説明しています。"
BODY = f"<p>{SENTENCE}</p>" * 20
SKIP = CleanConfig(language="ja").skip_elements
CLEAN = "\n\n".join([SENTENCE] * 20)


def html(body: str = BODY, head: str = "") -> str:
    return f"<!DOCTYPE html><html><head>{head}<title>題</title></head><body>{body}</body></html>"


def read(content: bytes, content_type: str = "text/html") -> Extracted:
    found = page_text(content, content_type, SKIP)
    return Extracted(LANGUAGES["ja"].normalise(found.text), found.title, found.encoding, found.reason, found.detail)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        pytest.param(html().encode(), "", id="no content type: is taken for plain text only by what declares it"),
        pytest.param(html().encode("cp932"), "text/html; charset=utf-8", id="a charset that lies"),
        pytest.param(html().encode("euc_jp"), "text/html; charset=iso-8859-1", id="a charset the server made up"),
        pytest.param(html().encode("utf-8").decode("latin-1").encode("utf-8"), "text/html", id="mojibake"),
        pytest.param(html().encode("utf-8-sig"), "text/html", id="a mark of order"),
        pytest.param(html().encode("utf-16"), "text/html; charset=utf-8", id="UTF-16 that says UTF-8"),
        pytest.param(
            html(BODY.replace("文書", "文\u200b\u2060\ufeff書")).encode(), "text/html", id="zero-width characters"
        ),
        pytest.param(html(BODY.replace("文書", "文\u00ad書")).encode(), "text/html", id="soft hyphens"),
        pytest.param(html(BODY.replace("文書", "文\x00\x08書", 3)).encode(), "text/html", id="some control characters"),
        pytest.param(html().replace("\n", "\r\n").encode(), "TEXT/HTML ; Charset=UTF-8", id="capitals in the header"),
        pytest.param(html().removesuffix("</body></html>").encode(), "text/html", id="no end"),
        pytest.param(html(BODY.replace("</p>", "")).encode(), "text/html", id="paragraphs that are never closed"),
        pytest.param(html(f"<div>{BODY}</div></div></table></p>").encode(), "text/html", id="ends without beginnings"),
        pytest.param((html("") + BODY).encode(), "text/html", id="text after the end"),
        pytest.param(
            html("<nav>" + "<a href=x>目次</a>" * 50 + "</nav>" + BODY).encode(), "text/html", id="junk of menus"
        ),
        pytest.param(
            html(f"<script>{'x' * 300_000}</script>{BODY}").encode(), "text/html", id="a script of one long line"
        ),
        pytest.param(html(f"<!-- {'目' * 100_000} -->{BODY}").encode(), "text/html", id="a comment of one long line"),
    ],
)
def test_what_can_be_repaired_is(content, content_type):
    found = read(content, content_type or "text/html")
    assert found.reason == ""
    assert found.text == CLEAN


def test_half_width_katakana_become_full_width():
    found = read(html(BODY.replace("ページ", "ﾍﾟｰｼﾞ")).encode("cp932"))
    assert found.text == CLEAN


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"%PDF-1.7\n" + bytes(range(256)) * 40, id="a PDF that says HTML"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, id="a picture that says HTML"),
        pytest.param(gzip.compress(html().encode()), id="a body that is still packed"),
        pytest.param(html("\x01\x02" * 5000).encode(), id="control characters all over"),
        pytest.param(html("\ufffd" * 5000).encode(), id="characters that were lost before"),
    ],
)
def test_what_is_no_text_is_garbage(content):
    assert read(content).reason == "garbage"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(("<div>" * 20_000 + BODY).encode(), id="20,000 nested boxes"),
        pytest.param(("<b>" * 50_000 + BODY).encode(), id="50,000 nested marks"),
        pytest.param(
            html(BODY.replace("<p>", "").replace("</p>", "") * 500).encode(), id="one line of half a megabyte"
        ),
        pytest.param(html("<ul>" + "<li><a href=x>項</a>" * 20_000 + "</ul>" + BODY).encode(), id="20,000 links"),
        pytest.param(html("<table>" * 3000 + BODY).encode(), id="3,000 nested tables"),
        pytest.param(html("<a " * 50_000 + BODY).encode(), id="50,000 tags without an end"),
        pytest.param(html("&#x3042;" * 50_000 + BODY).encode(), id="50,000 entities"),
        pytest.param(
            html("<p class='" + "sidebar " * 20_000 + "'>" + BODY).encode(), id="a class of 160,000 characters"
        ),
    ],
)
def test_no_shape_of_a_page_hangs_or_crashes(content):
    with Extractor(timeout_s=30) as extractor:
        found = extractor.extract(content, "text/html")
        assert found.reason in ("", "extract_timeout", "extract_memory")
        assert extractor.extract(html().encode(), "text/html").text.count(SENTENCE) == 20


def test_every_record_of_a_damaged_archive_is_a_page_or_has_a_reason(tmp_path):
    """One archive with ten kinds of damage: what goes in is what comes out plus what was dropped."""

    def member(
        url: str, body: bytes = html().encode(), headers: str = "Content-Type: text/html\r\n", status: str = "200 OK"
    ) -> bytes:
        http = f"HTTP/1.1 {status}\r\n{headers}\r\n".encode() + body
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nContent-Type: application/http\r\n"
        return gzip.compress(f"{head}Content-Length: {len(http)}\r\n\r\n".encode() + http + b"\r\n\r\n")

    whole = member("https://whole")
    flipped = bytearray(member("https://flipped", html().encode() * 50))
    flipped[200:210] = bytes(10)
    pieces = [
        ("https://1", member("https://1")),
        (
            "https://gzip-lie",
            member("https://gzip-lie", headers="Content-Type: text/html\r\nContent-Encoding: gzip\r\n"),
        ),
        (
            "https://chunk-lie",
            member("https://chunk-lie", headers="Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n"),
        ),
        ("http_status", member("https://gone", status="404 Not Found")),
        ("content_type", member("https://image", headers="Content-Type: image/png\r\n")),
        ("https://empty", member("https://empty", b"")),
        ("truncated", bytes(flipped)),
        ("https://2", member("https://2")),
        ("damaged_record", b"\x1f\x8b\x08 junk"),
        ("https://3", member("https://3")),
        ("truncated", whole[: len(whole) // 3]),
    ]
    path: Path = tmp_path / "x.warc.gz"
    path.write_bytes(b"".join(content for _, content in pieces))
    found = list(records(path.name, path))
    shown = [item.url if isinstance(item, Page) else item.reason for item in found]
    assert shown == [verdict for verdict, _ in pieces]
    pages = [item for item in found if isinstance(item, Page)]
    assert [read(page.content, page.content_type).text for page in pages] == [
        "" if page.url == "https://empty" else CLEAN for page in pages
    ]
