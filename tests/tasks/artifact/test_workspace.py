"""Units of work: whole or not at all, counted, with their rejects."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tasks.artifact import ConservationError, StoreFull, Workspace, produce
from tasks.artifact.lease import LeaseLost, hold
from tasks.artifact.ledger import read_ledger, require_conserved
from tasks.artifact.manifest import Counts, UnitRecord, ledger_path
from tasks.shards import read_batches
from tasks.storage import exists, join, storage_for
from tests.tasks.artifact.counting_stage import COUNT, CountingConfig


@pytest.fixture
def ws(any_store: str, tmp_path: Path) -> Iterator[Workspace]:
    url = join(any_store, "stage", "name-0123456789ab")
    with hold(url) as lease:
        yield Workspace(url, "name", tmp_path / "work", lease.ticket, "code")


def rejects(ws: Workspace, record: UnitRecord) -> list[dict[str, object]]:
    (entry,) = record.rejects
    data = storage_for(ws.url).read(join(ws.url, "rejects", entry.path))
    return [json.loads(line) for line in zstandard.ZstdDecompressor().decompressobj().decompress(data).splitlines()]


def test_a_unit_commits_files_counts_and_facts_together(ws: Workspace, tmp_path: Path):
    (tmp_path / "big").write_bytes(b"big")
    assert ws.unit_record("a/1") is None
    with ws.unit("a/1") as unit:
        unit.write_bytes("raw.bin", b"\x00\x01", rows=2)
        unit.write_json("facts.json", {"b": 1, "a": "日本"})
        unit.write_parquet("docs/0.parquet", pa.table({"x": [1, 2, 3]}))
        unit.add_file("big.bin", tmp_path / "big", rows=1)
        unit.local_file("by/library.txt").write_text("library")
        unit.open("stream.txt").write(b"stream")
        unit.set_rows("stream.txt", 9)
        unit.count(rows_in=4, rows_out=3)
        unit.drop("short", {"text": "x"})
        unit.note(seen=4)
        assert not exists(join(ws.url, "data/raw.bin")), "nothing is visible before the end"
    record = ws.unit_record("a/1")
    assert record is not None
    rows = {entry.path: entry.rows for entry in record.outputs}
    assert rows == {
        "big.bin": 1,
        "by/library.txt": None,
        "docs/0.parquet": 3,
        "facts.json": None,
        "raw.bin": 2,
        "stream.txt": 9,
    }
    assert record.counts == Counts(in_=4, out=3, dropped={"short": 1})
    assert (record.facts, record.code_digest) == ({"seen": 4}, "code")
    assert rejects(ws, record) == [{"unit": "a/1", "reason": "short", "text": "x"}]
    assert sum(batch.num_rows for batch in read_batches(join(ws.url, "data/docs/0.parquet"))) == 3
    assert storage_for(ws.url).read(join(ws.url, "data/facts.json")) == '{\n "a": "日本",\n "b": 1\n}\n'.encode()
    assert [item.key for item in ws.units()] == ["a/1"]
    assert not any(path.is_file() for path in (tmp_path / "work").rglob("*"))


def test_of_twins_of_one_unit_the_first_record_stays_and_another_result_replaces_it(ws: Workspace):
    """A cluster may run a unit twice: a manifest that lists the first record must stay true."""

    def made(content: bytes) -> bytes:
        with ws.unit("a") as unit:
            unit.write_bytes("a.bin", content)
            unit.count(1, 1)
            unit._began -= content.count(b"x")  # the time it took differs
        return storage_for(ws.url).read(join(ws.url, "ledger", ledger_path("a")))

    first = made(b"x")
    with ws.unit("a") as late:
        late.write_bytes("a.bin", b"x")
        late.count(1, 1)
        late._began -= 5
    assert storage_for(ws.url).read(join(ws.url, "ledger", ledger_path("a"))) == first
    storage_for(ws.url).remove(join(ws.url, "data/a.bin"))
    assert ws.unit_record("a") is None
    assert made(b"x") == first, "the same result again mends the files"
    assert ws.unit_record("a") is not None
    assert made(b"xx") != first


def test_many_units_are_asked_for_at_once_with_the_answers_of_one_by_one(ws: Workspace):
    for key in ("a", "b", "c"):
        with ws.unit(key) as unit:
            unit.write_bytes(f"{key}.bin", key.encode())
            unit.count(1, 1)
    storage_for(ws.url).remove(join(ws.url, "data/b.bin"))
    assert ws.finished(["a", "b", "d"]) == {"a"}
    assert [key for key in "abcd" if ws.unit_record(key)] == ["a", "c"]
    late = Workspace(ws.url, ws.name, ws.scratch, replace(ws.ticket, token=ws.ticket.token + 1), ws.code_digest)
    assert late.finished(["a", "d"]) == {"a"}
    assert late.asked() == {ledger_path("a")}, "a later run goes on from it, and from no other"


def half_made(ws: Workspace) -> None:
    with ws.unit("a") as unit:
        unit.open("open.txt").write(b"x")
        unit.drop("short", {"text": "x"})
        unit.write_bytes("a.txt", b"x"[: 1 // 0])


def test_a_unit_that_raises_leaves_nothing(ws: Workspace):
    with pytest.raises(ZeroDivisionError):
        half_made(ws)
    assert storage_for(ws.url).find(ws.url).keys() == {"lease.json"}


def counted_unit(ws: Workspace, rows_in: int, rows_out: int, dropped: int) -> None:
    with ws.unit("counted") as unit:
        unit.count(rows_in=rows_in, rows_out=rows_out)
        for _ in range(dropped):
            unit.drop("short", {})


def test_rows_that_vanish_or_appear_stop_the_unit(ws: Workspace):
    with pytest.raises(ConservationError, match=r"10 rows in, 6 out, 2 dropped \(short 2\); \+2 unaccounted"):
        counted_unit(ws, 10, 6, 2)
    with pytest.raises(ConservationError, match="-1 unaccounted"):
        counted_unit(ws, 1, 2, 0)
    assert ws.units() == []
    counted_unit(ws, 10, 8, 2)
    assert [record.key for record in ws.units()] == ["counted"]


@given(st.integers(0, 99), st.integers(0, 99), st.dictionaries(st.text(), st.integers(0, 99), max_size=4))
def test_the_law_holds_exactly_when_the_sums_agree(rows_in: int, out: int, dropped: dict[str, int]):
    counts = Counts(in_=rows_in, out=out, dropped=dropped)
    if rows_in - out == sum(dropped.values()):
        require_conserved(counts, "x")
    else:
        with pytest.raises(ConservationError):
            require_conserved(counts, "x")


def test_rejects_keep_the_row_with_long_texts_cut(ws: Workspace):
    row = {
        "text": "長" * 2001,
        "content": b"\xff" + b"z" * 9000,
        "n": 3,
        "score": 0.5,
        "none": None,
        "nested": {"list": ["y" * 3000]},
        "reason": "of the row",
        "odd": Path("x"),
        "lone": "\ud800",
    }
    with ws.unit("a") as unit:
        unit.count(rows_in=1)
        unit.drop("long", row)
    record = ws.unit_record("a")
    assert record is not None
    (kept,) = rejects(ws, record)
    assert kept["text"] == "長" * 2000
    assert kept["content"] == "\ufffd" + "z" * 1999
    assert (kept["n"], kept["score"], kept["none"], kept["odd"]) == (3, 0.5, None, "x")
    assert kept["nested"] == {"list": ["y" * 2000]}
    assert (kept["unit"], kept["reason"], kept["row_reason"]) == ("a", "long", "of the row")


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "", ".hidden", "a/.b"])
def test_an_output_stays_inside_data(ws: Workspace, path: str):
    with pytest.raises(ValueError, match="relative path under data/"), ws.unit("a") as unit:
        unit.write_bytes(path, b"x")


def test_an_output_that_was_announced_and_not_written_is_an_error(ws: Workspace):
    with pytest.raises(FileNotFoundError, match="did not write"), ws.unit("a") as unit:
        unit.local_file("never.bin")


def test_a_stale_workspace_commits_nothing(ws: Workspace):
    storage_for(ws.url).write(join(ws.url, "lease.json"), b"{}")
    with pytest.raises(LeaseLost), ws.unit("a") as unit:
        unit.write_bytes("a", b"1")
    assert storage_for(ws.url).find(ws.url).keys() == {"lease.json"}


@given(st.lists(st.text(min_size=1, max_size=300), unique=True, max_size=20))
def test_every_key_has_its_own_ledger_file(keys: list[str]):
    names = [ledger_path(key) for key in keys if "\ud800" <= max(key) <= "\udfff" or key.isprintable()]
    assert len(set(names)) == len(names)
    assert all("/" not in name and not name.startswith(".") and len(name) < 200 for name in names)


def test_notes_of_licences_add_up_and_others_replace(ws: Workspace):
    ws.note(licences=["MIT"], cost=1.0)
    ws.note(licences="Apache-2.0", cost=2.0, teachers=("t",))
    assert ws.notes == {"licences": ["Apache-2.0", "MIT"], "cost": 2.0, "teachers": ["t"]}


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_worker_processes_commit_units_but_cannot_lose_notes(store: str, tmp_path: Path, method: str):
    url = join(store, "stage", "name")
    command = [sys.executable, "-m", "tests.tasks.artifact.worker_units", url, str(tmp_path / "work"), method]
    answers = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(answers) == 4
    assert all("worker process would be lost" in answer for answer in answers)
    assert [record.key for record in read_ledger(url)] == [f"unit-{n}" for n in range(4)]


def test_no_space_left_in_a_stage_is_said_on_one_screen(ws: Workspace):
    with pytest.raises(StoreFull, match="No space left for /x/y") as stopped, ws.unit("a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y")
    assert "resumes" in str(stopped.value)
    with pytest.raises(PermissionError), ws.unit("a"):
        raise PermissionError(errno.EACCES, "no", "/x/y")


FULL_DISK = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tasks.artifact import StoreFull, produce
from tests.tasks.artifact.counting_stage import COUNT, CountingConfig, tree
filler = Path({disk!r}, "filler")
filler.write_bytes(b"x" * 4096 * {blocks})
config = CountingConfig(shards=40)
try:
    produce({disk!r} + "/store", COUNT, "full", config, {{}})
except StoreFull as error:
    print(error)
else:
    raise SystemExit("the disk was not full")
ledger = {{p: p.stat().st_mtime_ns for p in Path({disk!r}).rglob("ledger/*.json")}}
assert ledger, "nothing was finished before the disk was full"
filler.unlink()
artifact = produce({disk!r} + "/store", COUNT, "full", config, {{}})
assert {{p: p.stat().st_mtime_ns for p in ledger}} == ledger, "finished units were done again"
assert tree(artifact.url) == tree(produce({disk!r} + "/calm", COUNT, "full", config, {{}}).url)
"""


def test_a_disk_that_is_really_full_loses_nothing_finished(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    root = str(Path(__file__).parents[3])
    # 4 MiB of tmpfs; 100 blocks are left free, and the run wants about 200.
    script = FULL_DISK.format(root=root, disk=str(disk), blocks=1024 - 100)
    mount = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" -'
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh", str(disk), sys.executable]
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    probe = ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "none", str(disk)]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test mount a tmpfs")
    done = subprocess.run(command, input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "No space left" in done.stdout


def test_a_unit_is_redone_when_its_files_are_not_as_recorded(store: str):
    artifact = produce(store, COUNT, "x", CountingConfig(shards=1), {})
    with hold(artifact.url) as lease:
        ws = Workspace(artifact.url, "x", Path(store), lease.ticket, "")
        assert ws.unit_record("shard/0") is not None
        Path(artifact.url, "data/rows/00000.json").write_bytes(b"[]")
        assert ws.unit_record("shard/0") is None
        assert [record.key for record in ws.units()] == ["total"]
