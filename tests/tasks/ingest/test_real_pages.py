"""Real pages: every one that can be decoded is decoded right, and both language gates tell Japanese from the rest."""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.ingest.config import CleanConfig
from tasks.ingest.decode import decode
from tasks.ingest.extract import page_text
from tasks.ingest.gate import passes_gate
from tasks.ingest.language import identify_all
from tasks.ingest.languages import LANGUAGES
from tasks.ingest.sources.archives import records
from tasks.ingest.sources.source import Page

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "html-ja"
CODECS = {"Shift_JIS": "cp932", "EUC-JP": "euc_jp", "ISO-2022-JP": "iso2022_jp"}
DECLARED = re.compile(r"""(?:charset|encoding)=["']?[\w-]+""", re.IGNORECASE)
GATE = {"min_kana_fraction": 0.1, "min_probability": 0.5}

# Pages of the Japanese archive whose text is English: chapters that were never translated, the indexes of identifiers
# that doxygen makes, a manual page, title pages of which only the licence is left, an error page. Read one by one.
ENGLISH = re.compile(
    r"debian-faq/index\.ja|debmake-doc/(?:apa|ch0[1-8]|index|pr01)\.ja|developers-reference/(?:index|developers-reference)\.|rust-book-ja/404\.|"
    r"mecab/(?:annotated|class|files|functions|globals|index|mecab\.|mecab_8h|namespace|struct)"
)


def members(name: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(SHARED / name) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                yield member.name, file.read()


@pytest.fixture(scope="module")
def pages() -> dict[str, bytes]:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    return dict(members("pages-ja.tar.gz")) | dict(members("pages-en.tar.gz"))


@pytest.fixture(scope="module")
def index(pages) -> list[dict[str, str]]:
    return json.loads((SHARED / "pages.json").read_text())


@pytest.fixture(scope="module")
def texts(pages) -> dict[str, str]:
    skip = CleanConfig(language="ja").skip_elements
    return {name: page_text(content, "text/html", skip).text for name, content in pages.items()}


def is_japanese(name: str) -> bool:
    return ".en." not in name and not ENGLISH.match(name)


def f1(said: dict[str, bool]) -> float:
    right = sum(verdict and is_japanese(name) for name, verdict in said.items())
    return 2 * right / (sum(said.values()) + sum(map(is_japanese, said)))


def test_all_pages_of_the_index_are_decoded_right(pages, index):
    assert len(index) == 270
    for row in index:
        content = pages[row["file"]]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (row["bytes"], row["sha256"])
        found = decode(content, "text/html")
        assert found is not None
        assert (found.text, found.encoding) == (content.decode("utf-8"), "utf-8"), row["file"]


@pytest.mark.parametrize("declared", ["text/html", "text/html; charset=utf-8", "text/html; charset=iso-8859-1"])
def test_all_legacy_pages_are_decoded_right_whatever_is_declared(declared, pages):
    count = 0
    for name, content in members("legacy-encodings.tar.gz"):
        label, _, original = name.partition("/")
        if label not in CODECS:
            continue
        count += 1
        found = decode(content, declared)
        assert found is not None
        assert found.text == content.decode(CODECS[label]), name
        assert found.encoding == ("utf-8" if content.isascii() and b"\x1b" not in content else CODECS[label]), name
        assert original in pages
    assert count == 61


def test_genuine_old_files_are_decoded_right():
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    genuine = {name: content for name, content in members("legacy-encodings.tar.gz") if name.startswith("genuine/")}
    assert len(genuine) == 3
    for name, content in genuine.items():
        found = decode(content, "text/plain")
        assert found is not None
        codec = "cp932" if name.endswith("SJIS") else "euc_jp"
        assert (found.text, found.encoding) == (content.decode(codec), codec)


def test_all_pages_of_the_crawl_are_decoded_right(pages, index):
    """204 pages; what is under its own URL in the index must be that page, legacy ones but for the declaration."""
    by_url = {row["url"]: pages[row["file"]].decode() for row in index}
    found = [item for item in records("docs-ja.warc.gz", SHARED / "docs-ja.warc.gz") if isinstance(item, Page)]
    compared = 0
    for page in found:
        decoded = decode(page.content, page.content_type)
        assert decoded is not None
        if page.url in by_url:
            compared += 1
            assert DECLARED.sub("", decoded.text) == DECLARED.sub("", by_url[page.url]), page.url
        else:
            assert "\ufffd" not in decoded.text
    assert (len(found), compared) == (204, 184)


def test_the_precise_gate_tells_japanese_pages_from_others(texts):
    labels = identify_all([LANGUAGES["ja"].normalise(text) for text in texts.values()], **GATE)
    said = dict(zip(texts, (label == "ja" for label in labels), strict=True))
    wrong = {name for name, verdict in said.items() if verdict != is_japanese(name)}
    assert f1(said) >= 0.99, wrong


def test_the_rapid_gate_loses_hardly_any_japanese_page(pages):
    said = {name: passes_gate(content, "text/html") for name, content in pages.items()}
    assert f1(said) >= 0.97  # Swallow reports 0.926 for theirs on Common Crawl
    lost = {name for name, verdict in said.items() if is_japanese(name) and not verdict}
    assert len(lost) <= 1, lost
