"""What users bring: through the command line, each fault is one screen or a counted reject, and nothing is lost."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from flows.__main__ import main
from tests.tasks.ingest.test_clean import html, japanese

PAGE = html(japanese(1))
PROSE = japanese(1).replace("<p>", "").replace("</p>", "\n")


def ingest(store: Path, kind: str, location: Path) -> int:
    source = {
        "kind": kind,
        "name": "mine",
        "location": str(location),
        "licence": "CC-BY-4.0",
        "attribution": "me",
        "language_hint": "ja",
    }
    changes = ['only=["ja"]', f"corpora.ja.mirror.sources={json.dumps([source])}"]
    return main(["ingest", "tiny", "--store", str(store), *(part for change in changes for part in ("--set", change))])


def counts(store: Path, stage: str) -> dict[str, object]:
    (manifest,) = store.glob(f"{stage}/*/MANIFEST.json")
    return json.loads(manifest.read_bytes())["counts"]


def warc_record(url: str) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + PAGE
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:12345678-1234-1234-1234-123456789012>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + http + b"\r\n\r\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pages"
    made.mkdir()
    return made


def one_screen(text: str) -> bool:
    return text.startswith("error: ") and len(text.splitlines()) < 24 and "Traceback" not in text


def test_an_empty_directory_is_refused_with_the_remedy(tmp_path, folder, capfd):
    assert ingest(tmp_path / "store", "html", folder) == 78
    error = capfd.readouterr().err
    assert one_screen(error[error.index("error: ") :])
    assert "Put pages there" in error


def test_garbage_and_a_page_of_50_mb_are_counted_and_the_good_page_is_kept(tmp_path, folder):
    (folder / "good.html").write_bytes(PAGE)
    (folder / "garbage.html").write_bytes(random.Random(0).randbytes(20_000))
    (folder / "line.html").write_text("<p>" + "あ" * 17_000_000 + "</p>", "utf-8")
    store = tmp_path / "store"
    assert ingest(store, "html", folder) == 0
    assert counts(store, "mirror") == {"in": 3, "out": 2, "dropped": {"too_large": 1}}
    assert counts(store, "clean") == {"in": 2, "out": 1, "dropped": {"garbage": 1}}
    assert counts(store, "dedup") == {"in": 1, "out": 1, "dropped": {}}


def test_a_truncated_warc_is_read_to_its_last_good_record(tmp_path, folder):
    records = b"".join(warc_record(f"http://example.org/{i}") for i in range(3))
    (folder / "crawl.warc.gz").write_bytes(records[:-100])
    store = tmp_path / "store"
    assert ingest(store, "warc", folder) == 0
    assert counts(store, "mirror") == {"in": 3, "out": 2, "dropped": {"truncated": 1}}
    assert counts(store, "dedup") == {"in": 2, "out": 1, "dropped": {"exact_duplicate": 1}}


def test_invalid_json_lines_are_counted_by_reason(tmp_path, folder):
    lines = [json.dumps({"text": PROSE, "url": "u"}).encode(), b"{not json", b"[1, 2]", b'{"nothing": 1}', b"\xff\xfe"]
    (folder / "lines.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    store = tmp_path / "store"
    assert ingest(store, "jsonl", folder) == 0
    assert counts(store, "mirror") == {"in": 5, "out": 1, "dropped": {"invalid_json": 2, "no_text_field": 2}}


def test_a_source_of_which_nothing_is_kept_is_a_data_fault_and_stays_one(tmp_path, folder, capfd):
    (folder / "short.html").write_text("<p>短い。</p>", "utf-8")
    for _ in range(2):
        assert ingest(tmp_path / "store", "html", folder) == 77
        error = capfd.readouterr().err
        assert one_screen(error[error.index("error: ") :])
        assert "none of 1 pages is kept (" in error
    assert len(list(tmp_path.glob("store/clean/*/rejects/**/*.zst"))) == 1, "what was dropped can be looked at"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_said_and_with_more_space_the_same_command_goes_on(tmp_path, folder, capfd):
    letters = random.Random(0)
    for page in range(300):
        text = "".join(chr(letters.randint(0x4E00, 0x9FFF)) for _ in range(2000))
        (folder / f"{page:03}.html").write_text(f"<p>{text}</p>", "utf-8")
    (folder / "good.html").write_bytes(PAGE)
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=400k tmpfs {disk}"):
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        assert ingest(disk / "store", "html", folder) != 0
        error = capfd.readouterr().err
        assert one_screen(error[error.index("error: ") :])
        assert "No space left" in error
        assert os.system(f"mount -o remount,size=40m {disk}") == 0
        assert ingest(disk / "store", "html", folder) == 0
        assert counts(disk / "store", "dedup")["out"] == 1
    finally:
        os.system(f"umount {disk}")
