"""The pages: escaped, closed to the web, and complete; once in a real browser, with hostile text."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from html import unescape
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from tasks.browse.server import app
from tasks.errors import ConfigError
from tasks.records import CHAT
from tasks.shards import read_table
from tests.tasks.browse.conftest import PAGES
from tests.tasks.training_data import chat, document, make_artifact, make_pack, make_tokenizer, turns

EVERY = [
    "/",
    "/documents",
    "/documents?draw=7",
    "/documents?q=script",
    "/documents?q=%3Cscript%3E&regex=on&case=on&column=url",
    "/document?at=docs/00000.parquet:0",
    "/rejects",
    "/rejects?reason=too_short&q=script",
    "/thresholds?t0=420",
    "/thresholds/result?t0=420",
]


@pytest.fixture(scope="module")
def client(made):
    return TestClient(app(made.artifact), base_url="http://127.0.0.1:8420")


@pytest.mark.parametrize("url", EVERY)
def test_no_page_lets_a_word_of_the_crawl_run_or_load_anything(client, url):
    answer = client.get(url)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    scripts = re.findall(r"<script[^>]*>", answer.text)
    assert scripts == ([] if "/result" in url else ['<script src="/browse.js" defer>'])
    assert "<img" not in answer.text
    assert "\u202e" not in answer.text
    assert not re.search(r'(src|href|action)="(?!/)', answer.text), "only places of this server"


def test_what_a_user_types_is_escaped_too(client):
    answer = client.get("/documents", params={"q": '"><script>alert(1)</script>'})
    assert "<script>alert" not in answer.text
    wrong = client.get("/documents", params={"q": "<b>(", "regex": "on"})
    assert wrong.status_code == 400
    assert "<b>" not in wrong.text
    assert "&lt;b&gt;(" in wrong.text


def test_only_names_of_this_machine_are_answered(made):
    """A page of the web could let its own name point at 127.0.0.1 and read what is here."""
    pages = app(made.artifact)
    for host, status in (("127.0.0.1:8420", 200), ("localhost", 200), ("evil.example", 400), ("10.0.0.5:8420", 400)):
        assert TestClient(pages, base_url=f"http://{host}").get("/").status_code == status
    assert TestClient(pages, base_url="http://localhost").post("/").status_code == 405


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/document?at=docs/99.parquet:0", "only what its manifest lists"),
        ("/document?at=docs/00000.parquet:9999", "beyond the end"),
        ("/document", "Write it like"),
        ("/rejects?from=x", "file and line"),
        ("/rejects?from=77:0", "files of rejects"),
        ("/thresholds?t0=nan", "is no number"),
        ("/thresholds/result?t0=x", "is no number"),
    ],
)
def test_what_a_user_can_correct_is_answered_with_the_reason(client, url, words):
    answer = client.get(url)
    assert answer.status_code == 400
    assert words in unescape(answer.text)


def test_all_documents_and_all_rejects_are_reached_by_going_on(client, made):
    def follow(url):
        places = []
        while url:
            page = client.get(url).text
            places += re.findall(r"<article><h3>(.*?)</h3>", page)
            link = re.search(r'href="([^"]+)" rel="next"', page)
            url = unescape(link[1]) if link else ""
        return places

    counts = made.artifact.manifest.counts
    documents, rejects = follow("/documents"), follow("/rejects")
    assert (len(documents), len(set(documents))) == (counts.out, counts.out)
    assert (len(rejects), len(set(rejects))) == (counts.in_ - counts.out, counts.in_ - counts.out)
    assert len(follow("/rejects?reason=short_sentences")) == counts.dropped["short_sentences"]
    assert len(follow("/documents?q=script")) == sum(
        "/document?at=docs" in place for place in follow("/documents?q=%3Cscript%3E")
    )


def test_a_document_is_shown_whole_with_what_the_filters_measured(client, made):
    row = read_table(made.artifact, "docs/00002.parquet").to_pylist()[3]
    page = unescape(client.get("/document?at=docs/00002.parquet:3").text)
    assert row["text"].replace("\u202e", "⟨U+202E⟩") in page
    assert row["url"] in page
    limits = "below 200 (too_short), above 1e+06 (too_long)"
    assert f'>length.chars</th><td class="num">{len(row["text"])}</td><td>{limits}</td>' in page
    assert '>edits.cut</th><td class="num">–</td><td></td>' in page, "what was not counted is no number"


def test_changed_pages_are_shown_with_their_text_from_documents_and_rejects(client):
    for threshold, heading in ((420, "Would be dropped"), (0, "Would be kept")):
        page = unescape(client.get(f"/thresholds/result?t0={threshold}").text)
        assert heading in page
        shown = re.findall(
            r'<article>.*?(https://example.org/\d+)</h3>\s*<pre class="text">(.*?)</pre>', page, re.DOTALL
        )
        assert len(shown) == 8
        by_url = {row["url"]: row["text"] for row in PAGES}
        assert all(by_url[url][:60] == text[:60] for url, text in shown)


def test_conversations_are_shown_by_turns_and_an_artifact_without_rows_is_said_to_be_one(tmp_path):
    talks = make_artifact(tmp_path, "z", {"train/0.parquet": [chat(turns("<b>hi", "hello")), chat("no json")]}, CHAT)
    page = TestClient(app(talks), base_url="http://localhost").get("/documents").text
    assert '<p class="who">user</p>\n<pre class="text">&lt;b&gt;hi</pre>' in page
    assert "no json" in page
    other = make_artifact(tmp_path, "y", {"train/0.parquet": [document("t")]})
    packed = make_pack(tmp_path, make_tokenizer(tmp_path), {"en": [document("one two three " * 9)]})
    overview = TestClient(app(packed), base_url="http://localhost").get("/").text
    assert "holds no documents or conversations" in overview
    assert f"nestling browse {packed.manifest.parents['documents.0'].url}" in overview
    assert TestClient(app(packed), base_url="http://localhost").get("/documents").status_code == 200
    assert "has no annotations" in TestClient(app(other), base_url="http://localhost").get("/thresholds").text


def test_a_taken_port_is_said(made):
    from tasks.browse.server import serve

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="another --port"):
            serve(made.artifact, "127.0.0.1", other.getsockname()[1])


@pytest.mark.slow
def test_the_command_says_where_the_page_is_serves_it_and_ends_when_told(made):
    command = [sys.executable, "-m", "flows", "browse", made.artifact.url, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline().strip() == made.artifact.url
            url = process.stdout.readline().split()[0]
            assert url.startswith("http://127.0.0.1:")
            assert httpx.get(url, timeout=60).status_code == 200
        finally:
            process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, ("", ""))


CHROMIUM = shutil.which("chromium")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's Chromium: apt-get install chromium")
def test_a_slider_moves_the_counts_and_hostile_text_stays_text(made, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the development requirements")
    assert CHROMIUM
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app(made.artifact), log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1200, "height": 1000})
            said: list[str] = []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(f"{url}/documents?q=script")
            assert page.title() == "Documents · clean/toy-ja", "no script of a document has run"
            assert page.locator("mark").count() > 5
            page.goto(f"{url}/thresholds")
            kept = str(made.artifact.manifest.counts.out)
            page.locator("#result dd").nth(1).get_by_text(kept).wait_for()
            page.get_by_label("too_short", exact=True).focus()
            page.keyboard.press("PageUp")
            page.wait_for_url("**/thresholds?t0=*")
            number = page.get_by_label("too_short as a number").input_value()
            expected = sum(len(row["text"]) < float(number) for row in PAGES)
            page.get_by_role("row", name="too_short").get_by_text(str(expected), exact=True).wait_for()
            assert page.get_by_role("heading", name="Would be dropped").count() == 1
            assert page.title() == "Thresholds · clean/toy-ja"
            page.screenshot(path=Path(os.environ.get("NESTLING_SCREENSHOTS", tmp_path)) / "browse.png")
            assert said == [], "the policy had nothing to refuse: all is escaped"
            browser.close()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
