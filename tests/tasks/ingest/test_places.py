"""Sources that are not on this machine: fetched whole or by range; no network fault looks like damage."""

import gzip
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import DataFault, HostFault
from tasks.ingest.sources import SOURCES, places, warc_index
from tasks.ingest.sources.source import Page, Rejected, SourceConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def source(kind: str, location: Path | str, **fields: Any) -> SourceConfig:
    return SourceConfig(
        kind=kind, name="pages", licence="MIT", attribution="The authors", location=str(location), **fields
    )


def read(config: SourceConfig) -> list[Page | Rejected]:
    kind = SOURCES[config.kind]
    return [item for part in kind.parts(config) for item in kind.read(config, part)]


def member(url: str, status: str = "200 OK") -> bytes:
    http = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\n\r\n<p>{url}".encode()
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nContent-Type: application/http\r\n"
    return gzip.compress(f"{head}Content-Length: {len(http)}\r\n\r\n".encode() + http + b"\r\n\r\n")


class Server(ThreadingHTTPServer):
    """Files in memory over HTTP with ranges; `failures` requests are answered with 503 first, or cut off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.failures = 0
        self.cut = False
        self.ranges: list[str] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        content = self.server.files.get(self.path)
        with self.server.lock:
            failing = body and self.server.failures > 0
            self.server.failures -= failing
        if content is None or (failing and not self.server.cut):
            self.send_error(404 if content is None else 503)
            return
        wanted = self.headers.get("Range")
        if wanted:
            self.server.ranges.append(wanted)
            first, last = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
            content = content[first : last + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if failing else content)
        if failing:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(places, "RETRY_DELAYS_S", (0.01, 0.01))
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def memory():
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/corpus", recursive=True) if store.exists("/corpus") else None


def urls(found: list[Page | Rejected]) -> list[str]:
    return [item.url if isinstance(item, Page) else item.reason for item in found]


class TestWhole:
    def test_an_archive_behind_a_url_is_read(self, server):
        server.files["/x.warc.gz"] = member("http://a/1") + member("http://a/2")
        assert urls(read(source("warc", f"{server.url}/x.warc.gz", revision="r"))) == ["http://a/1", "http://a/2"]

    def test_a_server_that_comes_back_is_no_loss(self, server):
        server.files["/x.warc.gz"] = member("http://a/1")
        for server.cut in (False, True):
            server.failures = 2
            assert urls(read(source("warc", f"{server.url}/x.warc.gz", revision="r"))) == ["http://a/1"]

    @pytest.mark.parametrize("cut", [False, True])
    def test_a_server_that_stays_away_is_a_host_fault_and_no_damaged_file(self, cut, server):
        server.files["/x.warc.gz"] = member("http://a/1") * 50
        server.failures, server.cut = 100, cut
        with pytest.raises(HostFault, match="could not be fetched in 3 tries"):
            read(source("warc", f"{server.url}/x.warc.gz", revision="r"))

    def test_a_file_that_is_not_there_is_a_data_fault(self, server):
        with pytest.raises(DataFault, match="not there or not public"):
            read(source("warc", f"{server.url}/none.warc.gz", revision="r"))

    def test_a_remote_source_without_a_revision_is_refused(self):
        for kind in ("warc", "jsonl", "parquet", "mediawiki", "cirrussearch", "parallel"):
            with pytest.raises(ValueError, match="has no revision"):
                SOURCES[kind].parts(source(kind, "https://example.org/x"))

    def test_files_of_a_bucket_come_in_order_and_are_named_by_their_path(self, memory):
        for name in ("b/2.jsonl", "a/1.jsonl", "a/readme.md"):
            memory.pipe_file(f"/corpus/{name}", json.dumps({"text": name}).encode())
        found = source("jsonl", "memory://corpus", revision="r")
        assert [part.key for part in SOURCES["jsonl"].parts(found)] == ["a/1.jsonl", "b/2.jsonl"]
        assert [item.content for item in read(found) if isinstance(item, Page)] == [b"a/1.jsonl", b"b/2.jsonl"]

    def test_an_empty_bucket_is_an_error_with_the_remedy(self, memory):
        memory.pipe_file("/corpus/readme.md", b"x")
        with pytest.raises(ValueError, match="Correct the URL or the include globs"):
            SOURCES["jsonl"].parts(source("jsonl", "memory://corpus", revision="r"))

    def test_where_a_remote_source_is_and_its_revision_are_its_identity(self):
        def identity(location: str, revision: str = "r") -> Any:
            config = source("jsonl", location, revision=revision)
            return config.semantic(), SOURCES["jsonl"].state(config)

        assert identity("s3://a/x") == identity("s3://a/x")
        assert identity("s3://a/x") != identity("s3://b/x")
        assert identity("s3://a/x") != identity("s3://a/x", "r2")


class TestPaths:
    def test_a_list_of_paths_names_the_archives(self, server, tmp_path):
        for i in (1, 2):
            server.files[f"/crawl/{i}.warc.gz"] = member(f"http://a/{i}")
        listed = tmp_path / "warc.paths.gz"
        listed.write_bytes(gzip.compress(b"crawl/2.warc.gz\ncrawl/1.warc.gz\n\n"))
        found = source("warc", listed, base_url=server.url, revision="CC-MAIN-2024-10")
        assert [part.key for part in SOURCES["warc"].parts(found)] == ["crawl/2.warc.gz", "crawl/1.warc.gz"]
        assert urls(read(found)) == ["http://a/2", "http://a/1"]

    def test_the_archives_of_a_list_may_be_on_this_machine(self, tmp_path):
        (tmp_path / "crawl").mkdir()
        (tmp_path / "crawl" / "1.warc.gz").write_bytes(member("http://a/1"))
        (tmp_path / "warc.paths").write_text("crawl/1.warc.gz\n")
        assert urls(read(source("warc", tmp_path / "warc.paths", base_url=str(tmp_path)))) == ["http://a/1"]

    def test_an_empty_list_is_an_error(self, tmp_path):
        (tmp_path / "warc.paths").write_text("\n\n")
        with pytest.raises(ValueError, match="names no file"):
            SOURCES["warc"].parts(source("warc", tmp_path / "warc.paths", revision="r"))

    def test_a_list_of_remote_archives_needs_a_revision(self, tmp_path):
        (tmp_path / "warc.paths").write_text("x.warc.gz\n")
        with pytest.raises(ValueError, match="has no revision"):
            SOURCES["warc"].parts(source("warc", tmp_path / "warc.paths"))


class TestIndex:
    PAGES = tuple(f"http://a/{i}" for i in range(20))

    def archive(self, server: Server) -> list[dict[str, Any]]:
        rows, content = [], b""
        for number, url in enumerate(self.PAGES):
            packed = member(url)
            language = ("jpn", "eng", "jpn,eng", "eng,jpn")[number % 4]
            rows.append(
                {"url": url, "filename": "crawl/x.warc.gz", "offset": len(content), "length": len(packed)}
                | {"status": "200", "languages": language}
            )
            content += packed
        server.files["/crawl/x.warc.gz"] = content
        return rows

    def write(self, path: Path, rows: list[dict[str, Any]]) -> None:
        if path.suffix == ".parquet":
            names = {name: column for column, name in warc_index._COLUMNS.items()}
            table = pa.Table.from_pylist([{names[name]: value for name, value in row.items()} for row in rows])
            pq.write_table(table.append_column("more", pa.array([1] * len(rows))), path)
            return
        key = "com,a)/ 20240101000000 " if path.name.endswith((".cdxj", ".cdxj.gz")) else ""
        # The API writes numbers as strings.
        lines = "".join(key + json.dumps({k: str(v) for k, v in row.items()}) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)

    @pytest.mark.parametrize("name", ["x.parquet", "x.cdxj", "x.cdxj.gz", "x.jsonl"])
    def test_only_the_ranges_of_chosen_rows_are_fetched(self, name, server, tmp_path, monkeypatch):
        monkeypatch.setattr(warc_index, "REQUESTS", 4)  # several rounds
        rows = self.archive(server)
        self.write(tmp_path / name, rows)
        found = source("warc_index", tmp_path, base_url=server.url, revision="r", languages=("jpn",))
        chosen = [row for row in rows if row["languages"].startswith("jpn")]
        assert urls(read(found)) == [row["url"] for row in chosen]
        asked = {f"bytes={row['offset']}-{row['offset'] + row['length'] - 1}" for row in chosen}
        assert set(server.ranges) == asked

    def test_rows_are_chosen_by_url_too(self, server, tmp_path):
        self.write(tmp_path / "x.jsonl", self.archive(server))
        found = source("warc_index", tmp_path, base_url=server.url, revision="r", include=("*/1?",), exclude=("*9",))
        assert urls(read(found)) == [f"http://a/1{i}" for i in range(9)]

    def test_what_cannot_be_fetched_or_is_no_row_is_a_reject_in_its_place(self, server, tmp_path):
        rows = self.archive(server)[:3]
        gone = rows[1] | {"filename": "crawl/none.warc.gz"}
        beyond = rows[1] | {"length": 10_000_000}
        wrong = rows[1] | {"offset": rows[1]["offset"] + 1}
        other = rows[1] | {"status": "404"}
        lines = [json.dumps(row) for row in (rows[0], gone, beyond, wrong, other, {"url": "x"}, rows[2])]
        lines += ["not json", json.dumps(rows[0] | {"offset": -1}), json.dumps(rows[0] | {"length": 0})]
        (tmp_path / "x.jsonl").write_text("\n".join(lines))
        found = read(source("warc_index", tmp_path, base_url=server.url, revision="r"))
        assert urls(found) == [
            *("http://a/0", "unreadable", "truncated", "unreadable", "http_status", "no_range", "http://a/2"),
            *("invalid_json", "no_range", "no_range"),
        ]

    def test_a_server_that_stays_away_is_a_host_fault(self, server, tmp_path):
        self.write(tmp_path / "x.jsonl", self.archive(server)[:5])
        server.failures = 10_000
        with pytest.raises(HostFault, match="could not be fetched"):
            read(source("warc_index", tmp_path, base_url=server.url, revision="r"))

    def test_some_failed_ranges_are_asked_for_again(self, server, tmp_path):
        self.write(tmp_path / "x.jsonl", self.archive(server)[:5])
        server.failures = 3
        found = read(source("warc_index", tmp_path, base_url=server.url, revision="r"))
        assert urls(found) == [f"http://a/{i}" for i in range(5)]

    def test_archives_on_this_machine_need_no_server(self, server, tmp_path):
        self.write(tmp_path / "x.jsonl", self.archive(server)[:5])
        (tmp_path / "crawl").mkdir()
        (tmp_path / "crawl" / "x.warc.gz").write_bytes(server.files["/crawl/x.warc.gz"])
        found = read(source("warc_index", tmp_path / "x.jsonl", base_url=str(tmp_path)))
        assert urls(found) == [f"http://a/{i}" for i in range(5)]

    def test_an_index_of_remote_archives_needs_a_revision(self, tmp_path):
        (tmp_path / "x.jsonl").write_text("{}")
        with pytest.raises(ValueError, match="has no revision"):
            SOURCES["warc_index"].parts(source("warc_index", tmp_path))


class TestHub:
    @pytest.fixture
    def repository(self, memory):
        memory.pipe_file("/corpus/data/b.jsonl", b'{"text": "third", "url": "u3"}\nbroken\n')
        table = pa.table({"text": ["first", "second", None], "id": ["1", "2", "3"]})
        with memory.open("/corpus/data/a.parquet", "wb") as file:
            pq.write_table(table, file)
        memory.pipe_file("/corpus/README.md", b"licence: mit")
        return "memory://corpus"

    def test_parquet_and_jsonl_files_of_a_repository_are_read_in_order(self, repository):
        found = read(source("huggingface", repository, revision=COMMIT))
        assert urls(found) == ["1", "2", "no_text_field", "u3", "invalid_json"]
        assert [item.content for item in found if isinstance(item, Page)] == [b"first", b"second", b"third"]

    def test_include_chooses_files(self, repository):
        found = source("huggingface", repository, revision=COMMIT, include=("data/*.jsonl",))
        assert [part.key for part in SOURCES["huggingface"].parts(found)] == ["data/b.jsonl"]

    def test_a_copy_on_disk_is_read_by_the_same_path(self, tmp_path):
        (tmp_path / "x.jsonl").write_text('{"text": "one"}\n')
        assert urls(read(source("huggingface", f"file://{tmp_path}", revision=COMMIT))) == ["x.jsonl#1"]

    @pytest.mark.parametrize("revision", ["", "main", "v1.0", COMMIT[:12]])
    def test_anything_but_a_commit_is_refused(self, revision):
        with pytest.raises(ValueError, match="is not a commit"):
            SOURCES["huggingface"].parts(source("huggingface", "owner/name", revision=revision))

    def test_what_is_no_repository_is_refused(self):
        with pytest.raises(ValueError, match="OWNER/NAME"):
            SOURCES["huggingface"].parts(source("huggingface", "/some/where", revision=COMMIT))

    def test_the_commit_is_part_of_the_address(self):
        state = SOURCES["huggingface"].state(source("huggingface", "owner/name", revision=COMMIT))
        assert state == {"location": f"hf://datasets/owner/name@{COMMIT}"}


def test_what_was_fetched_is_removed_afterwards(memory):
    memory.pipe_file("/corpus/x.bin", b"content")
    with places.fetched("memory://corpus/x.bin") as path:
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(b"content").digest()
    assert not path.exists()
