"""Shards by many workers: each is done once, whoever does it, and a death costs the shards in flight."""

import os
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.artifact import ConservationError, Workspace
from tasks.artifact.lease import hold
from tasks.errors import ConfigError, DataFault, HostFault
from tasks.ray_workers import _connected, _require_shared
from tasks.shard_workers import AHEAD, ShardJob, _in_processes, require_every_row
from tests.tasks.shard_job import ShoutConfig, keys, open_shout, shouted


def config_of(tmp_path: Path, names: tuple[str, ...], **fields) -> ShoutConfig:
    return ShoutConfig(keys=names, notes=str(tmp_path / "notes"), **fields)


def notes(tmp_path: Path, kind: str) -> list[str]:
    return sorted(path.name for path in (tmp_path / "notes").glob(f"{kind}-*"))


def test_one_worker_is_this_process_and_is_opened_once_and_closed(tmp_path):
    made = shouted(tmp_path, config_of(tmp_path, keys(5)))
    assert [entry.path for entry in made.files()] == [f"{key}.txt" for key in keys(5)]
    assert notes(tmp_path, "opened") == [f"opened-{os.getpid()}"]
    assert notes(tmp_path, "closed") == [f"closed-{os.getpid()}"]


def test_workers_do_each_shard_once_with_the_same_bytes_as_one(tmp_path):
    one = shouted(tmp_path / "one", config_of(tmp_path / "one", keys(12)))
    two = shouted(tmp_path / "two", config_of(tmp_path / "two", keys(12), workers=2))
    assert two.manifest.content_digest == one.manifest.content_digest
    assert len(notes(tmp_path / "two", "done")) == 12
    opened = notes(tmp_path / "two", "opened")
    assert 1 <= len(opened) <= 2
    assert f"opened-{os.getpid()}" not in opened


def test_a_killed_worker_ends_the_run_with_a_remedy_and_the_next_one_resumes(tmp_path):
    names = keys(10, "kill-a")
    calm = shouted(tmp_path / "calm", config_of(tmp_path / "calm", names[:5] + names[6:]))
    config = config_of(tmp_path, names, workers=2)
    with pytest.raises(HostFault, match=r"a worker of shout was killed \(2 workers\)(.|\n)*Set workers lower"):
        shouted(tmp_path, config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("shout/*/ledger/*.json")}
    made = shouted(tmp_path, config.with_changes({"workers": 1}))
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a finished shard was done again"
    assert {e.path: e.sha256 for e in calm.files()}.items() <= {e.path: e.sha256 for e in made.files()}.items()
    assert len(made.files()) == 11


def test_the_error_of_a_shard_is_the_error_of_the_run(tmp_path):
    with pytest.raises(DataFault, match="shard fail-b is bad"):
        shouted(tmp_path, config_of(tmp_path, keys(4, "fail-b")))


def test_a_store_in_memory_is_worked_on_by_the_process_that_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NESTLING_SCRATCH", str(tmp_path / "scratch"))
    shouted(f"memory://{tmp_path.name}/store", config_of(tmp_path, keys(3), workers=2))
    assert notes(tmp_path, "opened") == [f"opened-{os.getpid()}"]


def test_no_more_shards_are_handed_out_than_workers_can_soon_take(tmp_path):
    taken: list[str] = []

    def handed_out():
        for key in keys(40):
            taken.append(key)
            yield key

    config = config_of(tmp_path, keys(40))
    with hold(str(tmp_path / "artifact")) as lease:
        workspace = Workspace(str(tmp_path / "artifact"), "x", tmp_path / "scratch", lease.ticket, "code")
        job = ShardJob("shout", dict.fromkeys(config.keys, 1), partial(open_shout, workspace, config))
        todo = type("Todo", (), {"__iter__": lambda self: handed_out(), "__len__": lambda self: 40})()
        done = 0
        for _ in _in_processes(workspace, job, todo, 1):
            done += 1
            assert len(taken) <= done + AHEAD
        assert done == len(taken) == 40


def test_ray_that_is_not_installed_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"\[ray\] extra brings(.|\n)*pip install -e '.\[ray\]'"):
        shouted(tmp_path, config_of(tmp_path, keys(2), runner="ray"))


def test_a_cluster_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    ray = SimpleNamespace(is_initialized=lambda: False, init=lambda **_: pytest.fail("connected to nothing"))
    said = r"RAY_ADDRESS='127.0.0.1:1': no Ray cluster answers \(.*refused\)"
    with pytest.raises(ConfigError, match=said), _connected(ray):
        pytest.fail("there is no cluster")


HERE = os.uname().nodename


@pytest.mark.parametrize(
    ("url", "hosts", "shared_disk", "said"),
    [
        pytest.param("/store", {HERE}, False, "", id="several nodes of one host see its disk"),
        pytest.param("/store", {HERE, "other"}, False, "Use a bucket", id="another host does not"),
        pytest.param("/store", {HERE, "other"}, True, "", id="unless the user says that it does"),
        pytest.param("gs://b/store", {HERE, "other"}, False, "", id="a bucket is seen by all"),
        pytest.param("memory://store", {HERE}, True, "Use a bucket", id="memory by nobody"),
    ],
)
def test_a_store_that_nodes_cannot_see_is_refused(url, hosts, shared_disk, said):
    if said:
        with pytest.raises(ConfigError, match=said):
            _require_shared(url, hosts, shared_disk)
    else:
        _require_shared(url, hosts, shared_disk)


@pytest.mark.parametrize(("counted", "is_whole"), [((3, 4), True), ((3, 3), False), ((3, 5), False), ((), False)])
def test_units_must_have_taken_in_every_row_of_the_inputs_once(counted, is_whole):
    records = [SimpleNamespace(counts=SimpleNamespace(in_=rows)) for rows in counted]
    if is_whole:
        require_every_row("x", 7, records)
    else:
        with pytest.raises(ConservationError, match=rf"x: the inputs hold 7 rows, the units took in {sum(counted)}:"):
            require_every_row("x", 7, records)
