"""One writer per artifact: a lease with a fencing token beside it.

Exclusion never depends on a clock. The lease file changes only by compare-and-swap; a holder proves that it is alive by
changing it; a waiter takes it over after it has watched it stand still for the time-to-live on its own monotonic clock
(or at once, when the holder was a process of this machine that is gone). Each taking over raises the token, and every
commit first reads the lease and then writes conditionally, so that a stale writer fails.
"""

import contextlib
import functools
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tasks.artifact.manifest import LEASE
from tasks.errors import HostFault
from tasks.storage import ABSENT, join, storage_for

log = logging.getLogger(__name__)

TTL_S = 60.0  # a holder that has not moved for so long is dead
PATIENCE = 10  # times that, for a process of this machine that is there: it may be busy in code that stops its threads
NOTICE_EVERY_S = 30.0
_holding: set[str] = set()  # the holders in this process


class LeaseLost(HostFault):
    """Another run owns the artifact now; nothing of this one may be committed any more."""


class LeaseTimeout(HostFault):
    """The artifact is being made by another run, and the caller didn't want to wait longer."""


@dataclass(frozen=True)
class LeaseState:
    """What the lease file says."""

    token: int
    holder: str
    host: str
    machine: str
    pid: int
    started: str
    beat: int = 0
    ttl_s: float = TTL_S
    released: bool = False

    @property
    def is_dead_here(self) -> bool:
        """Whether the holder was on this machine and is gone: its process, or its run within this process."""
        if self.machine != _machine():
            return False
        if self.pid == os.getpid():
            return self.holder not in _holding
        return _process_start(self.pid) != self.started

    @property
    def patience_s(self) -> float:
        """How long the lease may stand still before its holder counts as dead."""
        return self.ttl_s * (PATIENCE if self.machine == _machine() else 1)

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}, token {self.token}"


@dataclass(frozen=True)
class Ticket:
    """The right to commit, as a value that may be sent to worker processes."""

    url: str
    token: int
    holder: str

    def check(self) -> None:
        """Read the lease and return if it is still ours.

        Raises:
            LeaseLost: another run has taken it over, or this run has given it back.
        """
        try:
            state = _decode(self.url, storage_for(self.url).read(join(self.url, LEASE)))
        except FileNotFoundError:
            state = None
        if state is None or (state.token, state.holder) != (self.token, self.holder) or state.released:
            raise LeaseLost(
                f"{self.url} now belongs to {state or 'nobody'}; this run held token {self.token}: "
                "a run that was thought dead must not overwrite its successor's work. "
                "Let the other run finish; what this one committed before is kept."
            )


class Lease:
    """A held lease. The heartbeat thread keeps it alive until `release`."""

    def __init__(self, url: str, state: LeaseState):
        self.url = url
        self.ticket = Ticket(url, state.token, state.holder)
        self._state = state
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, name=f"lease {url}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lease back; the token stays in the file, so that the next one is higher."""
        if self._stop.is_set() or os.getpid() != self._pid:
            return
        self._stop.set()
        self._thread.join(timeout=self._state.ttl_s)
        _holding.discard(self._state.holder)
        try:
            self._write(replace(self._state, beat=self._state.beat + 1, released=True))
        except LeaseLost:
            return
        except OSError as error:  # it expires by itself; what was committed is committed
            log.warning("lease of %s: could not be given back: %s", self.url, error)

    def _beat(self) -> None:
        while not self._stop.wait(self._state.ttl_s / 4):
            try:
                self._write(replace(self._state, beat=self._state.beat + 1))
            except LeaseLost as error:
                log.error("%s", error)
                return
            except OSError as error:  # a full disk or a network fault: the next beat may succeed
                log.warning("lease of %s: heartbeat failed: %s", self.url, error)

    def _write(self, state: LeaseState) -> None:
        storage = storage_for(self.url)
        with self._lock, storage.guard(self.url):
            for _ in range(5):
                current, version = read_lease(self.url)
                if current is None or (current.token, current.holder) != (self.ticket.token, self.ticket.holder):
                    raise LeaseLost(f"{self.url} was taken over by {current or 'nobody'}")
                if storage.write_if(join(self.url, LEASE), _encode(state), version):
                    self._state = state
                    return


@contextlib.contextmanager
def hold(
    url: str,
    *,
    ttl_s: float = TTL_S,
    timeout_s: float | None = None,
) -> Iterator[Lease]:
    """Wait for the lease of an artifact and hold it.

    Raises:
        LeaseTimeout: `timeout_s` passed and another live run still held it.
    """
    lease = _acquire(url, ttl_s=ttl_s, timeout_s=timeout_s)
    try:
        yield lease
    finally:
        lease.release()


def _acquire(url: str, *, ttl_s: float, timeout_s: float | None) -> Lease:
    began = time.monotonic()
    seen: LeaseState | None = None
    seen_since = began
    noticed = -NOTICE_EVERY_S
    while True:
        state, version = read_lease(url)
        now = time.monotonic()
        if state != seen:
            seen, seen_since = state, now
        still_s = now - seen_since
        if state is None or state.released or state.is_dead_here or still_s > state.patience_s:
            if state is not None and not state.released:
                log.warning("taking over %s from a dead run (%s)", url, state)
            lease = _take(url, state, version, ttl_s)
            if lease is not None:
                return lease
            continue
        waited_s = now - began
        if timeout_s is not None and waited_s > timeout_s:
            raise LeaseTimeout(
                f"{url} is being made by {state}; waited {waited_s:.0f} s of at most {timeout_s:.0f} s: "
                "an artifact has one writer at a time. Wait for that run or stop it; a dead one is replaced "
                f"after {state.patience_s:.0f} s."
            )
        if waited_s - noticed >= NOTICE_EVERY_S:
            noticed = waited_s
            log.warning("waiting for %s: being made by %s (waited %.0f s)", url, state, waited_s)
        time.sleep(min(1.0, state.ttl_s / 20, 0.02 + waited_s / 10))


def _take(url: str, state: LeaseState | None, version: str, ttl_s: float) -> Lease | None:
    pid = os.getpid()
    mine = LeaseState(
        token=(state.token if state else 0) + 1,
        holder=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        started=_process_start(pid),
        ttl_s=ttl_s,
    )
    storage = storage_for(url)
    _holding.add(mine.holder)  # before the write: another thread must not take this one for dead
    try:
        with storage.guard(url):
            taken = storage.write_if(join(url, LEASE), _encode(mine), version)
    except BaseException:
        _holding.discard(mine.holder)
        raise
    if not taken:
        _holding.discard(mine.holder)
        return None
    return Lease(url, mine)


def read_lease(url: str) -> tuple[LeaseState | None, str]:
    """The lease of an artifact and the version of its file. A damaged file counts as a lease that nobody holds."""
    storage = storage_for(url)
    path = join(url, LEASE)
    version = storage.version(path)
    if version == ABSENT:
        return None, version
    try:
        data = storage.read(path)
    except FileNotFoundError:
        return None, ABSENT
    return _decode(url, data), version


def is_held(url: str) -> bool:
    """Whether a run that may be alive holds the lease."""
    state, _ = read_lease(url)
    return state is not None and not state.released and not state.is_dead_here


def _decode(url: str, data: bytes) -> LeaseState:
    try:
        return LeaseState(**json.loads(data))
    except (ValueError, TypeError):
        log.warning("the lease of %s is damaged: %r", url, data[:80])
        return LeaseState(int(time.time()), "", "unknown", "", 0, "", released=True)


def _encode(state: LeaseState) -> bytes:
    return (json.dumps(asdict(state)) + "\n").encode()


@functools.cache
def _machine() -> str:
    """This boot of this machine and this process namespace: where a process id means the same process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex  # unknown: then nobody is declared dead without waiting


def _process_start(pid: int) -> str:
    """When a process started, in clock ticks since boot, so that a reused id is not taken for the old process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
