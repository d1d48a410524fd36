"""HTML to text in a process of its own, which is killed when a page takes too long or too much memory.

A page of a few hundred kilobytes can keep any extractor busy for minutes, or crash it. Such a page is a reject with a
reason; the pages after it are not touched.
"""

import ctypes
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from tasks.errors import HostFault
from tasks.ingest.decode import decode

MEMORY_BYTES = 4 << 30  # address space of the extractor
START_TIMEOUT_S = 120
_PR_SET_PDEATHSIG = 1

# resiliparse 2.0 leaves out a text node of one Japanese character: in `<b>A</b>と<b>B</b>` the particle is lost.
# Such a node gets a second character (a code point that no text has), which is taken out again afterwards.
_MARK = "\ufdd0"
_LONE_CHARACTER = re.compile("(>\\s*)([\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]|&#x?[0-9a-fA-F]+;)(\\s*<)")
_ROOT = Path(__file__).resolve().parents[2]
_SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
from multiprocessing.connection import Connection
from tasks.ingest.extract import serve
serve(Connection(int(sys.argv[2])), int(sys.argv[3]))
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
    """Turns pages into text in a child process. Use it in `with`; one at a time per worker."""

    timeout_s: float
    skip_elements: tuple[str, ...] = ()
    main_content: bool = True
    _child: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _pipe: "Connection | None" = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def extract(self, content: bytes, content_type: str) -> Extracted:
        """The text of a page; reasons are `garbage`, `extract_timeout` and `extract_crash`. Empty text is no reason."""
        options = {"content_type": content_type, "skip": self.skip_elements, "main_content": self.main_content}
        try:
            pipe = self._pipe or self._start()
            pipe.send_bytes(json.dumps(options).encode())
            pipe.send_bytes(content)
            if not pipe.poll(self.timeout_s):
                self._stop()
                return Extracted(reason="extract_timeout", detail=f"longer than {self.timeout_s:g} s")
            return Extracted(**json.loads(pipe.recv_bytes()))
        except (EOFError, OSError) as error:
            code = self._stop()
            return Extracted(reason="extract_crash", detail=f"{type(error).__name__}, exit code {code}")

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", _SERVE, str(_ROOT), str(theirs.fileno()), str(os.getpid())]
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._pipe = Connection(ours.detach())
        if not self._pipe.poll(START_TIMEOUT_S):
            raise HostFault(
                f"the extractor did not start within {START_TIMEOUT_S} s: this machine is out of memory or "
                "overloaded. Run the same command again when it is not; finished shards are kept."
            )
        self._pipe.recv_bytes()
        return self._pipe

    def _stop(self) -> int | None:
        pipe, child, self._pipe, self._child = self._pipe, self._child, None, None
        if pipe is None or child is None:
            return None
        pipe.close()
        child.kill()
        return child.wait()


def serve(pipe: Connection, parent: int) -> None:
    """The child: answers one page after the other until its parent is gone."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send_bytes(b"ready")
    while True:
        try:
            options = json.loads(pipe.recv_bytes())
            content = pipe.recv_bytes()
        except (EOFError, ConnectionError):
            return
        pipe.send_bytes(json.dumps(page_text(content, **options).__dict__).encode("utf-8", "surrogatepass"))


def page_text(content: bytes, content_type: str, skip: tuple[str, ...] = (), main_content: bool = True) -> Extracted:
    """Decode and extract one page, without any limit: what the child process does."""
    decoded = decode(content, content_type)
    if decoded is None:
        return Extracted(reason="garbage", detail=f"{len(content):,} bytes that are not text")
    if not content_type.startswith(("text/html", "application/xhtml")):
        return Extracted(decoded.text, encoding=decoded.encoding)
    tree = HTMLTree.parse(_LONE_CHARACTER.sub(rf"\1\2{_MARK}\3", decoded.text))
    text = extract_plain_text(tree, main_content=main_content, skip_elements=list(skip) or None)
    return Extracted(text.replace(_MARK, ""), (tree.title or "").replace(_MARK, "").strip(), decoded.encoding)


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, so that a killed run leaves nothing behind."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # not Linux: the child ends when its pipe does
    if os.getppid() != parent:
        os._exit(1)
