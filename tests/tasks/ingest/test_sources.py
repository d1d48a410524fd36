"""Sources of raw pages: what they yield, what they reject, what makes them the same source."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from tasks.ingest.config import MirrorConfig
from tasks.ingest.sources import SOURCES
from tasks.ingest.sources.source import Page, Rejected, SourceConfig

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "html-ja"


def source(kind: str, location: Path | str = "", **fields) -> SourceConfig:
    return SourceConfig(
        kind=kind, name="pages", licence="MIT", attribution="The authors", location=str(location), **fields
    )


def read(config: SourceConfig) -> list[Page | Rejected]:
    kind = SOURCES[config.kind]
    return [item for part in kind.parts(config) for item in kind.read(config, part)]


def pages(config: SourceConfig) -> list[Page]:
    return [item for item in read(config) if isinstance(item, Page)]


def rejects(config: SourceConfig) -> dict[str, str]:
    return {item.url: item.reason for item in read(config) if isinstance(item, Rejected)}


def warc_record(url: str, body: bytes, kind: str = "text/html") -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind.encode(), len(body)) + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


class TestDeclaration:
    @pytest.mark.parametrize("field", ["licence", "attribution"])
    def test_a_source_without_licence_or_attribution_is_refused(self, field):
        declared = {"kind": "html", "name": "x", "licence": "MIT", "attribution": "someone"}
        with pytest.raises(ValueError, match=field):
            SourceConfig(**declared | {field: ""})
        with pytest.raises(ValueError, match=field):
            SourceConfig(**{name: value for name, value in declared.items() if name != field})

    def test_a_licence_outside_the_table_is_refused(self):
        with pytest.raises(ValueError, match="LICENCES"):
            SourceConfig(kind="html", name="x", licence="Whatever-1.0", attribution="someone")

    def test_an_unknown_kind_names_those_there_are(self):
        with pytest.raises(
            ValueError, match=r"kind='ftp' is not one of debian, html, warc, warc_index, jsonl, parquet, "
        ):
            MirrorConfig(sources=(source("ftp"),))

    def test_two_sources_of_one_name_are_refused(self):
        with pytest.raises(ValueError, match="named twice: pages"):
            MirrorConfig(sources=(source("html"), source("warc")))


class TestPlace:
    @pytest.mark.parametrize("kind", ["html", "warc", "jsonl"])
    def test_an_empty_directory_is_an_error_with_the_remedy(self, kind, tmp_path):
        with pytest.raises(ValueError, match=r"holds no file that matches.*Put pages there"):
            SOURCES[kind].parts(source(kind, tmp_path))

    @pytest.mark.parametrize("kind", ["html", "warc", "jsonl"])
    def test_a_missing_directory_is_an_error_with_the_place_looked_at(self, kind, tmp_path):
        with pytest.raises(ValueError, match=r"does not exist \(looked at .*nowhere"):
            SOURCES[kind].parts(source(kind, tmp_path / "nowhere"))

    def test_no_location_is_an_error(self):
        with pytest.raises(ValueError, match="has no location"):
            SOURCES["html"].parts(source("html"))

    def test_the_same_pages_elsewhere_are_the_same_source(self, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder / "deep").mkdir(parents=True)
            (tmp_path / folder / "deep" / "x.html").write_text("<p>one</p>")
        semantic = [MirrorConfig(sources=(source("html", tmp_path / folder),)).semantic() for folder in ("a", "b")]
        assert semantic[0] == semantic[1]

    @pytest.mark.parametrize("change", ["content", "name", "number"])
    def test_other_pages_in_the_same_place_are_another_source(self, change, tmp_path):
        page = tmp_path / "x.html"
        page.write_text("<p>one</p>")
        before = MirrorConfig(sources=(source("html", tmp_path),)).semantic()
        if change == "content":
            page.write_text("<p>two</p>")
        elif change == "name":
            page.rename(tmp_path / "y.html")
        else:
            (tmp_path / "y.html").write_text("<p>two</p>")
        assert MirrorConfig(sources=(source("html", tmp_path),)).semantic() != before

    def test_a_declared_revision_stands_for_the_content(self, tmp_path):
        (tmp_path / "x.html").write_text("one")
        before = MirrorConfig(sources=(source("html", tmp_path, revision="r1"),)).semantic()
        (tmp_path / "x.html").write_text("two")
        assert MirrorConfig(sources=(source("html", tmp_path, revision="r1"),)).semantic() == before
        assert MirrorConfig(sources=(source("html", tmp_path, revision="r2"),)).semantic() != before


class TestHtml:
    def test_pages_come_in_the_order_of_their_paths(self, tmp_path):
        for name in ("b.html", "a.htm", "c/a.html", "note.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(name)
        assert [page.url for page in pages(source("html", tmp_path))] == ["a.htm", "b.html", "c/a.html"]

    def test_gzipped_pages_are_unpacked_and_broken_ones_rejected(self, tmp_path):
        packed = gzip.compress(b"<p>whole</p>")
        (tmp_path / "a.html.gz").write_bytes(packed)
        (tmp_path / "b.html.gz").write_bytes(packed[:-6])
        (tmp_path / "c.html.gz").write_bytes(b"no gzip at all")
        found = source("html", tmp_path)
        assert [page.content for page in pages(found)] == [b"<p>whole</p>"]
        assert rejects(found) == {"b.html.gz": "unreadable", "c.html.gz": "unreadable"}

    def test_include_and_exclude_choose_by_path_and_max_pages_limits(self, tmp_path):
        for name in ("ja/a.html", "ja/b.html", "en/a.html", "ja/toc.html"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(name)
        chosen = source("html", tmp_path, include=("ja/*",), exclude=("*toc*",))
        assert [page.url for page in pages(chosen)] == ["ja/a.html", "ja/b.html"]
        assert len(pages(source("html", tmp_path, max_pages=3))) == 3

    def test_text_files_are_taken_as_text_when_asked_for(self, tmp_path):
        (tmp_path / "a.txt").write_text("plain")
        assert [page.content_type for page in pages(source("html", tmp_path, include=("*.txt",)))] == ["text/plain"]

    def test_a_licence_file_beside_the_pages_becomes_the_notice(self, tmp_path):
        (tmp_path / "a.html").write_text("a")
        (tmp_path / "LICENSE").write_text("Do as you like.")
        notice = SOURCES["html"].notice(source("html", tmp_path))
        assert "The authors" in notice
        assert "Do as you like." in notice


class TestJsonl:
    LINES = (
        b'{"text": "first", "url": "https://a"}\n'
        b"not json at all\n"
        b'{"title": "no text"}\n'
        b"\n"
        b'["a list"]\n'
        b'{"text": 5}\n'
        b'{"text": "last", "id": "z", "crawl_time": "2026-01-01"}\n'
    )

    @pytest.mark.parametrize(
        ("suffix", "pack"),
        [(".jsonl", bytes), (".jsonl.gz", gzip.compress), (".jsonl.zst", zstandard.compress)],
    )
    def test_bad_lines_are_rejects_with_file_and_line(self, suffix, pack, tmp_path):
        (tmp_path / f"x{suffix}").write_bytes(pack(self.LINES))
        found = source("jsonl", tmp_path)
        name = f"x{suffix}"
        assert [(page.url, page.content, page.crawl_time) for page in pages(found)] == [
            ("https://a", b"first", ""),
            ("z", b"last", "2026-01-01"),
        ]
        assert rejects(found) == {
            f"{name}#2": "invalid_json",
            f"{name}#3": "no_text_field",
            f"{name}#5": "no_text_field",
            f"{name}#6": "no_text_field",
        }

    @pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
    def test_a_truncated_file_is_read_up_to_there_and_the_rest_is_one_reject(self, suffix, tmp_path):
        rows = [json.dumps({"text": f"{i} " * 50, "url": str(i)}).encode() + b"\n" for i in range(3000)]
        if suffix.endswith("gz"):
            packed = b"".join(map(gzip.compress, rows))
        else:
            packed = b"".join(map(zstandard.compress, rows))
        (tmp_path / f"x{suffix}").write_bytes(packed[: len(packed) // 2])
        found = read(source("jsonl", tmp_path))
        assert isinstance(found[-1], Rejected)
        assert found[-1].reason == "truncated"
        assert 1000 < sum(isinstance(item, Page) for item in found) < 2000
        assert sum(isinstance(item, Rejected) for item in found) == 1

    def test_deeply_nested_json_is_a_reject(self, tmp_path):
        (tmp_path / "x.jsonl").write_bytes(b"[" * 200_000 + b"\n")
        assert rejects(source("jsonl", tmp_path)) == {"x.jsonl#1": "invalid_json"}


class TestWarc:
    BODIES = tuple(f"<html><p>page {i} {'x' * 300}</p></html>".encode() for i in range(20))

    def stream(self) -> list[bytes]:
        return [warc_record(f"https://a/{i}", body) for i, body in enumerate(self.BODIES)]

    @pytest.mark.parametrize(
        ("suffix", "pack"), [(".warc", bytes), (".warc.gz", gzip.compress), (".warc.zst", zstandard.compress)]
    )
    def test_every_html_response_is_a_page(self, suffix, pack, tmp_path):
        (tmp_path / f"x{suffix}").write_bytes(b"".join(map(pack, self.stream())))
        found = pages(source("warc", tmp_path))
        assert tuple(page.content for page in found) == self.BODIES
        assert found[0].url == "https://a/0"
        assert found[0].crawl_time == "2026-01-02T03:04:05+00:00"

    def test_what_is_not_a_page_is_a_reject(self, tmp_path):
        image = warc_record("https://a/i", b"PNG", "image/png")
        missing = warc_record("https://a/m", b"gone").replace(b"200 OK", b"404 No")
        (tmp_path / "x.warc").write_bytes(image + missing + self.stream()[0])
        found = source("warc", tmp_path)
        assert len(pages(found)) == 1
        assert rejects(found) == {"https://a/i": "content_type", "https://a/m": "http_status"}

    @pytest.mark.parametrize(
        ("suffix", "pack"), [(".warc", bytes), (".warc.gz", gzip.compress), (".warc.zst", zstandard.compress)]
    )
    @pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.77, 0.999])
    def test_a_truncated_file_is_read_to_its_last_good_record(self, suffix, pack, share, tmp_path):
        packed = [pack(record) for record in self.stream()]
        cut = int(sum(map(len, packed)) * share)
        whole = sum(sum(map(len, packed[: i + 1])) <= cut for i in range(len(packed)))
        (tmp_path / f"x{suffix}").write_bytes(b"".join(packed)[:cut])
        found = read(source("warc", tmp_path))
        good = [item.content for item in found if isinstance(item, Page)]
        assert len(good) in (whole, whole + 1)  # a body may be complete although the record's trailer is cut off
        assert good == list(self.BODIES[: len(good)])
        if len(good) == whole or suffix != ".warc":
            assert isinstance(found[-1], Rejected)
            assert found[-1].reason in ("truncated", "damaged_rest")

    def test_garbage_is_one_reject(self, tmp_path):
        (tmp_path / "x.warc").write_bytes(bytes(range(256)) * 100)
        assert list(rejects(source("warc", tmp_path)).values()) == ["damaged_rest"]

    def test_a_real_crawl_gives_its_pages(self):
        if not SHARED.is_dir():
            pytest.skip(f"{SHARED} is absent")
        found = source("warc", SHARED / "docs-ja.warc.gz")
        assert len(pages(found)) == 204  # README: 206 responses, a 301 and a 404 among them
        assert sorted(rejects(found).values()) == ["http_status", "http_status"]


class TestPythonSource:
    def test_the_standard_library_comes_in_order_without_tests_and_packages(self):
        urls = [page.url for page in pages(source("python_source", max_pages=300))]
        assert urls == sorted(urls)
        assert "python:argparse.py" in urls
        assert not [url for url in urls if "/test" in url or "site-packages" in url]

    def test_the_interpreter_version_is_part_of_the_identity(self, monkeypatch):
        before = MirrorConfig(sources=(source("python_source"),)).semantic()
        monkeypatch.setattr("platform.python_version", lambda: "9.9.9")
        assert MirrorConfig(sources=(source("python_source"),)).semantic() != before

    def test_the_notice_holds_the_licence_of_python(self):
        assert "PYTHON SOFTWARE FOUNDATION LICENSE" in SOURCES["python_source"].notice(source("python_source"))

    def test_globs_that_match_nothing_are_an_error(self):
        with pytest.raises(ValueError, match=r"holds no \.py file"):
            SOURCES["python_source"].parts(source("python_source", include=("nothing*",)))
