"""One writer: who holds the lease, who waits, who takes over, who is turned away."""

import json
import logging
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tasks.artifact import lease as leases
from tasks.artifact.lease import LeaseLost, LeaseState, LeaseTimeout, hold, is_held, read_lease
from tasks.artifact.ledger import commit, retract
from tasks.artifact.manifest import LEASE
from tasks.storage import exists, join, storage_for

TTL_S = 0.4


@pytest.fixture
def url(any_store: str) -> str:
    return join(any_store, "stage", "name-0123456789ab")


def plant(url: str, **changes: object) -> LeaseState:
    """A lease of another machine."""
    state = replace(LeaseState(7, "other", "far-away", "boot/1", 4242, "99", ttl_s=TTL_S), **changes)  # type: ignore[arg-type]
    storage_for(url).write(join(url, LEASE), json.dumps(asdict(state)).encode())
    return state


def test_a_lease_is_held_and_given_back_and_the_token_rises(url: str):
    with hold(url) as first:
        assert is_held(url)
        first.ticket.check()
    assert not is_held(url)
    with pytest.raises(LeaseLost):
        first.ticket.check()
    with hold(url) as second:
        assert second.ticket.token == first.ticket.token + 1


def test_of_many_only_one_holds_it_at_a_time(url: str):
    inside, most, done = 0, 0, []
    lock = threading.Lock()

    def run() -> None:
        nonlocal inside, most
        with hold(url, ttl_s=30):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with lock:
                inside -= 1
        done.append(1)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, len(done)) == (1, 4)


def test_a_second_run_waits_visibly_and_gives_up_when_told_to(url: str, caplog: pytest.LogCaptureFixture):
    with hold(url), pytest.raises(LeaseTimeout, match="one writer at a time"), hold(url, timeout_s=0.2):
        pass
    assert "waiting for" in caplog.text


def test_a_lease_that_stands_still_for_its_time_is_taken_over(url: str, caplog: pytest.LogCaptureFixture):
    plant(url)
    began = time.monotonic()
    with hold(url) as lease:
        assert time.monotonic() - began >= TTL_S
        assert lease.ticket.token == 8
    assert "taking over" in caplog.text


def test_a_lease_that_moves_is_not_taken_over(url: str):
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(TTL_S / 4):
            count += 1
            plant(url, beat=count)

    plant(url)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(LeaseTimeout), hold(url, timeout_s=TTL_S * 4):
            pass
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("jump_s", [-10 * 86_400, 10 * 86_400])
def test_a_jump_of_the_clock_neither_frees_nor_extends_a_lease(url: str, monkeypatch: pytest.MonkeyPatch, jump_s: int):
    real = time.time
    with hold(url, ttl_s=TTL_S):
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        with pytest.raises(LeaseTimeout), hold(url, ttl_s=TTL_S, timeout_s=TTL_S * 2):
            pass
    plant(url)
    with hold(url, timeout_s=TTL_S * 10) as lease:
        assert lease.ticket.token == 8


def test_the_heartbeat_keeps_a_long_run_alive(url: str):
    with hold(url, ttl_s=TTL_S) as lease:
        time.sleep(TTL_S * 2)
        state, _ = read_lease(url)
        assert state is not None
        assert state.beat >= 4
        lease.ticket.check()


def test_a_dead_process_of_this_machine_is_replaced_at_once(url: str):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    started = leases._process_start(child.pid)
    child.wait()
    plant(url, machine=leases._machine(), pid=child.pid, started=started, ttl_s=3600.0)
    began = time.monotonic()
    with hold(url):
        assert time.monotonic() - began < 2


def test_a_process_of_this_machine_that_is_there_but_does_not_move_gets_more_time(url: str):
    plant(url, machine=leases._machine(), pid=1, started=leases._process_start(1), ttl_s=0.1)
    began = time.monotonic()
    with hold(url, timeout_s=20):
        assert time.monotonic() - began >= 0.1 * leases.PATIENCE


def test_a_process_id_that_was_given_to_another_process_is_not_the_holder(url: str):
    plant(url, machine=leases._machine(), pid=1, started="no such start", ttl_s=3600.0)
    with hold(url, timeout_s=5):
        pass


def test_a_run_of_this_process_that_could_not_give_it_back_is_replaced_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with monkeypatch.context() as patch, hold(url, ttl_s=3600):

        def fails(*_: object) -> bool:
            raise OSError("network is down")

        patch.setattr(storage_for(url), "write_if", fails)
    assert "could not be given back" in caplog.text
    with hold(url, timeout_s=5):
        pass


def test_a_stale_writer_commits_nothing(url: str):
    with hold(url, ttl_s=3600) as stale:
        commit(url, stale.ticket, [("data/a", b"1")])
        plant(url, token=stale.ticket.token + 1)  # another machine has taken it over
        with pytest.raises(LeaseLost, match="must not overwrite"):
            commit(url, stale.ticket, [("data/a", b"2"), ("ledger/a.json", b"{}")])
        with pytest.raises(LeaseLost):
            retract(url, stale.ticket, ["data/a"])
    assert storage_for(url).read(join(url, "data/a")) == b"1"
    assert not exists(join(url, "ledger/a.json"))
    assert read_lease(url)[0] == LeaseState(
        stale.ticket.token + 1, "other", "far-away", "boot/1", 4242, "99", ttl_s=TTL_S
    )


@pytest.mark.parametrize("any_store", ["memory", "gs"], indirect=True)
@pytest.mark.parametrize("step", ["version", "write_if"])
def test_a_writer_that_stalls_before_any_step_of_a_commit_is_fenced_by_the_store(
    url: str, monkeypatch: pytest.MonkeyPatch, step: str
):
    """On a disk the flock excludes this; elsewhere the write demands the version that was read before the check."""
    storage = storage_for(url)
    real = getattr(storage, step)
    with hold(url, ttl_s=3600) as stale, monkeypatch.context() as patch:

        def stalls(target: str, *rest: object) -> object:
            if target.endswith("data/a"):
                patch.undo()
                plant(url, token=stale.ticket.token + 1)
                storage.write(target, b"the successor's")
            return real(target, *rest)

        patch.setattr(storage, step, stalls)
        with pytest.raises(LeaseLost):
            commit(url, stale.ticket, [("data/a", b"the stale one's")])
    assert storage.read(join(url, "data/a")) == b"the successor's"


def test_a_ticket_travels_to_worker_processes(url: str):
    with hold(url) as lease:
        pickle.loads(pickle.dumps(lease.ticket)).check()  # noqa: S301 - what multiprocessing does


def test_a_damaged_lease_is_said_and_replaced(url: str, caplog: pytest.LogCaptureFixture):
    storage_for(url).write(join(url, LEASE), b'{"token": 3, "hold')
    with caplog.at_level(logging.WARNING), hold(url, timeout_s=5) as lease:
        assert lease.ticket.token > 3
    assert "damaged" in caplog.text


def test_a_holder_notices_that_it_was_replaced(store: str, caplog: pytest.LogCaptureFixture):
    url = join(store, "stage", "name")
    with hold(url, ttl_s=TTL_S):
        plant(url, token=99)
        time.sleep(TTL_S)
    assert "taken over" in caplog.text
    assert json.loads(Path(url, LEASE).read_bytes())["token"] == 99, "a stale run gives nothing back"
