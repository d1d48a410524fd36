"""HTML to text in a process of its own, which is killed when a page takes too long or too much memory.

A page of a few hundred kilobytes can keep any engine busy for minutes, fill the memory, or crash it. Such a page is a
reject with a reason; the pages after it are not touched.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from tasks.children import die_with
from tasks.errors import ConfigError, HostFault
from tasks.ingest.decode import decode
from tasks.ingest.extractors import DEFAULT, EXTRACTORS

MEMORY_BYTES = 2 << 30  # what one page may add to the memory of the child
START_TIMEOUT_S = 120
WATCH_S = 0.05  # between two looks at the memory of a child that is still at work
EXIT_S = 5  # for a child whose pipe is closed to end
OUT_OF_MEMORY = 99  # exit code of a child that got no more
KEPT_BYTES = 512 << 20  # a child that holds more than this after a page is replaced
_ROOT = Path(__file__).resolve().parents[2]
_SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
from multiprocessing.connection import Connection
from tasks.ingest.extract import serve
serve(Connection(int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4]))
"""


@dataclass(frozen=True)
class Extracted:
    """Text of a page with the facts found on the way; `reason` is set, and text empty, when there is none."""

    text: str = ""
    title: str = ""
    encoding: str = ""
    reason: str = ""
    detail: str = ""


@dataclass
class Extractor:
    """Turns pages into text in a child process. Use it in `with`; one at a time per worker.

    Raises:
        ConfigError: there is no such engine, or its package is not installed.
    """

    timeout_s: float
    skip_elements: tuple[str, ...] = ()
    engine: str = DEFAULT
    memory_bytes: int = MEMORY_BYTES
    _child: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _pipe: "Connection | None" = field(default=None, init=False)
    _idle_bytes: int = field(default=0, init=False)  # memory of the child before its first page

    def __post_init__(self) -> None:
        if self.engine not in EXTRACTORS:
            raise ConfigError(
                f"extractor={self.engine!r} is not one of {', '.join(EXTRACTORS)}: an engine is a file in "
                "tasks/ingest/extractors. Use one of these."
            )
        EXTRACTORS[self.engine].check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def extract(self, content: bytes, content_type: str) -> Extracted:
        """The text of a page. Empty text is no reason.

        Reasons are `garbage` (bytes that are not text), `extract_timeout`, `extract_memory` and `extract_crash`.
        """
        options = {"content_type": content_type, "skip": self.skip_elements, "engine": self.engine}
        try:
            pipe = self._pipe or self._start()
            pipe.send_bytes(json.dumps(options).encode())
            pipe.send_bytes(content)
            if reason := self._wait(pipe):
                return reason
            answer = json.loads(pipe.recv_bytes())
        except (EOFError, OSError) as error:
            code = self._ended()
            if code == OUT_OF_MEMORY:
                return _too_much(self.memory_bytes)
            return Extracted(reason="extract_crash", detail=f"{type(error).__name__}, exit code {code}")
        if answer.pop("resident_bytes") > self._idle_bytes + KEPT_BYTES:
            self._stop()  # what a large page left behind must not count against the next ones
        return Extracted(**answer)

    def _wait(self, pipe: Connection) -> Extracted | None:
        """Wait for the child's answer; a reject when it took too long or too much memory, and was killed."""
        until = time.monotonic() + self.timeout_s
        while not pipe.poll(min(WATCH_S, max(0.0, until - time.monotonic()))):
            if time.monotonic() >= until:
                self._stop()
                return Extracted(reason="extract_timeout", detail=f"longer than {self.timeout_s:g} s")
            if self._child is not None and _resident_bytes(self._child.pid) > self._idle_bytes + self.memory_bytes:
                self._stop()
                return _too_much(self.memory_bytes)
        return None

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [str(_ROOT), str(theirs.fileno()), str(os.getpid()), str(self.memory_bytes)]
            command = [sys.executable, "-c", _SERVE, *arguments]
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._pipe = Connection(ours.detach())
        if not self._pipe.poll(START_TIMEOUT_S):
            raise HostFault(
                f"the extractor did not start within {START_TIMEOUT_S} s: this machine is out of memory or "
                "overloaded. Run the same command again when it is not; finished shards are kept."
            )
        self._idle_bytes = json.loads(self._pipe.recv_bytes())
        return self._pipe

    def _ended(self) -> int | None:
        """How the child ended by itself; killed when it does not."""
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(EXIT_S)
        return self._stop()

    def _stop(self) -> int | None:
        pipe, child, self._pipe, self._child = self._pipe, self._child, None, None
        if pipe is None or child is None:
            return None
        pipe.close()
        child.kill()
        return child.wait()


def serve(pipe: Connection, parent: int, memory_bytes: int) -> None:
    """The child: answers one page after the other until its parent is gone."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    limit = _memory()[0] + 2 * memory_bytes  # a backstop: address space is taken in advance and seldom used in full
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send_bytes(json.dumps(_memory()[1]).encode())
    while True:
        try:
            options = json.loads(pipe.recv_bytes())
            found = page_text(pipe.recv_bytes(), **options)
            facts = found.__dict__ | {"resident_bytes": _memory()[1]}
            pipe.send_bytes(json.dumps(facts, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        except (EOFError, ConnectionError):
            return
        except MemoryError:
            os._exit(OUT_OF_MEMORY)


def page_text(content: bytes, content_type: str, skip: tuple[str, ...] = (), engine: str = DEFAULT) -> Extracted:
    """Decode and extract one page, without any limit: what the child process does."""
    decoded = decode(content, content_type)
    if decoded is None:
        return Extracted(reason="garbage", detail=f"{len(content):,} bytes that are not text")
    if not content_type.lower().startswith(("text/html", "application/xhtml")):
        return Extracted(decoded.text, encoding=decoded.encoding)
    text, title = EXTRACTORS[engine].extract(decoded.text, tuple(skip))
    return Extracted(text, title, decoded.encoding)


def _too_much(memory_bytes: int) -> Extracted:
    return Extracted(reason="extract_memory", detail=f"more than {memory_bytes >> 20:,} MiB")


def _memory() -> tuple[int, int]:
    """Address space and resident memory of this process, in bytes; zeros where there is no /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = file.read().split()
    except FileNotFoundError:
        return 0, 0
    return int(pages[0]) * resource.getpagesize(), int(pages[1]) * resource.getpagesize()


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0  # it is gone, which its pipe will tell
