"""From raw pages to documents: each drop has its reason, and the number of workers changes nothing."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import zstandard

from tasks.artifact import Artifact, ConservationError, produce
from tasks.errors import DataFault
from tasks.ingest import engine
from tasks.ingest.config import CleanConfig, MirrorConfig, SourceConfig
from tasks.ingest.engine import Batch, read_rows
from tasks.ingest.extract import Extracted, Extractor
from tasks.ingest.filters.verdicts import decide, judge, limits_of
from tasks.ingest.mirror import MIRROR
from tasks.ingest.steps import extracted
from tasks.ingest.texts import Texts
from tasks.records import DOCUMENT
from tasks.shards import read_table
from tests.tasks.ingest.corpus import CONFIG, ENGLISH, PAGES, REASONS, clean, html, japanese, mirror


def rejected(artifact: Artifact, key: str = "url") -> dict[str, str]:
    files = sorted(Path(artifact.url.removeprefix("file://")).glob("rejects/**/*.zst"))
    lines = [zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read() for file in files]
    return {row[key]: row["reason"] for text in lines for row in map(json.loads, text.splitlines())}


def test_good_pages_become_documents_and_every_other_has_its_reason(tmp_path):
    made = clean(tmp_path / "store", mirror(tmp_path, PAGES))
    documents = read_table(made, "docs/")
    assert documents.schema == DOCUMENT
    assert sorted(documents.column("url").to_pylist()) == ["good/euc.html", "good/sjis.html", "good/utf8.html"]
    assert rejected(made) == REASONS
    assert made.manifest.counts.in_ == len(PAGES)
    assert made.manifest.counts.out == 3
    assert made.manifest.licences == ("MIT",)


def test_a_document_carries_its_origin_language_licence_and_facts(tmp_path):
    made = clean(tmp_path / "store", mirror(tmp_path, {"a.html": html(japanese(1), "Shift_JIS")}))
    [row] = read_table(made, "docs/").to_pylist()
    assert (row["url"], row["source"], row["language"], row["licence"]) == ("a.html", "pages", "ja", "MIT")
    facts = json.loads(row["meta"])
    assert facts["encoding"] == "cp932"
    assert facts["title"].startswith("題 ")
    lines = [line for line in row["text"].split("\n") if line]
    assert lines == [line.removeprefix("<p>") for line in japanese(1).split("</p>") if line]


@pytest.mark.parametrize("workers", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_same_bytes(tmp_path, workers):
    pages = mirror(tmp_path, PAGES | {f"more/{i}.html": html(japanese(10 + i)) for i in range(9 * workers)})
    one = clean(tmp_path / "one", pages)
    many = clean(tmp_path / "many", pages, CONFIG.with_changes({"workers": workers}))
    assert many.manifest.content_digest == one.manifest.content_digest
    assert many.manifest.fingerprint == one.manifest.fingerprint
    assert many.manifest.counts == one.manifest.counts
    assert rejected(many) == rejected(one)


def test_pages_that_are_said_to_be_in_another_language_are_dropped_with_it(tmp_path):
    pages = mirror(tmp_path, {"a.html": html(japanese(1)), "b.html": html(japanese(2))}, language_hint="en")
    with pytest.raises(DataFault, match=r"none of 2 pages is kept \(language:en 2\)"):
        clean(tmp_path / "store", pages)


def test_pages_of_another_kind_are_dropped(tmp_path):
    with pytest.raises(DataFault, match=r"none of 1 pages is kept \(content_type 1\)"):
        clean(tmp_path / "store", mirror(tmp_path, {"a.html": html(japanese(1))}), CleanConfig(language="python"))


def test_lines_of_foreign_prose_are_cut_and_counted(tmp_path):
    mixed = {"a.html": html(japanese(1) + f"<p>{ENGLISH}</p>" + japanese(2))}
    config = CONFIG.with_changes({"edits.foreign_lines.min_words": 6})
    made = clean(tmp_path / "store", mirror(tmp_path, mixed), config)
    [row] = read_table(made, "docs/").to_pylist()
    assert "chapter" not in row["text"]
    assert read_table(made, "annotations/").column("foreign_lines.chars").to_pylist()[0] > 500


def test_a_page_that_hangs_the_extractor_is_a_reject(tmp_path):
    pages = {"a.html": html(japanese(1)), "b.html": b"<div>" * 400_000 + b"x", "c.html": html(japanese(2))}
    made = clean(
        tmp_path / "store",
        mirror(tmp_path, pages),
        CONFIG.with_changes({"extract_timeout_s": 2, "extractor": "resiliparse"}),
    )
    assert rejected(made) == {"b.html": "extract_timeout"}
    assert made.manifest.counts.out == 2


def test_pages_whose_head_shows_no_japanese_are_left_out_where_the_gate_is_asked_for(tmp_path):
    declared = html(japanese(1)).replace(b"<html>", b'<html lang="ja">')
    pages = mirror(tmp_path, {"a.html": declared, "b.html": html(japanese(2).replace("の", "ノ"))})
    made = clean(tmp_path / "store", pages, CONFIG.with_changes({"language_gate": True}))
    assert rejected(made) == {"b.html": "language_gate"}
    assert not rejected(clean(tmp_path / "store", pages))


class KilledOnce(Extractor):
    """An extractor whose child is killed by somebody while it has its first page."""

    killed = False

    def extract(self, content: bytes, content_type: str) -> Extracted:
        if not self.killed:
            self.killed = True
            self._start()
            assert self._child is not None
            self._child.kill()
        return super().extract(content, content_type)


def test_a_page_whose_extractor_is_killed_from_outside_is_tried_again():
    batch = Batch({"row": np.arange(1), "content": [html(japanese(1))], "content_type": ["text/html"]})
    with KilledOnce(20) as extractor:
        found, reasons = extracted(batch, extractor)
        assert extractor.killed
    assert reasons == [None]
    assert [line for line in found["text"][0].split("\n") if line] == japanese(1)[3:-4].split("</p><p>")


def test_a_moved_threshold_moves_the_documents_with_it(tmp_path):
    pages = mirror(tmp_path, {"a.html": html(japanese(1)), "b.html": html(japanese(1) + japanese(2))})
    rows = read_table(clean(tmp_path / "store", pages), "docs/").to_pylist()
    size = min(len(row["text"]) for row in rows)
    at = clean(tmp_path / "store", pages, CONFIG.with_changes({"filters.length.min_chars": size}))
    above = clean(tmp_path / "store", pages, CONFIG.with_changes({"filters.length.min_chars": size + 1}))
    assert (at.manifest.counts.out, above.manifest.counts.out) == (2, 1)
    assert above.manifest.counts.dropped == {"too_short": 1}


def test_python_files_are_cleaned_without_extraction(tmp_path):
    source = SourceConfig(
        kind="python_source", name="stdlib", licence="PSF-2.0", attribution="PSF", include=("json/*.py", "this.py")
    )
    pages = produce(str(tmp_path), MIRROR, "py", MirrorConfig(sources=(source,)), {})
    made = clean(tmp_path, pages, CleanConfig(language="python", workers=1))
    texts = {row["url"]: row["text"] for row in read_table(made, "docs/").to_pylist()}
    import json.decoder

    assert texts["python:json/decoder.py"] == Path(json.decoder.__file__).read_text("utf-8")
    assert made.manifest.counts.in_ == made.manifest.counts.out + sum(made.manifest.counts.dropped.values())


def test_the_sidecar_has_a_row_for_each_judged_page_with_its_verdict_and_numbers(tmp_path):
    made = clean(tmp_path / "store", mirror(tmp_path, PAGES))
    documents = {row["id"]: row for row in read_table(made, "docs/").to_pylist()}
    sidecar = read_table(made, "annotations/")
    rows = sidecar.to_pylist()
    early = {"garbage", "empty", "language:en"}  # dropped before a filter saw the page
    assert {row["url"]: row["reason"] for row in rows if row["reason"]} == {
        url: reason for url, reason in REASONS.items() if reason not in early
    }
    assert {row["id"] for row in rows if row["reason"] is None} == set(documents)
    assert [row["url"] for row in rows] == sorted(row["url"] for row in rows), "in the order of the pages"
    for row in rows:
        if row["reason"] is None:
            text = documents[row["id"]]["text"]
            measured = judge(Texts([text]), CONFIG.applied(), everything=True).columns
            assert {name: row[name] for name in measured} == {name: values[0] for name, values in measured.items()}
            assert row["length.chars"] == len(text)
    columns = {name: sidecar.column(name).to_numpy() for name in sidecar.column_names if "." in name}
    assert decide(columns, limits_of(CONFIG.applied())) == sidecar.column("reason").to_pylist()


def test_rejects_and_sidecar_name_a_dropped_page_alike(tmp_path):
    pages = mirror(tmp_path, PAGES)
    made = clean(tmp_path / "store", pages)
    ids = {row["url"]: row["id"] for row in read_table(pages, "pages/").to_pylist()}
    dropped = [row for row in read_table(made, "annotations/").to_pylist() if row["reason"]]
    assert {row["url"]: row["id"] for row in dropped} == {row["url"]: ids[row["url"]] for row in dropped}
    assert set(rejected(made, "id")) >= {row["id"] for row in dropped}


def test_an_edit_rewrites_texts_before_they_are_judged_and_its_counts_stand_in_the_sidecar(tmp_path):
    pages = mirror(tmp_path, {"a.html": html(japanese(1).replace("、", "，")), "b.html": html(japanese(2))})
    plain = clean(tmp_path / "store", pages, CONFIG.with_changes({"edits.punctuation": None}))
    edited = clean(tmp_path / "store", pages)
    assert "punctuation.commas" not in read_table(plain, "annotations/").column_names
    texts = {row["url"]: row["text"] for row in read_table(edited, "docs/").to_pylist()}
    before = {row["url"]: row["text"] for row in read_table(plain, "docs/").to_pylist()}
    assert texts == {"a.html": before["a.html"].replace("，", "、"), "b.html": before["b.html"]}
    counts = {row["url"]: row["punctuation.commas"] for row in read_table(edited, "annotations/").to_pylist()}
    assert counts == {"a.html": before["a.html"].count("，"), "b.html": 0}
    assert counts["a.html"] > 5


def test_a_shard_of_which_nothing_is_kept_has_its_files_all_the_same(tmp_path):
    pages = mirror(tmp_path, {f"{i}.html": html(japanese(i)) for i in range(4)} | {"z.html": PAGES["drop/zero.html"]})
    made = clean(tmp_path / "store", pages)
    rows = {entry.path.split("/")[0]: [] for entry in made.files()}
    for entry in made.files():
        rows[entry.path.split("/")[0]].append(entry.rows)
    assert rows == {"annotations": [4, 0], "docs": [4, 0]}


def test_pages_that_are_never_read_stop_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "read_rows", lambda url: itertools.islice(read_rows(url), 0))
    with pytest.raises(ConservationError, match=r"clean x: the inputs hold 2 rows, the units took in 0:"):
        clean(tmp_path / "store", mirror(tmp_path, {f"{i}.html": html(japanese(i)) for i in range(2)}))


def test_personal_data_is_masked_in_titles_too(tmp_path):
    page = html(japanese(1)).replace("題".encode(), "連絡先 taro@example.jp".encode(), 1)
    made = clean(tmp_path / "store", mirror(tmp_path, {"a.html": page}))
    (row,) = read_table(made, "docs/").to_pylist()
    assert "taro@example.jp" not in row["meta"]
    assert "<EMAIL>" in row["meta"]
