"""Debian packages as a source: read from the cache, and clear errors where there is neither network nor cache."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.errors import ConfigError, DataFault, HostFault
from tasks.ingest.sources import SOURCES, debian
from tasks.ingest.sources.source import Page, Rejected, SourceConfig

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is absent: no Debian system")


def config(cache: Path, *packages: str, **fields) -> SourceConfig:
    return SourceConfig(
        kind="debian",
        name="docs",
        licence="GPL-2.0-or-later",
        attribution="Debian",
        packages=packages,
        cache_dir=str(cache),
        **fields,
    )


def build(folder: Path, cache: Path, name: str, files: dict[str, bytes]) -> Path:
    """A real package with these files, in the cache as if it had been fetched."""
    root = folder / f"{name}-root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: test\n"
    )
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    fetched = folder / f"{name}_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(root), str(fetched)], check=True, capture_output=True)
    cache.mkdir(exist_ok=True)
    debian._keep(name, fetched, cache)
    return cache / fetched.name


def read(source: SourceConfig) -> list[Page | Rejected]:
    return [item for part in SOURCES["debian"].parts(source) for item in SOURCES["debian"].read(source, part)]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    files = {
        "usr/share/doc/manual/copyright": b"Copyright 2026 The Authors\nLicense: GPL-2+\n",
        "usr/share/doc/manual/ja/a.html": "<p>日本語</p>".encode(),
        "usr/share/doc/manual/ja/b.html.gz": gzip.compress(b"<p>packed</p>", mtime=0),
        "usr/share/doc/manual/ja/c.html.gz": b"broken",
        "usr/share/doc/manual/en/a.html": b"<p>English</p>",
        "usr/share/doc/manual/readme.txt": b"not a page",
        "etc/manual/x.html": b"<p>configuration</p>",
    }
    build(tmp_path, tmp_path / "cache", "manual", files)
    return tmp_path / "cache"


def test_pages_of_a_cached_package_are_read_without_network(cache, monkeypatch):
    monkeypatch.setattr(debian, "_apt", lambda *_: pytest.fail("apt was called"))
    found = read(config(cache, "manual"))
    pages = {item.url: item.content for item in found if isinstance(item, Page)}
    assert pages == {
        "deb:manual/usr/share/doc/manual/en/a.html": b"<p>English</p>",
        "deb:manual/usr/share/doc/manual/ja/a.html": "<p>日本語</p>".encode(),
        "deb:manual/usr/share/doc/manual/ja/b.html.gz": b"<p>packed</p>",
    }
    assert [item.reason for item in found if isinstance(item, Rejected)] == ["unreadable"]


def test_globs_choose_one_language_of_a_package(cache):
    found = read(config(cache, "manual", include=("*/ja/*",), exclude=("*.gz",)))
    assert [item.url.rsplit("/", 2)[1:] for item in found] == [["ja", "a.html"]]


def test_the_copyright_file_is_the_notice(cache):
    assert "Copyright 2026 The Authors" in SOURCES["debian"].notice(config(cache, "manual"))


def test_a_package_without_copyright_file_is_refused(cache, tmp_path):
    build(tmp_path, cache, "bare", {"usr/share/doc/bare/a.html": b"<p>x</p>"})
    with pytest.raises(DataFault, match=r"has no usr/share/doc/bare/copyright.*must travel"):
        SOURCES["debian"].notice(config(cache, "bare"))


def test_no_packages_is_an_error(cache):
    with pytest.raises(ConfigError, match="names no packages"):
        SOURCES["debian"].parts(config(cache))


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_cache_entry_is_fetched_again_never_used(cache, damage, monkeypatch):
    [deb] = cache.glob("*.deb")
    content = deb.read_bytes()
    if damage == "gone":
        deb.unlink()
    else:
        deb.write_bytes(content[:-100] if damage == "cut" else content[:200] + b"\xff" + content[201:])
    fetched: list[str] = []
    monkeypatch.setattr(debian, "_download", lambda packages, _: (fetched.extend(packages), deb.write_bytes(content)))
    assert len(read(config(cache, "manual"))) == 4
    assert fetched == ["manual"]


def test_a_file_that_is_no_package_is_a_data_fault(tmp_path):
    (tmp_path / "fake_1_all.deb").write_bytes(b"this is no archive" * 100)
    debian._keep("fake", tmp_path / "fake_1_all.deb", tmp_path)
    with pytest.raises(DataFault, match="not a whole Debian package"):
        read(config(tmp_path, "fake"))


@pytest.mark.skipif(not shutil.which("apt-get"), reason="apt-get is absent")
def test_no_network_and_no_cache_says_so_and_how_to_go_on(tmp_path, monkeypatch):
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
        monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr(debian, "_RETRIES", 0)
    with pytest.raises(HostFault, match=r"(?s)'debian-faq' is not in the cache.*Check the network.*it resumes"):
        read(config(tmp_path / "cache", "debian-faq"))
    assert not list((tmp_path / "cache").iterdir())


def test_a_machine_without_apt_is_told_what_else_it_can_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match=r"has no apt-get, apt-config, dpkg-deb.*html, warc or jsonl"):
        read(config(tmp_path, "debian-faq"))


def test_an_unknown_package_is_told_apart_from_a_missing_network(tmp_path, monkeypatch):
    def apt(arguments, *_):
        said = "" if arguments == ["update"] else "E: Unable to locate package nosuch\n"
        return subprocess.CompletedProcess(arguments, 100, "", said)

    monkeypatch.setattr(debian, "_apt", apt)
    monkeypatch.setattr(debian, "_private_apt", lambda _: {})
    monkeypatch.setattr(shutil, "which", lambda name: name)
    with pytest.raises(ConfigError, match=r"(?s)'nosuch' is unknown.*Unable to locate.*by exact name"):
        read(config(tmp_path, "nosuch"))


def test_the_cache_entry_is_written_last_and_names_the_digest(cache):
    entry = json.loads((cache / "manual.json").read_text())
    assert entry["file"] == "manual_1.0_all.deb"
    assert len(entry["sha256"]) == 64
