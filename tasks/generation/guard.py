"""A small process between us and a server: when we die, however we die, the server and all it started die too.

    python guard.py PARENT_PID GRACE_S RECORD COMMAND ...

It watches its parent's process id instead of asking the kernel for a signal at the parent's death, because that signal
comes when the *thread* ends that started the child. It adopts the server's orphans, so all of them are its descendants.
If it is killed together with its parent, `sweep` finds what is left by the record. Only the standard library: it must
start at once.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

POLL_S = 0.25
ORPHAN_GRACE_S = 2.0  # nobody waits for an orderly end any more
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True)
class Process:
    """One line of /proc. A process id is used again, the pair (pid, started) is not."""

    pid: int
    parent: int
    session: int
    started: int  # clock ticks since boot


def main(argv: list[str]) -> int:
    """Run the command until it ends, a signal comes or the parent is gone; leave nothing behind."""
    parent, grace_s, record, command = int(argv[0]), float(argv[1]), Path(argv[2]), argv[3:]
    stopped: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        stopped.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, note)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(command, start_new_session=True, preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, 9))
    _write_record(record, child.pid)
    while child.poll() is None and not stopped and os.getppid() == parent:
        time.sleep(POLL_S)
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s if stopped else ORPHAN_GRACE_S)
    own = os.getpid()
    kill_all(lambda table: _descendants(table, own))
    code = child.wait()
    record.unlink(missing_ok=True)
    return 128 - code if code < 0 else code


def sweep(record: Path) -> list[int]:
    """Kill what is left of a server whose guard was killed, and forget it; returns the ids of what was killed."""
    try:
        facts = json.loads(record.read_text())
        guard, leader = tuple(facts["guard"]), tuple(facts["leader"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    table = processes()
    if facts.get("boot") == _boot() and any((p.pid, p.started) == guard for p in table):
        return []  # somebody looks after it
    killed: list[int] = []
    is_reused = any(p.pid == leader[0] and p.started != leader[1] for p in table)
    if facts.get("boot") == _boot() and not is_reused:
        killed = kill_all(lambda now: [p.pid for p in now if p.session == leader[0]])
    record.unlink(missing_ok=True)
    return killed


def kill_all(choose: Callable[[list[Process]], list[int]]) -> list[int]:
    """Kill what is chosen from the table of processes, until nothing is chosen any more."""
    killed: list[int] = []
    for _ in range(40):
        found = choose(processes())
        if not found:
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed += [pid for pid in found if pid not in killed]
        time.sleep(0.05)
    return killed


def processes() -> list[Process]:
    """All living processes; zombies are not living."""
    found: list[Process] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found.append(Process(int(entry.name), int(fields[1]), int(fields[3]), int(fields[19])))
    return found


def _descendants(table: list[Process], root: int) -> list[int]:
    found, grown = {root}, True
    while grown:
        more = {p.pid for p in table if p.parent in found} - found
        grown = bool(more)
        found |= more
    return sorted(found - {root})


def _write_record(record: Path, leader: int) -> None:
    started = {p.pid: p.started for p in processes()}
    guard = os.getpid()
    facts = {"boot": _boot(), "guard": [guard, started.get(guard)], "leader": [leader, started.get(leader)]}
    record.parent.mkdir(parents=True, exist_ok=True)
    temporary = record.with_suffix(".tmp")
    temporary.write_text(json.dumps(facts))
    temporary.replace(record)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
