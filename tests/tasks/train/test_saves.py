"""Saves of both tiers: confirmed when whole everywhere and never before, in time or said, and found again."""

import fcntl
import gc
import json
import os
import random
import re
import shutil
import threading
import time
import uuid
from pathlib import Path

import pytest

from model.checkpoint import Checkpoints
from tasks.errors import ConfigError, DataFault, HostFault
from tasks.storage import LocalStorage
from tasks.train import saves
from tests.tasks.train.tiny_run import TinyRun, confirmed

SOON = 30.0  # seconds, for a machine that is busy with other things


def local_steps(run: TinyRun) -> list[int]:
    return run.checkpoints.steps()


def remote_steps(run: TinyRun) -> list[int]:
    assert run.remote is not None
    return run.remote.steps()


@pytest.fixture
def remote(tmp_path) -> str:
    return str(tmp_path / "remote")


@pytest.fixture
def gate(monkeypatch):
    """While it is not set, copies to the remote tier do not end."""
    gate = threading.Event()
    original = LocalStorage.upload

    def upload(self, url, source):
        gate.wait(SOON)
        original(self, url, source)

    monkeypatch.setattr(LocalStorage, "upload", upload)
    monkeypatch.setattr(saves, "LEAVE_S", 0.1)
    yield gate
    gate.set()


def lose(directory: Path, how: str) -> None:
    if how == "gone":
        shutil.rmtree(directory)
        return
    largest = max((p for p in directory.rglob("*") if p.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def test_a_save_is_confirmed_only_when_it_is_whole_on_both_tiers(tmp_path, remote, gate):
    with TinyRun(tmp_path / "run", {"remote": remote}) as run:
        run.step()
        until = time.monotonic() + SOON
        while local_steps(run) != [1] and time.monotonic() < until:
            time.sleep(0.01)
        assert (local_steps(run), remote_steps(run), confirmed(run.spec)) == ([1], [], [])
        gate.set()
        run.saves.confirm()
        assert (remote_steps(run), confirmed(run.spec), run.remote.newest()) == ([1], [1], 1)


def test_a_copy_past_its_bound_stops_the_run_and_a_resume_makes_it(tmp_path, remote, gate):
    changes = {"remote": remote, "confirm_within_s": 1.0}
    late = pytest.raises(HostFault, match=r"step 1 is not whole in .*remote 1 s after.*Steps up to 0 are safe")
    with late, TinyRun(tmp_path / "run", changes) as run:
        run.steps(1)
    assert confirmed(run.spec) == []
    gate.set()
    run.saves._worker.join()  # of another process it would be gone, and with it the copy
    shutil.rmtree(remote)
    with TinyRun(tmp_path / "run", changes | {"confirm_within_s": SOON}) as run:
        assert run.at == 1
        run.saves.confirm()
        assert (remote_steps(run), confirmed(run.spec)) == ([1], [1])


def test_a_copy_does_not_outlast_the_machine_and_the_next_trainer_makes_it(tmp_path, remote, gate, caplog):
    with TinyRun(tmp_path / "run", {"remote": remote, "confirm_within_s": SOON}) as run:
        run.step(is_last=True)
        began = time.monotonic()
        run.saves.confirm(0.3)
        assert 0.3 <= time.monotonic() - began < SOON / 2
        assert (local_steps(run), confirmed(run.spec)) == ([1], [])
    assert "step 1 is written here and was not yet whole in" in caplog.text
    gate.set()
    run.saves._worker.join()  # of another process it would be gone; here it must not write beside the next one
    with TinyRun(tmp_path / "run", {"remote": remote, "confirm_within_s": SOON}) as run:
        assert run.at == 1
        run.saves.confirm(0.0)  # over at once: written is enough, and nothing waits for the copy
        run.saves.confirm()
        assert (remote_steps(run), confirmed(run.spec)) == ([1], [1])


def test_what_is_not_written_here_is_waited_for_whatever_is_left(tmp_path, monkeypatch):
    written, real = threading.Event(), Checkpoints.wait
    monkeypatch.setattr(Checkpoints, "wait", lambda self: written.wait(SOON) and real(self))
    with TinyRun(tmp_path / "run", {"confirm_within_s": SOON}) as run:
        run.step(is_last=True)
        threading.Timer(0.3, written.set).start()
        run.saves.confirm(0.0)
        assert (written.is_set(), local_steps(run)) == (True, [1])


def test_a_write_that_never_ends_stops_the_run_too(tmp_path, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(Checkpoints, "wait", lambda self: never.wait(SOON))
    late = pytest.raises(HostFault, match=r"step 1 is not written 0\.2 s after")
    with late, TinyRun(tmp_path / "run", {"confirm_within_s": 0.2}) as run:
        run.steps(1)
    never.set()


def test_the_loop_is_told_without_waiting(tmp_path, remote, gate):
    with TinyRun(tmp_path / "run", {"remote": remote, "confirm_within_s": 1.0}) as run:
        run.step()
        run.saves.check()
        time.sleep(1.1)
        with pytest.raises(HostFault, match="confirm_within_s"):
            run.saves.check()


def test_copies_that_a_later_one_makes_needless_are_left_out(tmp_path, remote, gate):
    changes = {"remote": remote, "keep": 9, "keep_every_steps": 3, "confirm_within_s": SOON}
    with TinyRun(tmp_path / "run", changes) as run:
        for _ in range(5):
            run.step()  # the first copy hangs meanwhile
        gate.set()
        run.saves.confirm()
        steps = remote_steps(run)
        assert {1, 3, 5} <= set(steps), "under way, permanent, newest"
        assert confirmed(run.spec) == steps


def test_every_so_many_and_the_last_go_to_the_remote_tier(tmp_path, remote):
    changes = {"remote": remote, "remote_every_steps": 2, "keep": 9}
    with TinyRun(tmp_path / "run", changes) as run:
        run.steps(4)
        run.step(is_last=True)
        run.saves.confirm()
        assert (remote_steps(run), local_steps(run), confirmed(run.spec)) == (
            [2, 4, 5],
            [1, 2, 3, 4, 5],
            [1, 2, 3, 4, 5],
        )


def test_each_tier_keeps_what_it_should(tmp_path, remote):
    scores = [{"step": 2, "score": 0.9}, {"step": 4, "score": 0.1}]
    rules = {"keep": 2, "keep_every_steps": 3, "keep_best": 1}
    for name, changes in (("alone", rules), ("both", rules | {"remote": remote})):
        run = TinyRun(tmp_path / name, changes)
        run.spec.scores.write_text("".join(json.dumps(score) + "\n" for score in scores))
        with run:
            run.steps(7)
            if run.remote is None:
                assert local_steps(run) == [2, 3, 6, 7]
            else:
                assert (local_steps(run), remote_steps(run)) == ([2, 6, 7], [2, 3, 6, 7])


def test_a_checkpoint_that_is_read_is_not_removed(tmp_path):
    with TinyRun(tmp_path / "run", {"keep": 1}) as run:
        run.steps(1)
        reader = os.open(run.checkpoints.path(1), os.O_RDONLY)
        fcntl.flock(reader, fcntl.LOCK_SH)
        run.steps(1)
        assert local_steps(run) == [1, 2]
        os.close(reader)
        run.steps(1)
        assert local_steps(run) == [3]


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_what_is_lost_here_is_fetched_from_the_remote_tier(tmp_path, remote, how):
    with TinyRun(tmp_path / "run", {"remote": remote}) as run:
        run.steps(2)
    lose(run.checkpoints.path(2), how)
    with TinyRun(tmp_path / "run", {"remote": remote}) as run:
        assert run.at == 2
        assert run.journal.lost_steps() == 0


def test_another_machine_goes_on_with_the_history_and_never_behind_the_ledger(any_store, tmp_path):
    with TinyRun(tmp_path / "one", {"remote": any_store}) as run:
        run.steps(3)
    with TinyRun(tmp_path / "two", {"remote": any_store}) as run:
        assert run.at == 3
        run.steps(1)
        assert [json.loads(line)["step"] for line in run.spec.metrics.read_text().splitlines()] == [1, 2, 3, 4]
        run.remote.delete(4)
        run.remote.delete(3)
    with pytest.raises(DataFault, match="of step 2, but step 4 was saved"):
        TinyRun(tmp_path / "three", {"remote": any_store}).restore()


@pytest.mark.parametrize("with_remote", [False, True])
def test_steps_are_lost_only_within_the_budget_and_are_counted(tmp_path, remote, with_remote):
    tiers = {"remote": remote, "keep": 9} if with_remote else {"keep": 9}

    def damage_newest() -> None:
        run = TinyRun(tmp_path / "run", tiers)
        newest = run.checkpoints.steps()[-1]
        lose(run.checkpoints.path(newest), "damaged")
        if run.remote is not None:
            lose(Path(remote) / str(newest), "damaged")

    def resumed(budget: int) -> int:
        return TinyRun(tmp_path / "run", tiers | {"rollback_steps_budget": budget}).restore()

    with TinyRun(tmp_path / "run", tiers) as run:
        run.steps(5)
    damage_newest()
    for _ in range(2):
        with pytest.raises(
            DataFault, match=r"/5[ /].*step 4, but step 5 was saved and confirmed.*budget to 1 \(it is 0"
        ):
            resumed(0)
    assert resumed(1) == 4
    assert run.journal.lost_steps() == 1
    assert confirmed(run.spec) == [1, 2, 3, 4]
    damage_newest()
    lose(run.checkpoints.path(3), "damaged")
    if with_remote:
        lose(Path(remote) / "3", "gone")
    with pytest.raises(DataFault, match=r"step 2, but step 4 was saved.*budget to 3 \(it is 2, of which 1 are spent\)"):
        resumed(2)
    assert resumed(3) == 2
    rows = [json.loads(line) for line in (tmp_path / "run" / "rollbacks.jsonl").read_text().splitlines()]
    assert [(row["step"], row["newest"], row["lost"]) for row in rows] == [(4, 5, 1), (2, 4, 2)]
    assert [re.search(r"(checkpoints|remote)/(\d)", row["reason"])[2] for row in rows] == ["5", "4"]
    with TinyRun(tmp_path / "run", tiers) as run:
        run.steps(3)
        assert confirmed(run.spec) == [1, 2, 3, 4, 5]


def test_the_loss_of_everything_is_a_rollback_to_the_start(tmp_path):
    with TinyRun(tmp_path / "run") as run:
        run.steps(2)
    shutil.rmtree(run.spec.checkpoints)
    with pytest.raises(DataFault, match="of step 0, but step 2 was saved"):
        TinyRun(tmp_path / "run").restore()
    assert TinyRun(tmp_path / "run", {"allow_rollback": True}).restore() == 0
    assert run.journal.lost_steps() == 2


def test_a_checkpoint_of_another_shape_is_a_config_fault_and_stays(tmp_path):
    with TinyRun(tmp_path / "run") as run:
        run.steps(1)
    with pytest.raises(ConfigError, match="another model or optimizer"):
        TinyRun(tmp_path / "run", {"allow_rollback": True}, size=32).restore()
    assert local_steps(run) == [1]


def test_a_clock_that_jumps_changes_nothing(tmp_path, remote, monkeypatch):
    rng, real, ahead = random.Random(0), time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    with TinyRun(tmp_path / "run", {"remote": remote, "keep": 2, "confirm_within_s": SOON}, size=1024) as run:
        for step in range(1, 7):
            run.step()
            partial = run.spec.checkpoints / f"{step}.orbax-checkpoint-tmp"
            while not run.checkpoints.path(step).exists() and len(list(partial.glob("*/*"))) < 2:
                time.sleep(0.01)
            ahead = rng.uniform(-1e7, 1e7)  # in the middle of a write
        run.saves.confirm()
        assert local_steps(run) == [5, 6]
        for path in (tmp_path / "run").rglob("*"):
            os.utime(path, (real() - rng.uniform(0, 1e8),) * 2)
    assert TinyRun(tmp_path / "run", {"remote": remote}, size=1024).restore() == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
# A write that failed leaves Orbax's event loop half closed, which Python says when it collects it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_fills_up_while_saving_is_said_and_with_space_the_same_run_goes_on(tmp_path, remote):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=2m tmpfs {disk}"):
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        full = pytest.raises(HostFault, match=r"could not be written: (.|\n)*of 2 MiB free. Steps up to [1-4] are safe")
        with full as said, TinyRun(disk / "run", {"remote": remote}, size=256) as run:
            run.steps(9)  # half a MiB each, three are kept
        assert "space" in str(said.value)
        safe = confirmed(run.spec)[-1]
        assert os.system(f"mount -o remount,size=40m {disk}") == 0
        with TinyRun(disk / "run", {"remote": remote}, size=256) as run:
            assert run.at >= safe
            run.steps(3)
            assert confirmed(run.spec)[-1] == run.at
            assert not [path for path in run.spec.checkpoints.iterdir() if not path.name.isdigit()]
    finally:
        assert os.system(f"umount {disk}") == 0
        gc.collect()


def test_a_remote_that_may_not_be_written_stops_the_run_at_the_next_step(gcs, tmp_path):
    gcs.read_only = True
    try:
        url = f"gs://bucket-{uuid.uuid4().hex[:12]}/runs"
        with pytest.raises(HostFault, match="refused"), TinyRun(tmp_path / "run", {"remote": url}) as run:
            run.steps(1)
    finally:
        gcs.read_only = False
    assert (confirmed(run.spec), local_steps(run)) == ([], [1])


@pytest.mark.usefixtures("hurried")
def test_503_while_training_goes_on_delays_only_the_confirmation(gcs, tmp_path):
    with TinyRun(tmp_path / "run", {"remote": f"gs://bucket-{uuid.uuid4().hex[:12]}/runs", "keep": 9}) as run:
        run.steps(1)
        gcs.outage = 4
        for _ in range(3):
            run.step()
        run.saves.confirm()
        assert gcs.outage == 0
        assert confirmed(run.spec)[-1] == remote_steps(run)[-1] == 4
