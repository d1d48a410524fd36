"""Web archives: every fixture, whole or broken, and headers that lie; one bad record never costs the next."""

import gzip
import io
import tarfile
import zlib
from pathlib import Path

import pytest
import zstandard

from tasks.ingest.sources import archives
from tasks.ingest.sources.archives import record, records
from tasks.ingest.sources.source import Page, Rejected

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "html-ja"
HTML = b"<html><p>" + "本文です。".encode() * 20 + b"</p></html>"

# What each file holds, found by reading them with zcat: pages (url -> bytes), and rejects in order.
EXAMPLE, IANA = "http://example.com/", "http://www.iana.org/"
FIXTURES: dict[str, tuple[dict[str, int], list[str]]] = {
    "jwarc/cc.warc.gz": ({"http://commoncrawl.org/": 20289}, []),
    "jwarc/gzip_extra_sl.warc.gz": ({}, []),  # a warcinfo in a member with an extra field
    "warcio/bad.arc": ({}, ["damaged_rest"]),  # lengths of -1 and abc
    "warcio/example-bad-non-chunked.warc.gz": ({EXAMPLE: 1270}, []),  # all records in one member
    "warcio/example-bad.warc.gz.bad": ({"http://example.com?example=1": 1270}, ["http_status"]),
    "warcio/example-digest.warc": ({}, []),  # requests only
    "warcio/example-iana.org-chunked.warc": ({IANA: 7223}, []),
    "warcio/example-resource.warc.gz": ({EXAMPLE: 1303}, []),
    "warcio/example-space-in-target-uri.warc.gz": ({}, ["content_type"]),
    "warcio/example-space-in-url.arc": ({}, ["truncated"]),  # 12 bytes fewer than its length says
    "warcio/example-trunc.warc": ({EXAMPLE: 1270}, ["damaged_rest"]),  # a length too small by two
    "warcio/example-wget-bad-target-uri.warc.gz": ({EXAMPLE: 1270}, ["not_a_page", "not_a_page"]),
    "warcio/example-wrong-chunks.warc.gz": ({EXAMPLE: 1270}, []),
    "warcio/example.arc": ({EXAMPLE: 1270}, []),
    "warcio/example.arc.gz": ({EXAMPLE: 1270}, []),
    "warcio/example.warc": ({EXAMPLE: 1270}, []),
    "warcio/example.warc.gz": ({EXAMPLE: 1270}, []),
    "warcio/post-test.warc.gz": ({}, ["content_type"] * 3),
    "whirlwind-python/whirlwind.warc": ({"https://an.wikipedia.org/wiki/Escopete": 72848}, []),
    "whirlwind-python/whirlwind.warc.gz": ({"https://an.wikipedia.org/wiki/Escopete": 72848}, []),
    "whirlwind-python/whirlwind.warc.wat.gz": ({}, []),  # metadata only
    "whirlwind-python/whirlwind.warc.wet.gz": ({"https://an.wikipedia.org/wiki/Escopete": 4456}, []),
}


def response(url: str, body: bytes = HTML, headers: bytes = b"", version: bytes = b"WARC/1.0") -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + headers + b"\r\n" + body
    head = (
        f"WARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
        f"Content-Type: application/http\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return version + b"\r\n" + head.encode() + http + b"\r\n\r\n"


def read(path: Path, content: bytes) -> list[Page | Rejected]:
    path.write_bytes(content)
    return list(records(path.name, path))


def summary(found: list[Page | Rejected]) -> list[str]:
    return [item.url if isinstance(item, Page) else item.reason for item in found]


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory) -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    folder = tmp_path_factory.mktemp("warc")
    with tarfile.open(SHARED / "warc-fixtures.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    assert sum(path.is_file() for path in folder.rglob("*")) == len(FIXTURES) == 22
    return folder


@pytest.mark.parametrize("name", FIXTURES)
def test_each_fixture_is_read_to_its_last_good_record_and_the_rest_is_counted(name, fixtures):
    found = list(records(name, fixtures / name))
    wanted, reasons = FIXTURES[name]
    assert {item.url: len(item.content) for item in found if isinstance(item, Page)} == wanted
    assert [item.reason for item in found if isinstance(item, Rejected)] == reasons


def test_arc_and_warc_of_the_same_page_hold_the_same_bytes_and_time(fixtures):
    [arc], [packed] = (list(records("x", fixtures / "warcio" / name)) for name in ("example.arc", "example.arc.gz"))
    [warc] = [item for item in records("x", fixtures / "warcio" / "example.warc") if isinstance(item, Page)]
    assert arc == packed
    assert isinstance(arc, Page)
    assert arc.content == warc.content
    assert arc.crawl_time == "2014-02-16T05:02:21+00:00"


@pytest.mark.parametrize("version", [b"WARC/0.9", b"WARC/0.17", b"WARC/0.18", b"WARC/1.0", b"WARC/1.1"])
def test_old_and_new_heads_are_read(version, tmp_path):
    found = read(tmp_path / "x.warc", response("https://a", version=version) * 2)
    assert summary(found) == ["https://a"] * 2


@pytest.mark.parametrize("blanks", ["", " with blanks"])
@pytest.mark.parametrize("version", [1, 2])
def test_arc_records_of_both_versions_are_read(version, blanks, tmp_path):
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + HTML
    url = "http://a/x" if version == 2 else f"http://a/x{blanks}"
    more = "" if version == 1 else " 200 CHECKSUM - 77 file.arc"
    line = f"{url} 1.2.3.4 20010203040506 text/html{more} {len(body)}\n".encode()
    info = f"{version} 0 Test\nURL IP-address Archive-date Content-type Archive-length\n".encode()
    head = b"filedesc://x.arc 0.0.0.0 20010203040506 text/plain %d\n" % len(info) + info + b"\n"
    found = read(tmp_path / "x.arc", head + (line + body + b"\n") * 2)
    assert summary(found) == [url, url]
    assert [item.crawl_time for item in found if isinstance(item, Page)] == ["2001-02-03T04:05:06+00:00"] * 2


GZIPPED = gzip.compress(HTML)


@pytest.mark.parametrize(
    ("headers", "body", "verdict"),
    [
        pytest.param(b"Content-Encoding: gzip\r\n", GZIPPED, HTML, id="gzip"),
        pytest.param(
            b"Content-Encoding: gzip\r\n",
            gzip.compress(HTML[:5]) + gzip.compress(HTML[5:]),
            HTML,
            id="two gzip members",
        ),
        pytest.param(b"Content-Encoding: gzip\r\n", GZIPPED + b"\0\0", HTML, id="gzip with padding behind it"),
        pytest.param(b"Content-Encoding: deflate\r\n", zlib.compress(HTML), HTML, id="zlib"),
        pytest.param(b"Content-Encoding: deflate\r\n", zlib.compress(HTML)[2:-4], HTML, id="bare deflate"),
        pytest.param(b"Content-Encoding: zstd\r\n", zstandard.compress(HTML), HTML, id="zstd"),
        pytest.param(b"Content-Encoding: gzip\r\n", HTML, HTML, id="says gzip, is plain"),
        pytest.param(b"Content-Encoding: br\r\n", HTML, HTML, id="says brotli, is plain"),
        pytest.param(b"Content-Encoding: magic\r\n", HTML, HTML, id="an encoding nobody knows"),
        pytest.param(b"Content-Encoding: gzip\r\n", GZIPPED[:-4], HTML, id="gzip without its last bytes"),
        pytest.param(b"Content-Encoding: gzip\r\n", GZIPPED[:8], "content_encoding", id="gzip without content"),
        pytest.param(
            b"Content-Encoding: br\r\n", b"\x9f\x07\x00\x01" * 50, "content_encoding", id="says brotli, is not"
        ),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello", id="chunks"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", HTML, HTML, id="says chunked, is not"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\nzz", b"hellozz", id="chunks that break off"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"50\r\nhello\r\n", b"hello\r\n", id="a chunk that is short"),
        pytest.param(b"Content-Length: 7\r\n", HTML, HTML, id="a length that lies"),
    ],
)
def test_headers_that_lie_cost_at_most_their_own_page(headers, body, verdict, tmp_path):
    found = read(tmp_path / "x.warc", response("https://a", body, headers) + response("https://next"))
    assert len(found) == 2
    assert found[0].content == verdict if isinstance(found[0], Page) else found[0].reason == verdict
    assert found[1].url == "https://next"


def test_brotli_is_unpacked(tmp_path):
    packed = bytes.fromhex("0b028068656c6c6f03")  # "hello", from the format's own examples
    [found] = read(tmp_path / "x.warc", response("https://a", packed, b"Content-Encoding: br\r\n"))
    assert isinstance(found, Page)
    assert found.content == b"hello"


def test_a_bomb_grows_to_the_limit_and_no_further(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_RECORD_BYTES", 10_000)
    bomb = gzip.compress(b"<p>" + b"x" * 1_000_000)
    [found] = read(tmp_path / "x.warc", response("https://a", bomb, b"Content-Encoding: gzip\r\n"))
    assert isinstance(found, Page)
    assert len(found.content) == 10_000


@pytest.mark.parametrize("broken", [0, 3, 9])
def test_a_broken_gzip_member_costs_its_own_records_only(broken, tmp_path):
    members = [gzip.compress(response(f"https://a/{i}")) for i in range(10)]
    damaged = bytearray(members[broken])
    damaged[30:60] = bytes(30)
    members[broken] = bytes(damaged)
    found = read(tmp_path / "x.warc.gz", b"".join(members))
    good = [f"https://a/{i}" for i in range(10) if i != broken]
    assert [item.url for item in found if isinstance(item, Page)] == good
    rejected = [item.reason for item in found if isinstance(item, Rejected)]
    assert rejected in (["damaged_record"], ["damaged_rest"], ["truncated"])
    assert (rejected == ["damaged_rest"]) <= (broken == 9)


def test_garbage_between_two_members_costs_nothing_but_a_count(tmp_path):
    members = [gzip.compress(response(f"https://a/{i}")) for i in range(4)]
    junk = b"\x1f\x8b\x08junk that looks like a member" + bytes(range(200))
    found = read(tmp_path / "x.warc.gz", members[0] + members[1] + junk + members[2] + members[3])
    assert [item.url for item in found if isinstance(item, Page)] == [f"https://a/{i}" for i in range(4)]
    assert [item.reason for item in found if isinstance(item, Rejected)] == ["damaged_record"]


def test_padding_after_a_member_is_no_damage(tmp_path):
    packed = gzip.compress(response("https://a"))
    assert summary(read(tmp_path / "x.warc.gz", packed + bytes(700) + packed + bytes(70_000))) == ["https://a"] * 2


def test_the_name_does_not_decide_how_a_file_is_packed(tmp_path):
    assert summary(read(tmp_path / "plain.warc.gz", response("https://a"))) == ["https://a"]
    assert summary(read(tmp_path / "packed.warc", gzip.compress(response("https://a")))) == ["https://a"]


def test_a_record_is_read_from_its_own_bytes():
    found = record("https://a", gzip.compress(response("https://a")))
    assert isinstance(found, Page)
    assert found.content == HTML
    assert summary([record("https://a", b"no gzip")]) == ["unreadable"]
    info = b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 0\r\n\r\n\r\n\r\n"
    assert summary([record("https://a", gzip.compress(info))]) == ["unreadable"]


def test_a_huge_record_is_a_reject_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_RECORD_BYTES", 300)
    found = read(tmp_path / "x.warc", response("https://large", b"x" * 400) + response("https://small", b"x"))
    assert summary(found) == ["too_large", "https://small"]


def test_reading_in_small_pieces_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x.warc.gz"
    whole = read(path, b"".join(gzip.compress(response(f"https://a/{i}")) for i in range(30)))
    monkeypatch.setattr("tasks.ingest.sources.compressed.READ_BYTES", 7)
    assert list(records(path.name, path)) == whole
    assert len(whole) == 30
    assert io.BytesIO(path.read_bytes()).read(2) == b"\x1f\x8b"
