"""Notices that this machine is about to be taken away: a signal, Google's metadata server, or a file.

Whoever hears of it first says so with `Notices.tell`; the trainer asks at every step. Watchers are daemon threads that
wait in the kernel, so a notice that never comes costs nothing.
"""

import http.client
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

HOST_VARIABLE = "GCE_METADATA_HOST"  # Google's own clients read it too
PRODUCT = Path("/sys/class/dmi/id/product_name")  # "Google Compute Engine" on every machine of theirs
HOST = "metadata.google.internal"
WAIT_S = 60.0  # the server answers a waiting request after this at the latest
TIMEOUT_S = 5.0  # for an answer that is due
TRIES = 3  # failures before a server that never answered is taken to be absent
FILE_EVERY_S = 0.5

Tell = Callable[[str], None]
Backoff = Callable[[int], float]


@dataclass(frozen=True)
class Notice:
    """What was heard and when, on the monotonic clock."""

    reason: str
    at: float


class Notices:
    """The first notice, from any thread or signal handler."""

    def __init__(self) -> None:
        self._first: Notice | None = None

    def tell(self, reason: str) -> None:
        """Pass a notice on. No lock: a signal handler may run while any other line of this thread does."""
        if self._first is None:
            self._first = Notice(reason, time.monotonic())

    @property
    def first(self) -> Notice | None:
        return self._first

    def is_told(self) -> bool:
        return self._first is not None

    def left(self, grace_s: float) -> float:
        """Seconds until the machine may go; all of the grace before a notice."""
        return grace_s if self._first is None else grace_s - (time.monotonic() - self._first.at)


def watch(notices: Notices, preemption_file: str = "") -> None:
    """Start a thread for every source that is here. Returns at once: whether a server is there is found out aside."""
    if host := metadata_host():
        for key, is_end in (("preempted", _is_true), ("maintenance-event", _is_terminate)):
            _start(f"notices of {key}", lambda k=key, e=is_end: watch_key(host, k, e, notices.tell))
    if preemption_file:
        _start("notices by file", lambda: watch_file(Path(preemption_file), notices.tell))


def metadata_host() -> str | None:
    """Google's metadata server: named by the environment, or known from the machine's maker; None elsewhere."""
    if host := os.environ.get(HOST_VARIABLE):
        return host
    try:
        return HOST if PRODUCT.read_text().startswith("Google") else None
    except OSError:
        return None


def watch_key(
    host: str,
    key: str,
    is_end: Callable[[str], bool],
    tell: Tell,
    *,
    wait_s: float = WAIT_S,
    backoff: Backoff = lambda failures: min(30.0, 0.5 * 2.0**failures),
) -> None:
    """Wait for changes of `instance/KEY` and tell the one that ends the machine.

    A server that never answers, is not Google's or does not have the key is left alone for good; one that has
    answered is asked again whatever it does.
    """
    etag, has_answered, failures = "0", False, 0
    while True:
        try:
            answer = _ask(host, key, etag, wait_s, has_answered)
        except (OSError, http.client.HTTPException) as error:
            answer = f"{type(error).__name__}: {error}"
        if isinstance(answer, str):
            failures += 1
            if not has_answered and failures >= TRIES:
                log.info("no metadata server at %s (%s): no notices from there", host, answer)
                return
            time.sleep(backoff(failures))
            continue
        if answer.status == 404 or not answer.is_google:
            why = "has no such key" if answer.is_google else "is not Google's"
            log.info("the metadata server %s %s: no notices of %s", host, why, key)
            return
        if is_end(answer.value):
            tell(f"Google Compute Engine says {key}={answer.value}")
            return
        if answer.etag == etag:  # nothing changed; one that does not wait is not asked without pause
            time.sleep(max(0.0, min(1.0, wait_s - answer.seconds)))
        etag, has_answered, failures = answer.etag, True, 0


@dataclass(frozen=True)
class _Answer:
    status: int
    is_google: bool
    etag: str
    value: str
    seconds: float


def _ask(host: str, key: str, etag: str, wait_s: float, has_answered: bool) -> _Answer | str:
    """One request; a string says why there was no usable answer."""
    began = time.monotonic()
    timeout = TIMEOUT_S + (wait_s if has_answered else 0)  # the first answer is due at once: no value has etag 0
    connection = http.client.HTTPConnection(host, timeout=timeout)
    try:
        path = f"/computeMetadata/v1/instance/{key}?wait_for_change=true&timeout_sec={wait_s:.0f}&last_etag={etag}"
        connection.request("GET", path, headers={"Metadata-Flavor": "Google"})
        response = connection.getresponse()
        value = response.read(4096).decode("utf-8", "replace").strip()
        is_google = response.getheader("Metadata-Flavor") == "Google"
        if response.status not in (200, 404):
            return f"status {response.status}"
        return _Answer(response.status, is_google, response.getheader("ETag") or "0", value, time.monotonic() - began)
    finally:
        connection.close()


def watch_file(path: Path, tell: Tell, *, every_s: float = FILE_EVERY_S) -> None:
    """Tell when the file appears or is written. One that was there before is of another time, and says nothing."""
    before = _version(path)
    if before is not None:
        log.warning("%s was there before this process: it counts when it is written again", path)
    while True:
        time.sleep(every_s)
        now = _version(path)
        if now is None:
            before = None
        elif now != before:
            tell(f"{path} appeared")
            return


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _is_true(value: str) -> bool:
    return value.upper() == "TRUE"


def _is_terminate(value: str) -> bool:
    """MIGRATE_ON_HOST_MAINTENANCE, the other event, moves the machine with the run in it."""
    return value.startswith("TERMINATE")


def _start(name: str, body: Callable[[], None]) -> None:
    threading.Thread(target=body, name=name, daemon=True).start()
