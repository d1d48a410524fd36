"""The comparison of extraction engines: its figures by hand, its page harmless."""

import gzip
import re

import pytest

from tasks.ingest import compare
from tasks.ingest.compare import Found, Row, main, render, summary
from tasks.ingest.extractors import DEFAULT

MENU = "".join(f"<li><a href='{i}'>項目の名前 {i}</a></li>" for i in range(8))
PAGE = (
    f"<html><title>t</title><body><ul>{MENU}</ul><p>{'本文の文です。' * 30}</p><ul><li>短い項目</li></ul></body></html>"
)


def found(text: str, reason: str = "", seconds: float = 0.5, furniture: float = 0.0) -> Found:
    return Found(text, reason, seconds, furniture)


def test_the_figures_add_up():
    rows = [
        Row("a", 1_000_000, {"x": found("一行目です\n二行目です"), "y": found("一行目です", furniture=1.0)}),
        Row("b", 3_000_000, {"x": found("三行目です\n四行目です"), "y": found("", "extract_timeout", 1.5)}),
        Row("c", 0, {"x": found(" "), "y": found("")}),
    ]
    x, y = summary(rows, ["x", "y"])
    assert (x.chars, x.empty, x.failed, x.agreement, x.megabytes_per_s) == (23, 1, 0, 1.0, pytest.approx(4 / 1.5))
    assert (y.chars, y.empty, y.failed, y.agreement, y.furniture) == (5, 1, 1, 0.25, 1.0)
    assert y.seconds == 2.5


def test_a_directory_is_compared_and_shown(tmp_path, capsys):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.html").write_text(PAGE)
    (tmp_path / "pages" / "b.html").write_bytes(b"\x00\x01" * 999)
    out = tmp_path / "compare.html"
    assert main([str(tmp_path / "pages"), "--out", str(out), "--engines", DEFAULT, "resiliparse_all"]) == 0
    assert "2 pages through" in capsys.readouterr().out
    page = out.read_text()
    rows = re.findall(r'<code>([\w]+)</code></th><td class="num">([\d,]+)</td><td class="num">([\d.]+) %', page)
    assert [name for name, _, _ in rows] == [DEFAULT, "resiliparse_all"]
    assert float(rows[0][2]) == 0.0
    assert float(rows[1][2]) > 10  # the menu
    assert "短い項目" in page
    assert "garbage" in page


def test_an_archive_is_compared(tmp_path):
    http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{PAGE}".encode()
    head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://a\r\nContent-Type: application/http\r\n"
    record = f"{head}Content-Length: {len(http)}\r\n\r\n".encode() + http + b"\r\n\r\n"
    (tmp_path / "x.warc.gz").write_bytes(gzip.compress(record) * 3)
    assert len(compare.pages_of(tmp_path / "x.warc.gz", 2)) == 2


def test_words_of_a_page_cannot_run_or_hide(tmp_path):
    evil = '<script>alert(1)</script>\u202e</pre><img src=x onerror="x">'
    page = render([Row(evil, 10, {"x": found(evil), "y": found("")})], ["x", "y"], evil)
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "default-src" in page


def test_nothing_to_compare_is_an_error(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("x")
    assert main([str(tmp_path)]) == 78
    assert "holds no file that matches" in capsys.readouterr().err
