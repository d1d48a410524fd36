"""Programs that live and die with this process: started, restarted when they end, stopped with all they started."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tasks.errors import HostFault

WORK_SECONDS = 30  # what a worker runs may save within this
STOP_SECONDS = 15
RESTARTS = 5  # of one program within RESTART_WINDOW, then something is wrong for good
RESTART_WINDOW = 600.0  # seconds

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36
# A small program that becomes the command, tied to its parent's life by PR_SET_PDEATHSIG (1). Python code between fork
# and exec (preexec_fn) would do the same, but can hang in a process with threads.
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the supervisor is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(empty)"


@dataclass
class Program:
    """One program, its environment and its log."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    cwd: Path
    process: subprocess.Popen[bytes] | None = None
    started: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.started.append(time.monotonic())
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", _TIED, str(os.getpid()), *self.command],
                cwd=self.cwd,
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-C is ours
            )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def restart(self) -> None:
        """Start again what ended by itself.

        Raises:
            HostFault: it keeps ending.
        """
        code = self.process.poll() if self.process else None
        recent = [moment for moment in self.started if time.monotonic() - moment < RESTART_WINDOW]
        if len(recent) > RESTARTS:
            raise HostFault(
                f"the {self.name} ended {len(recent)} times within {RESTART_WINDOW / 60:.0f} minutes, last with code "
                f"{code}, so starting it again would not help. The end of {self.log}:\n{tail(self.log)}"
            )
        print(f"the {self.name} ended with {code}; starting it again", flush=True)
        self.start()

    def stop(self) -> None:
        if self.process is None or not self.alive:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Supervisor:
    """Keeps a server and the workers that depend on it; adopts what a killed worker leaves behind."""

    def __init__(self, server: Program, worker: Program):
        self.server = server
        self.worker = worker
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def keep(self) -> Iterator[None]:
        """Once a second: restart what ended, collect what was adopted. Never ends by itself.

        Raises:
            HostFault: a program keeps ending.
        """
        while True:
            for program in (self.server, self.worker):
                if not program.alive:
                    program.restart()
            for process in self._adopted():
                with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
                    if process.status() == psutil.STATUS_ZOMBIE:
                        os.waitpid(process.pid, os.WNOHANG)
            yield
            time.sleep(1.0)

    def stop_work(self) -> None:
        """End what the worker runs first, so that it can save and say so; then the worker."""
        running = self._adopted()
        if self.worker.process and self.worker.alive:
            running += psutil.Process(self.worker.process.pid).children()
        if running:
            print(f"stopping {len(running)} flow run(s) …", flush=True)
        for process in running:
            _signal(process, signal.SIGTERM)
        _ended(running, WORK_SECONDS)
        self.worker.stop()

    def stop(self) -> None:
        """End everything: the server, and whatever is left."""
        self.stop_work()
        self.server.stop()
        for process in psutil.Process().children(recursive=True):
            _signal(process, signal.SIGKILL)

    def _adopted(self) -> list[psutil.Process]:
        own = {program.process.pid for program in (self.server, self.worker) if program.process}
        return [process for process in psutil.Process().children() if process.pid not in own]


def end_leftovers(variable: str, value: str) -> int:
    """End the processes that carry this environment variable: a killed supervisor's worker may outlive it."""
    left = [process for process in psutil.process_iter() if _carries(process, variable, value)]
    for process in left:
        _signal(process, signal.SIGTERM)
    if not _ended(left, STOP_SECONDS):
        for process in left:
            _signal(process, signal.SIGKILL)
    return len(left)


def _ended(processes: list[psutil.Process], within: float) -> bool:
    """Wait for all of them; one that only waits to be collected by its parent has ended."""
    deadline = time.monotonic() + within
    while any(_runs(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _carries(process: psutil.Process, variable: str, value: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(variable) == value
    except psutil.Error:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
