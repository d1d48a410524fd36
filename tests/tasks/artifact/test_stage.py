"""`produce`: made once, found again, repaired, resumed, never silently wrong."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.artifact import (
    Artifact,
    ConservationError,
    DamagedArtifact,
    Stage,
    Workspace,
    open_artifact,
    produce,
)
from tasks.artifact.identity import digest
from tasks.artifact.manifest import LEASE, MANIFEST, Manifest, inspect
from tasks.artifact.stage import scratch_dir
from tasks.config import StageConfig, input_field
from tasks.errors import DataFault
from tasks.storage import exists, is_local, join, storage_for
from tests.tasks.artifact.counting_stage import COUNT, ROWS, CountingConfig, rows_of, tree

ROOT = Path(__file__).parents[3]
CONFIG = CountingConfig(shards=3)


class ReadConfig(StageConfig):
    """A stage with a parent."""

    docs: str = input_field("What to read.", default="ingest/tiny")


def read(ws: Workspace, config: ReadConfig, inputs: dict[str, Artifact]) -> None:
    with ws.unit("all") as unit:
        unit.write_json("files.json", [entry.path for entry in inputs["docs"].files("rows/")])
    ws.note(licences=["MIT"], teachers=["teacher-1"], tokens=7, cost=0.5, seen=len(inputs))


READ = Stage("read", "1", read, ("tests.tasks.artifact.counting_stage",))


def counted(stage: Stage) -> tuple[Stage, list[str]]:
    """The stage and a list that grows with every run of it."""
    runs: list[str] = []

    def run(ws: Workspace, config: Any, inputs: dict[str, Artifact]) -> None:
        runs.append(ws.name)
        stage.run(ws, config, inputs)

    return replace(stage, run=run), runs


def test_an_artifact_is_made_once_and_then_found(any_store: str):
    stage, runs = counted(COUNT)
    made = produce(any_store, stage, "tiny", CONFIG, {})
    found = produce(any_store, stage, "tiny", CONFIG.with_changes({"sleep_s": 0.5}), {})
    assert (found, len(runs)) == (made, 1)
    assert made.url == join(any_store, "count", f"tiny-{made.manifest.fingerprint[:12]}")
    out, rejected = rows_of(made)
    assert sorted(out + rejected) == list(range(3 * ROWS))
    counts = made.manifest.counts
    assert (counts.in_, counts.out, counts.dropped) == (60, 40, {"multiple": 20})
    assert [entry.path for entry in made.files("rows/")] == [f"rows/0000{n}.json" for n in range(3)]
    assert {entry.rows for entry in made.files("digests/")} == {13, 14}
    assert made.local_dir("rows").joinpath("00000.json").read_bytes() == made.read_bytes("rows/00000.json")
    assert made.manifest.extra == {"shards": 3}
    assert open_artifact(made.url, deep=True) == made
    assert not scratch_dir(made.url).exists()


def test_all_kinds_of_store_hold_the_same_bytes(any_store: str, tmp_path: Path):
    made = produce(any_store, COUNT, "tiny", CONFIG, {})
    other = produce(str(tmp_path / "other"), COUNT, "tiny", CONFIG, {})
    assert tree(made.url) == tree(other.url)
    assert made.manifest.content_digest == other.manifest.content_digest


def test_the_papers_say_how_it_was_made(store: str):
    parent = produce(store, COUNT, "tiny", CONFIG, {})
    child = produce(store, READ, "child", ReadConfig(), {"docs": parent}).manifest
    assert child.parents["docs"].content_digest == parent.manifest.content_digest
    assert (child.licences, child.teachers) == (("CC0-1.0", "MIT"), ("teacher-1",))
    assert (child.tokens, child.cost, child.extra) == (7, 0.5, {"seen": 1})
    assert child.config == {}
    assert (child.stage, child.name, child.version) == ("read", "child", "1")
    assert child.bytes == sum(entry.bytes for entry in child.files) > 0
    again = Manifest.from_json(child.to_json())
    assert again == child
    assert b'"in": 0' in child.to_json()


def test_a_parent_that_was_redone_with_the_same_bytes_stops_the_cascade(store: str):
    child_stage, runs = counted(READ)
    parent = produce(store, COUNT, "tiny", CONFIG, {})
    produce(store, child_stage, "child", ReadConfig(), {"docs": parent})
    newer = produce(store, replace(COUNT, version="2"), "tiny", CONFIG, {})
    assert newer.manifest.fingerprint != parent.manifest.fingerprint
    produce(store, child_stage, "child", ReadConfig(), {"docs": newer})
    assert len(runs) == 1
    other = produce(store, COUNT, "tiny", CountingConfig(shards=3, modulus=5), {})
    produce(store, child_stage, "child", ReadConfig(), {"docs": other})
    assert len(runs) == 2


def flip(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


FAULTS = {
    "deleted": None,
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "one bit flipped": flip,
}
FILES = {
    "data": ("data/rows/00001.json", "shard/1"),
    "rejects": ("rejects/shard%2F1.jsonl.zst", "shard/1"),
    "ledger": ("ledger/shard%2F1.json", None),
    "config": ("config.json", None),
    "manifest": (MANIFEST, None),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_damage_is_found_said_and_repaired_alone(
    any_store: str, kind: str, fault: str, caplog: pytest.LogCaptureFixture
):
    made = produce(any_store, COUNT, "tiny", CONFIG, {})
    expected, storage = tree(made.url), storage_for(made.url)
    versions = {path: storage.version(join(made.url, path)) for path in storage.find(made.url)}
    path, _ = FILES[kind]
    change: Callable[[bytes], bytes] | None = FAULTS[fault]
    if change is None:
        storage.remove(join(made.url, path))
    else:
        storage.write(join(made.url, path), change(storage.read(join(made.url, path))))
    if not (kind == "manifest" and change is None):  # without a manifest it is unfinished, not damaged
        with pytest.raises(DamagedArtifact, match=Path(path).name.replace("%", "%")):
            open_artifact(made.url)
    caplog.clear()
    again = produce(any_store, COUNT, "tiny", CONFIG, {})
    assert kind == "manifest" or path in caplog.text
    assert tree(again.url) == expected
    assert inspect(again.url, deep=True).is_sound
    assert again.manifest.content_digest == made.manifest.content_digest
    after = {path: storage.version(join(made.url, path)) for path in storage.find(made.url)}
    touched = {name for name in versions if after[name] != versions[name]} - {MANIFEST, LEASE, "config.json", path}
    mine = {"data/rows/00001.json", "data/digests/00001.bin", "rejects/shard%2F1.jsonl.zst", "ledger/shard%2F1.json"}
    assert touched <= (mine if kind in ("data", "rejects", "ledger") else set()), "more was redone than was damaged"


def test_a_large_file_is_checked_in_depth_on_demand(store: str, monkeypatch: pytest.MonkeyPatch):
    made = produce(store, COUNT, "tiny", CONFIG, {})
    entry = made.entry("digests/00001.bin")
    path = Path(made.file_url(entry.path))
    path.write_bytes(flip(path.read_bytes()))
    monkeypatch.setattr("tasks.artifact.manifest.SMALL_BYTES", entry.bytes - 1)
    assert open_artifact(made.url) == made, "sizes agree, and it is not small"
    with pytest.raises(DamagedArtifact, match="sha256"):
        open_artifact(made.url, deep=True)
    with pytest.raises(DamagedArtifact, match="sha256"):
        made.read_bytes(entry.path)
    monkeypatch.setattr("tasks.artifact.manifest.SMALL_BYTES", entry.bytes)
    with pytest.raises(DamagedArtifact, match="sha256"):
        open_artifact(made.url)


def test_a_damaged_parent_is_refused(store: str):
    parent = produce(store, COUNT, "tiny", CONFIG, {})
    Path(parent.file_url("rows/00000.json")).write_bytes(b"[]")
    with pytest.raises(DamagedArtifact, match=r"rows/00000.json: 2 bytes, \d+ expected"):
        produce(store, READ, "child", ReadConfig(), {"docs": parent})


def test_a_parent_that_is_gone_or_was_remade_otherwise_is_refused(store: str):
    parent = produce(store, COUNT, "tiny", CONFIG, {})
    stale = replace(parent, manifest=parent.manifest.model_copy(update={"content_digest": "other"}))
    with pytest.raises(DamagedArtifact, match="content has changed"):
        produce(store, READ, "child", ReadConfig(), {"docs": stale})
    Path(parent.url, MANIFEST).unlink()
    with pytest.raises(FileNotFoundError, match="holds no MANIFEST"):
        produce(store, READ, "child", ReadConfig(), {"docs": parent})


def test_ledger_papers_of_an_older_program_stay_sound(store: str):
    made = produce(store, COUNT, "tiny", CONFIG, {})
    path = Path(made.url, "ledger", "shard%2F1.json")
    body = json.loads(path.read_bytes())
    del body["seal"], body["seconds"]  # a field that the older program did not know
    path.write_text(json.dumps(body | {"seal": digest(body)}))
    Path(made.url, MANIFEST).unlink()
    again = produce(store, COUNT, "tiny", CONFIG, {})
    assert inspect(again.url, deep=True).is_sound
    assert tree(again.url) == tree(made.url)


def test_nothing_finished_is_said_with_the_url(store: str):
    with pytest.raises(FileNotFoundError, match=r"holds no MANIFEST.json"):
        open_artifact(join(store, "count", "none"))
    made = produce(store, COUNT, "tiny", CONFIG, {})
    with pytest.raises(FileNotFoundError, match="has no file 'x'"):
        made.read_bytes("x")


def test_a_stage_that_loses_rows_in_total_or_does_nothing_writes_no_manifest(store: str):
    def loses(ws: Workspace, config: CountingConfig, inputs: dict[str, Artifact]) -> None:
        with ws.unit("a") as unit:
            unit.count(rows_in=2, rows_out=1)

    def nothing(ws: Workspace, config: CountingConfig, inputs: dict[str, Artifact]) -> None:
        return

    def twice(ws: Workspace, config: CountingConfig, inputs: dict[str, Artifact]) -> None:
        for key in "ab":
            with ws.unit(key) as unit:
                unit.write_bytes("same", key.encode())

    for run, error in ((loses, ConservationError), (nothing, DataFault), (twice, DataFault)):
        with pytest.raises(error):
            produce(store, replace(COUNT, run=run), "tiny", CONFIG, {})
        assert not list(Path(store).rglob(MANIFEST))


def test_units_that_an_earlier_run_divided_otherwise_are_never_mixed_in(store: str):
    def by_rows(ws: Workspace, config: CountingConfig, inputs: dict[str, Artifact]) -> None:
        with ws.unit("rows 0-9") as unit:
            unit.write_json("rows/0-9.json", list(range(10)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        produce(store, replace(COUNT, run=by_rows), "tiny", CONFIG, {})
    with pytest.raises(DataFault, match=r"1 units that an earlier run finished \(rows 0-9\) were not asked for"):
        produce(store, COUNT, "tiny", CONFIG, {})
    again = produce(store, COUNT, "tiny", CONFIG, {}, rerun=True)
    assert tree(again.url) == tree(produce(store + "2", COUNT, "t", CONFIG, {}).url)


def other_code(stage: Stage, **changes: Any) -> Stage:
    return replace(stage, code=("tests.tasks.artifact.counting_stage", "tasks.shards"), **changes)


def test_other_code_of_a_cheap_stage_is_a_rerun_that_says_why(store: str, caplog: pytest.LogCaptureFixture):
    produce(store, COUNT, "tiny", CONFIG, {})
    stage, runs = counted(other_code(COUNT))
    again = produce(store, stage, "tiny", CONFIG, {})
    assert len(runs) == 1
    assert "code changed" in caplog.text
    assert inspect(again.url).is_sound
    produce(store, stage, "tiny", CONFIG, {})
    assert len(runs) == 1


def test_other_code_of_an_expensive_stage_stays_a_hit_with_a_warning_until_rerun(
    store: str, caplog: pytest.LogCaptureFixture
):
    made = produce(store, COUNT, "tiny", CONFIG, {})
    stage, runs = counted(other_code(COUNT, expensive=True))
    assert produce(store, stage, "tiny", CONFIG, {}) == made
    assert "used although its code changed" in caplog.text
    again = produce(store, stage, "tiny", CONFIG, {}, rerun=True)
    assert len(runs) == 1
    assert again.manifest.code_digest != made.manifest.code_digest
    assert tree(again.url) == tree(made.url)


def test_a_rerun_makes_every_unit_again(store: str):
    made = produce(store, COUNT, "tiny", CONFIG, {})

    def looks(ws: Workspace, config: CountingConfig, inputs: dict[str, Artifact]) -> None:
        assert not exists(join(ws.url, MANIFEST)), "nobody may take it for finished meanwhile"
        COUNT.run(ws, config, inputs)

    again = produce(store, replace(COUNT, run=looks), "tiny", CONFIG, {}, rerun=True)
    assert again.manifest.token > made.manifest.token
    tokens = {record.sha256 for record in made.manifest.ledger} & {record.sha256 for record in again.manifest.ledger}
    assert not tokens


def test_a_half_made_artifact_of_other_code_is_not_mixed(store: str, caplog: pytest.LogCaptureFixture):
    def stops(ws: Workspace, config: CountingConfig, inputs: dict[str, Artifact]) -> None:
        with ws.unit("shard/0") as unit:
            unit.write_json("rows/old.json", [])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        produce(store, other_code(COUNT, run=stops), "tiny", CONFIG, {})
    artifact = produce(store, COUNT, "tiny", CONFIG, {})
    assert "shard/0" in caplog.text
    assert "files of no finished unit: data/rows/old.json" in caplog.text
    assert "rows/old.json" not in tree(artifact.url)
    assert not Path(artifact.file_url("rows/old.json")).exists()


def test_two_runs_at_the_same_time_make_it_once(any_store: str):
    stage, runs = counted(COUNT)
    config = CONFIG.with_changes({"sleep_s": 0.05})
    made: list[Artifact] = []
    threads = [
        threading.Thread(target=lambda: made.append(produce(any_store, stage, "tiny", config, {}))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 1
    assert len({artifact.url for artifact in made}) == 1 == len(made) - 2


def start(store: str, shards: int, sleep_s: float, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.tasks.artifact.counting_stage", store, str(shards), str(sleep_s)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def wait_for_unit(store: str) -> None:
    deadline = time.monotonic() + 30
    while not any("ledger/" in path for path in storage_for(store).find(store)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("any_store", ["local", pytest.param("gs", marks=pytest.mark.slow)], indirect=True)
def test_two_processes_make_it_once_and_the_later_says_that_it_waits(any_store: str):
    first, second = start(any_store, 6, 0.4), start(any_store, 6, 0.4)
    (out1, err1), (out2, err2) = first.communicate(), second.communicate()
    assert (first.returncode, second.returncode) == (0, 0), err1 + err2
    assert out1 == out2
    assert ("waiting for" in err1) != ("waiting for" in err2)
    assert open_artifact(out1.split()[1]).manifest.token == 1, "the first made it all"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pre_empted_run_gives_the_lease_back_and_is_resumed(store: str, number: signal.Signals):
    process = start(store, 6, 0.1)
    wait_for_unit(store)
    process.send_signal(number)
    process.communicate()
    assert process.returncode in (128 + number, -number)
    (lease,) = Path(store).rglob(LEASE)
    assert '"released": true' in lease.read_text()
    done = {path: path.stat().st_mtime_ns for path in Path(store).rglob("ledger/*.json")}
    assert done
    stage, runs = counted(COUNT)
    artifact = produce(store, stage, "kill", CountingConfig(shards=6), {}, lease_timeout_s=1)
    assert len(runs) == 1
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert artifact.manifest.token == 2
    assert not list(Path(artifact.url).glob(".staging"))


def test_a_run_killed_while_it_writes_to_a_bucket_is_resumed(gcs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NESTLING_SCRATCH", str(tmp_path / "scratch"))
    store = "gs://killed/store"
    process = start(store, 6, 0.05)
    wait_for_unit(store)
    process.kill()
    process.communicate()
    artifact = produce(store, COUNT, "kill", CountingConfig(shards=6), {}, lease_timeout_s=5)
    assert tree(artifact.url) == tree(produce(str(tmp_path / "x"), COUNT, "kill", CountingConfig(shards=6), {}).url)
    assert artifact.manifest.token == 2
    assert not exists(join(artifact.url, "run.json"))


def test_scratch_lives_as_long_as_the_work(any_store: str):
    seen: list[Path] = []

    def stops(ws: Workspace, config: CountingConfig, inputs: dict[str, Artifact]) -> None:
        seen.append(ws.scratch)
        checkpoint = ws.scratch / "checkpoint"
        if not checkpoint.exists():
            checkpoint.write_text("step 5")
            raise KeyboardInterrupt
        with ws.unit("all") as unit:
            unit.write_bytes("model", checkpoint.read_bytes())

    stage = replace(COUNT, run=stops)
    with pytest.raises(KeyboardInterrupt):
        produce(any_store, stage, "tiny", CONFIG, {})
    assert produce(any_store, stage, "tiny", CONFIG, {}).read_bytes("model") == b"step 5"
    assert len(set(seen)) == 1
    assert not seen[0].exists()


def test_a_copy_of_a_remote_artifact_is_verified_and_reused(
    any_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = produce(any_store, COUNT, "tiny", CONFIG, {})
    folder = made.local_dir("rows/")
    assert sorted(path.name for path in folder.iterdir()) == ["00000.json", "00001.json", "00002.json"]
    if is_local(any_store):
        return
    with monkeypatch.context() as patch:
        patch.setattr(type(storage_for(any_store)), "download", lambda *_: pytest.fail("fetched twice"))
        assert made.local_dir("rows/") == folder
    (folder / "00000.json").write_bytes(flip(made.read_bytes("rows/00000.json")))
    assert (made.local_dir("rows/") / "00000.json").read_bytes() == made.read_bytes("rows/00000.json")
    monkeypatch.setenv("NESTLING_SCRATCH", str(tmp_path / "elsewhere"))
    storage_for(any_store).write(made.file_url("rows/00001.json"), b"[]")
    with pytest.raises(DamagedArtifact):
        made.local_dir("rows/")


@pytest.mark.parametrize("name", ["", ".x", "a/b"])
def test_a_name_is_one_folder_name(store: str, name: str):
    with pytest.raises(ValueError, match="one folder name"):
        produce(store, COUNT, name, CONFIG, {})


def test_messages_reach_the_log_at_the_right_level(store: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        produce(store, COUNT, "tiny", CONFIG, {})
        produce(store, COUNT, "tiny", CONFIG, {})
    assert [record.levelname for record in caplog.records if record.name == "tasks.artifact.stage"] == ["INFO", "INFO"]
