"""Extraction in a child process: what it keeps, and that no page can hang or kill the run."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.errors import ConfigError
from tasks.ingest import extract
from tasks.ingest.config import CleanConfig
from tasks.ingest.extract import Extractor, page_text
from tasks.ingest.extractors import EXTRACTORS
from tasks.ingest.extractors.engine import Engine

SKIP = CleanConfig(language="ja").skip_elements
HANGS = ("<div>" * 400_000 + "x").encode()  # quadratic in the depth: minutes


def html(body: str) -> bytes:
    return f'<html><head><meta charset="utf-8"><title>題名</title></head><body>{body}</body></html>'.encode()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<p><code>halt</code> は <code>poweroff</code> と同じです。</p>", "halt は poweroff と同じです。"),
        ("<p><b>A</b>と<b>B</b>、<b>C</b>。</p>", "AとB、C。"),
        ("<p><i>家</i> <i>の</i> <i>家</i>&#x306f;<b>x</b></p>", "家 の 家はx"),
        ("<p>Use <code>a</code>, <code>b</code>.</p>", "Use a, b."),
    ],
)
def test_single_japanese_characters_between_elements_are_kept(body, text):
    assert page_text(html(body), "text/html").text == text


def test_furniture_is_left_out_and_the_title_found():
    body = f"<nav>menu</nav><div class=toc>目次</div><p>{'本文です。' * 20}</p><script>x()</script>"
    found = page_text(html(body), "text/html", SKIP)
    assert found.text == "本文です。" * 20
    assert (found.title, found.encoding, found.reason) == ("題名", "utf-8", "")


def test_paragraphs_and_preformatted_text_keep_their_lines():
    found = page_text(html("<p>first paragraph</p><p>second one</p><pre>a\n  b</pre>"), "text/html")
    assert found.text.split("\n\n") == ["first paragraph", "second one", "a\n  b"]


def test_plain_text_is_not_parsed():
    assert page_text(b"a <b> c", "text/plain").text == "a <b> c"


def test_garbage_is_a_reason():
    assert page_text(bytes(range(256)) * 50, "text/html").reason == "garbage"


def test_a_page_that_hangs_is_a_reject_and_the_next_one_is_read():
    with Extractor(timeout_s=2) as extractor:
        began = time.monotonic()
        assert extractor.extract(HANGS, "text/html").reason == "extract_timeout"
        assert time.monotonic() - began < 60
        assert extractor.extract(html("<p>after the hang</p>"), "text/html").text == "after the hang"


def test_a_crash_of_the_extractor_is_a_reject_and_the_next_page_is_read():
    with Extractor(timeout_s=60) as extractor:
        assert extractor.extract(html("<p>before</p>"), "text/html").text == "before"
        assert extractor._child is not None
        extractor._child.kill()
        found = extractor.extract(html("<p>lost</p>"), "text/html")
        assert found.reason == "extract_crash"
        assert extractor.extract(html("<p>after</p>"), "text/html").text == "after"


HUNGRY = b"<p>" + b"<b>x</b>" * 4_000_000  # a tree of some gigabytes


@pytest.mark.slow
def test_a_page_that_eats_memory_is_a_reject_and_the_next_one_is_read():
    with Extractor(timeout_s=60, memory_bytes=200 << 20) as extractor:
        found = extractor.extract(HUNGRY, "text/html")
        assert (found.reason, found.detail) == ("extract_memory", "more than 200 MiB")
        assert extractor.extract(html("<p>after</p>"), "text/html").text == "after"


def test_memory_that_python_cannot_get_is_the_same_reject(monkeypatch):
    monkeypatch.setattr(extract, "WATCH_S", 60)  # the child itself must notice
    with Extractor(timeout_s=60, memory_bytes=1 << 20) as extractor:
        found = extractor.extract(b"x" * 3_000_000, "text/plain")
        assert (found.reason, found.detail) == ("extract_memory", "more than 1 MiB")
        assert extractor.extract(html("<p>after</p>"), "text/html").text == "after"


def test_a_page_just_below_the_memory_limit_is_read():
    with Extractor(timeout_s=60, memory_bytes=400 << 20) as extractor:
        assert len(extractor.extract(b"x" * 3_000_000, "text/plain").text) == 3_000_000


def test_a_child_that_a_page_left_large_is_replaced(monkeypatch):
    monkeypatch.setattr(extract, "KEPT_BYTES", 0)
    with Extractor(timeout_s=60) as extractor:
        extractor.extract(b"x" * 3_000_000, "text/plain")
        assert extractor._child is None
        assert extractor.extract(b"next", "text/plain").text == "next"


@pytest.mark.parametrize("engine", EXTRACTORS)
def test_every_engine_finds_the_article_and_the_title(engine):
    body = f"<nav>menu menu</nav><article><h1>見出し</h1><p>{'本文の段落です。' * 30}</p></article>"
    found = page_text(html(body), "text/html; charset=utf-8", SKIP, engine)
    assert "本文の段落です。" * 30 in found.text
    assert "menu" not in found.text
    assert (found.title, found.encoding) == ("題名", "utf-8")


def test_an_unknown_engine_names_those_there_are():
    with pytest.raises(ConfigError, match="is not one of resiliparse, resiliparse-all, trafilatura"):
        Extractor(timeout_s=1, engine="magic")


def test_an_engine_whose_package_is_absent_says_how_to_install_it():
    with pytest.raises(ConfigError, match=r"\[corpus\] extra.*pip install"):
        Engine(lambda html, skip: ("", ""), "no_such_package", "corpus").check()


def test_a_declared_xml_encoding_does_not_stop_trafilatura():
    page = b'<?xml version="1.0" encoding="utf-8"?>' + html(f"<article><p>{'long enough text. ' * 30}</p></article>")
    assert "long enough" in page_text(page, "application/xhtml+xml", (), "trafilatura").text


@pytest.mark.parametrize("size", [1_000_000, pytest.param(17_000_000, marks=pytest.mark.slow)])
def test_a_line_of_3_or_50_mb_passes(size):
    with Extractor(timeout_s=120) as extractor:
        found = extractor.extract(b"<p>" + "あ".encode() * size, "text/html")
    assert found.reason == ""
    assert len(found.text) == size


def test_lone_surrogates_and_null_characters_come_through_the_pipe():
    with Extractor(timeout_s=60) as extractor:
        assert extractor.extract("a\ud800b\x00".encode("utf-8", "surrogatepass"), "text/plain").reason in (
            "",
            "garbage",
        )
        assert extractor.extract(b"still here", "text/plain").text == "still here"


def test_the_child_dies_with_its_parent(tmp_path):
    root = Path(extract.__file__).resolve().parents[2]
    script = (
        f"import sys, os, signal; sys.path.insert(0, {str(root)!r})\n"
        "from tasks.ingest.extract import Extractor\n"
        "extractor = Extractor(60); extractor.extract(b'x', 'text/plain')\n"
        "print(extractor._child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    child = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stdout)
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
