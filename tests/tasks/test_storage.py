"""Every kind of store keeps the same promises."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import objects
from tasks.storage import ABSENT, exists, join, normalise, read_all, storage_for
from tests.tasks.fake_gcs import Bucket


def test_what_is_written_is_read_listed_and_removed(any_store: str, tmp_path: Path):
    storage = storage_for(any_store)
    file = tmp_path / "file.bin"
    file.write_bytes(b"from a file")
    for path, source in {"a/b/one.txt": b"1", "a/two with space+%.txt": b"22", "c.txt": b"", "a/.hidden": b"x"}.items():
        storage.write(join(any_store, path), source)
    storage.write(join(any_store, "a/file"), file)
    assert storage.find(any_store) == {"a/b/one.txt": 1, "a/file": 11, "a/two with space+%.txt": 2, "c.txt": 0}
    assert storage.find(join(any_store, "a")) == {"b/one.txt": 1, "file": 11, "two with space+%.txt": 2}
    assert storage.children(any_store) == ["a"]
    assert storage.read(join(any_store, "a/file")) == b"from a file"
    assert storage.size(join(any_store, "a/two with space+%.txt")) == 2
    storage.remove(join(any_store, "c.txt"))
    storage.remove(join(any_store, "c.txt"))
    assert not exists(join(any_store, "c.txt"))
    storage.remove_tree(join(any_store, "a"))
    assert storage.find(any_store) == {}


def test_what_is_absent_is_said_to_be_absent(any_store: str, tmp_path: Path):
    storage, url = storage_for(any_store), join(any_store, "x/none")
    assert storage.version(url) == ABSENT
    assert storage.size(url) is None
    assert storage.find(url) == {}
    assert storage.children(url) == []
    assert storage.remove_if(url, ABSENT)
    with pytest.raises(FileNotFoundError):
        storage.read(url)
    with pytest.raises(FileNotFoundError):
        storage.download(url, tmp_path / "x")
    storage.write(join(any_store, "there"), b"1")
    assert read_all([join(any_store, "there"), url]) == [b"1", None]


def test_a_write_that_demands_a_version_fails_when_another_came_first(any_store: str):
    storage, url = storage_for(any_store), join(any_store, "file")
    assert storage.write_if(url, b"1", ABSENT)
    assert not storage.write_if(url, b"2", ABSENT)
    first = storage.version(url)
    assert storage.write_if(url, b"2", first)
    assert not storage.write_if(url, b"3", first)
    assert not storage.remove_if(url, first)
    assert storage.read(url) == b"2"
    assert storage.remove_if(url, storage.version(url))
    assert not exists(url)


def test_an_equal_text_written_again_is_another_version(any_store: str):
    storage, url = storage_for(any_store), join(any_store, "file")
    storage.write(url, b"same")
    before = storage.version(url)
    storage.write(url, b"same")
    assert storage.version(url) != before


def test_increments_of_many_writers_are_never_lost(any_store: str):
    storage, url = storage_for(any_store), join(any_store, "counter")
    storage.write(url, b"0 -")
    errors: list[BaseException] = []

    def increment(name: str) -> None:
        for turn in range(5):
            while True:
                with storage.guard(any_store):
                    version = storage.version(url)
                    value = int(storage.read(url).split()[0])
                    if storage.write_if(url, f"{value + 1} {name}{turn}".encode(), version):
                        break

    run_all([lambda name=name: increment(name) for name in "abcd"], errors)
    assert not errors
    assert storage.read(url).split()[0] == b"20"


def run_all(jobs: list[Callable[[], None]], errors: list[BaseException]) -> None:
    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_guard_of_a_disk_survives_the_removal_of_its_file(tmp_path: Path):
    url = str(tmp_path / "artifact")
    storage, inside, order = storage_for(url), threading.Event(), []
    first = storage.guard(url)
    first.__enter__()

    def second() -> None:
        inside.set()
        with storage.guard(url):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    inside.wait()
    (tmp_path / "artifact" / ".lock").unlink()
    order.append("first")
    first.__exit__(None, None, None)
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_a_local_path_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    spellings = ["store", "./store/", f"file://{tmp_path}/store", str(tmp_path / "x" / ".." / "store")]
    assert {normalise(spelling) for spelling in spellings} == {str(tmp_path / "store")}
    assert normalise("gs://bucket/store/") == "gs://bucket/store"


def test_a_long_file_goes_to_a_bucket_in_pieces_and_only_if_nobody_was_faster(
    gcs: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(objects, "SIMPLE_BYTES", 1000)
    monkeypatch.setattr(objects, "CHUNK_BYTES", 1024)
    url, content = "gs://long/file.bin", bytes(range(256)) * 17
    (tmp_path / "long").write_bytes(content)
    storage = storage_for(url)
    assert storage.write_if(url, tmp_path / "long", ABSENT)
    assert sum("PUT" in line for line in gcs.log) == 5
    storage.download(url, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    (tmp_path / "other").write_bytes(content[::-1])
    assert not storage.write_if(url, tmp_path / "other", ABSENT)
    assert storage.read(url) == content


def test_a_write_whose_answer_was_lost_is_recognised_as_ours(gcs: Bucket):
    url = "gs://lost/lease.json"
    storage = storage_for(url)
    gcs.lose_answers = 1
    assert storage.write_if(url, b"holder 1", ABSENT), "gcsfs retries, the retry is refused, and yet it is ours"
    assert storage.read(url) == b"holder 1"
    assert not storage.write_if(url, b"holder 2", ABSENT)


def test_a_store_without_compare_and_swap_says_so(caplog: pytest.LogCaptureFixture):
    objects.object_storage.cache_clear()
    assert type(storage_for("s3://bucket/x")) is not objects.GcsStorage
    assert "no compare-and-swap" in caplog.text
