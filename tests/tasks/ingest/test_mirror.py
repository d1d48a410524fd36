"""The mirror: pages in bounded shards, rejects counted, notices beside them."""

import json
from pathlib import Path

import pytest
import zstandard

from tasks.artifact import Artifact, produce
from tasks.ingest.config import MirrorConfig, SourceConfig
from tasks.ingest.mirror import MIRROR
from tasks.ingest.sources.source import PAGE
from tasks.shards import read_table


def config(folder: Path, kind: str = "html", **fields) -> MirrorConfig:
    source = SourceConfig(
        kind=kind, name="pages", licence="MIT", attribution="Us", location=str(folder), language_hint="ja"
    )
    return MirrorConfig(sources=(source,), **fields)


def mirror(store: Path, made: MirrorConfig) -> Artifact:
    return produce(str(store), MIRROR, "x", made, {})


def rejects(artifact: Artifact) -> list[dict[str, str]]:
    files = sorted(Path(artifact.url.removeprefix("file://")).glob("rejects/**/*.zst"))
    lines = [zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read() for file in files]
    return [json.loads(line) for text in lines for line in text.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "html"
    made.mkdir()
    for i in range(7):
        (made / f"{i}.html").write_text(f"<p>page {i}</p>")
    return made


def test_pages_are_copied_as_they_are_in_shards_of_bounded_size(tmp_path, folder):
    artifact = mirror(tmp_path / "store", config(folder, shard_pages=3))
    assert [(entry.path, entry.rows) for entry in artifact.files("pages/")] == [
        ("pages/00000-000.parquet", 3),
        ("pages/00000-001.parquet", 3),
        ("pages/00000-002.parquet", 1),
    ]
    pages = read_table(artifact, "pages/")
    assert pages.schema == PAGE
    assert pages.column("content").to_pylist() == [f"<p>page {i}</p>".encode() for i in range(7)]
    assert set(pages.column("licence").to_pylist()) == {"MIT"}
    assert len(set(pages.column("id").to_pylist())) == 7
    assert len(mirror(tmp_path / "store", config(folder, shard_bytes=26)).files("pages/")) == 4


def test_licence_and_notice_travel_with_the_pages(tmp_path, folder):
    artifact = mirror(tmp_path / "store", config(folder))
    assert artifact.manifest.licences == ("MIT",)
    assert b"Us" in artifact.read_bytes("notices/pages.txt")
    assert artifact.manifest.extra["sources"][0]["attribution"] == "Us"


def test_a_page_of_50_mb_is_a_counted_reject(tmp_path, folder):
    (folder / "large.html").write_bytes(b"<p>" + b"x" * 50_000_000)
    artifact = mirror(tmp_path / "store", config(folder))
    assert artifact.manifest.counts.dropped == {"too_large": 1}
    assert (artifact.manifest.counts.in_, artifact.manifest.counts.out) == (8, 7)
    [row] = rejects(artifact)
    assert (row["url"], row["text"]) == ("large.html", "50,000,003 bytes, max_page_bytes=10,000,000")


@pytest.mark.parametrize(("size", "dropped"), [(100, {}), (101, {"too_large": 1})])
def test_the_size_limit_is_inclusive(tmp_path, folder, size, dropped):
    (folder / "edge.html").write_bytes(b"x" * size)
    artifact = mirror(tmp_path / "store", config(folder, max_page_bytes=100))
    assert artifact.manifest.counts.dropped == dropped


def test_invalid_json_lines_are_rejects_with_reason_and_origin(tmp_path):
    folder = tmp_path / "jsonl"
    folder.mkdir()
    (folder / "x.jsonl").write_text('{"text": "one"}\nbroken\n{"text": "two"}\n')
    artifact = mirror(tmp_path / "store", config(folder, "jsonl"))
    assert (artifact.manifest.counts.in_, artifact.manifest.counts.out) == (3, 2)
    assert [(row["reason"], row["url"]) for row in rejects(artifact)] == [("invalid_json", "x.jsonl#2")]


def test_an_empty_directory_stops_before_anything_is_written(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Put pages there"):
        mirror(tmp_path / "store", config(tmp_path / "empty"))
    assert not (tmp_path / "store").exists()


def test_the_same_pages_give_the_same_bytes_and_new_pages_another_artifact(tmp_path, folder):
    first = mirror(tmp_path / "a", config(folder))
    again = mirror(tmp_path / "b", config(folder))
    assert again.manifest.content_digest == first.manifest.content_digest
    (folder / "new.html").write_text("<p>new</p>")
    changed = mirror(tmp_path / "a", config(folder))
    assert changed.manifest.fingerprint != first.manifest.fingerprint
    assert changed.manifest.counts.out == 8
