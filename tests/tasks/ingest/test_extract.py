"""Extraction in a child process: what it keeps, and that no page can hang or kill the run."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.ingest import extract
from tasks.ingest.config import CleanConfig
from tasks.ingest.extract import Extractor, page_text

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


def test_the_extractor_may_use_only_so_much_memory(monkeypatch):
    small = extract._SERVE.replace("serve(", "import tasks.ingest.extract as e; e.MEMORY_BYTES = 600 << 20; serve(")
    monkeypatch.setattr(extract, "_SERVE", small)
    with Extractor(timeout_s=60) as extractor:
        assert extractor.extract(b"<p>" + b"x y " * 40_000_000, "text/html").reason == "extract_crash"
        assert extractor.extract(html("<p>after</p>"), "text/html").text == "after"


def test_a_line_of_50_mb_passes():
    with Extractor(timeout_s=120) as extractor:
        found = extractor.extract(b"<p>" + "あ".encode() * 17_000_000, "text/html")
    assert found.reason == ""
    assert len(found.text) == 17_000_000


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
