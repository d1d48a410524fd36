"""A server never outlives the process that started it, however that process ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.generation import guard

# A server that ignores SIGTERM, with a child and a grandchild in a session of its own.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); time.sleep(300)"])
grandchild = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(300)'])"
subprocess.Popen([sys.executable, "-c", grandchild])
time.sleep(300)
"""
PARENT = """
import os, subprocess, sys, time
guard, record, code = sys.argv[1:]
command = [sys.executable, "-I", guard, str(os.getpid()), "0.2", record, sys.executable, "-c", code]
child = subprocess.Popen(command, start_new_session=True)
print(child.pid, flush=True)
time.sleep(300)
"""


def descendants(pid: int) -> list[int]:
    return guard._descendants(guard.processes(), pid)


def alive(pids: list[int]) -> list[int]:
    living = {process.pid for process in guard.processes()}
    return [pid for pid in pids if pid in living]


def escaped(watcher: int) -> list[int]:
    """Descendants that made a session of their own, which no record holds."""
    found = descendants(watcher)
    return [p.pid for p in guard.processes() if p.pid in found and p.session == p.pid and p.parent != watcher]


def until(condition, seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


@pytest.fixture
def family(tmp_path):
    """(parent, guard's pid, pids of the server and all it started, the record)."""
    record = tmp_path / "server.json"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(Path(guard.__file__)), str(record), STUBBORN],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    watcher = int(parent.stdout.readline())
    assert until(lambda: len(descendants(watcher)) == 4 and len(escaped(watcher)) == 1 and record.exists())
    pids = descendants(watcher)
    yield parent, watcher, pids, record
    for pid in [parent.pid, watcher, *pids]:
        if alive([pid]):
            os.kill(pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()


def test_when_the_parent_is_killed_the_server_and_all_it_started_die(family):
    parent, watcher, pids, record = family
    parent.kill()
    assert until(lambda: not alive([watcher, *pids]))
    assert not record.exists()


def test_when_the_guard_is_told_to_stop_a_server_that_ignores_it_is_killed(family):
    _, watcher, pids, _ = family
    os.kill(watcher, signal.SIGTERM)
    assert until(lambda: not alive([watcher, *pids]))


def test_when_the_server_dies_its_children_die_too(family):
    _, watcher, pids, record = family
    leader = json.loads(record.read_text())["leader"][0]
    os.kill(leader, signal.SIGKILL)
    assert until(lambda: not alive([watcher, *pids]))


def test_what_is_left_when_guard_and_parent_are_killed_together_is_swept_by_the_next_start(family):
    parent, watcher, pids, record = family
    left = [pid for pid in pids if pid not in escaped(watcher)]  # what made a session of its own is beyond the record
    os.kill(watcher, signal.SIGKILL)
    parent.kill()
    assert until(lambda: not alive([watcher, parent.pid]))  # a guard that lives cleans up itself: sweep leaves it alone
    guard.sweep(record)
    assert until(lambda: not alive(left))
    assert not record.exists()


def test_a_server_that_is_looked_after_is_not_swept(family):
    _, watcher, pids, record = family
    assert guard.sweep(record) == []
    assert alive([watcher, *pids]) == [watcher, *pids]
    assert record.exists()


@pytest.mark.parametrize("content", ["", "{", '{"guard": 1}', '{"boot": "other", "guard": [1, 1], "leader": [1, 1]}'])
def test_a_damaged_or_old_record_kills_nothing(tmp_path, content):
    record = tmp_path / "server.json"
    record.write_text(content)
    assert guard.sweep(record) == []


def test_a_process_id_that_was_given_out_again_is_not_ours(tmp_path):
    me = next(p for p in guard.processes() if p.pid == os.getpid())
    record = tmp_path / "server.json"
    facts = {"boot": guard._boot(), "guard": [2**30, 1], "leader": [me.pid, me.started - 1]}
    record.write_text(json.dumps(facts))
    assert guard.sweep(record) == []


def test_the_exit_code_of_the_command_comes_through(tmp_path):
    command = [sys.executable, "-I", guard.__file__, str(os.getpid()), "1", str(tmp_path / "r"), sys.executable, "-c"]
    assert subprocess.run([*command, "raise SystemExit(7)"], check=False).returncode == 7
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([*command, killed], check=False).returncode == 137
