"""Where text comes from: a vLLM server of our own, or one that is given by URL. The only file that names vllm.

The server lives in its own environment (`make vllm`) and its own processes; we meet over HTTP on the loopback.
"""

import asyncio
import atexit
import contextlib
import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import ConfigError, HostFault
from tasks.generation import guard
from tasks.generation.answers import Policy
from tasks.generation.completions import Endpoint, GivenServer, HttpGenerator
from tasks.progress import track
from tasks.redaction import redact

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
SERVED_NAME = "served"
GRACE_S = 8.0  # between SIGTERM and SIGKILL
POLL_S = 0.2
HEALTH_PATIENCE_S = 60.0  # for a server that lives but does not answer
RESTART_WINDOW_S = 1800.0  # restarts longer ago are forgiven
LOG_LINES = 12
CHECK_TIMEOUT_S = 5.0
HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # what vLLM's CPU attention has kernels for
PREFERRED_LIBRARIES = ("libtcmalloc_minimal.so.4",)


class Serving(BaseModel):
    """How a model is served. All of it is operational: the same requests have the same digests on any server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(default="", description="Base URL of a running OpenAI-compatible server; empty starts our own.")
    api_key_env: str = Field(default="NESTLING_API_KEY", description="Variable that holds the key of that server.")
    price: tuple[float, float] = Field(default=(0.0, 0.0), description="Cost of a million (prompt, answer) tokens.")
    port: int = Field(default=0, ge=0, le=65535, description="Port of our own server; 0 takes a free one.")
    dtype: str = Field(default="bfloat16", description="Number format of weights and activations.")
    max_seq_len: int = Field(default=2048, gt=0, description="Longest prompt and answer together, in tokens.")
    max_sequences: int = Field(default=64, gt=0, description="Requests the server works on at the same time.")
    kv_cache_gib: int = Field(default=1, gt=0, description="Memory for keys and values on a CPU host.")
    start_timeout_s: float = Field(default=600.0, gt=0, description="Longest wait for our own server to start.")
    request_timeout_s: float = Field(default=600.0, gt=0, description="Longest wait for one answer.")
    max_restarts: int = Field(default=3, ge=0, description="How often our own server is restarted within half an hour.")
    keep_alive_s: float = Field(default=45.0, ge=0, description="How long our own server outlives its last user.")
    arguments: tuple[str, ...] = Field(default=(), description="Further arguments for our own server.")


def policy_for(serving: Serving) -> Policy:
    """As many requests as the server works on at once, and as many again in its queue."""
    return Policy(start=serving.max_sequences, most=2 * serving.max_sequences, window=8 * serving.max_sequences)


@contextlib.contextmanager
def served(model_dir: Path, serving: Serving, scratch: Path) -> Iterator[HttpGenerator]:
    """A generator for the model in a Hugging Face directory.

    Nothing starts before the first request. Consecutive users of the same model share one server, which stops
    `keep_alive_s` after the last of them, when another model is served, or when this process ends for any reason.

    Args:
        scratch: the server's log goes to `scratch/server.log`.
    """
    if serving.url:
        endpoint: Endpoint = GivenServer(serving.url, os.environ.get(serving.api_key_env, ""))
        generator = HttpGenerator(
            endpoint,
            timeout_s=serving.request_timeout_s,
            api_key=os.environ.get(serving.api_key_env, ""),
            price=serving.price,
        )
        yield generator
    else:
        with _shared_server(model_dir, serving, scratch) as server:
            yield HttpGenerator(server, timeout_s=serving.request_timeout_s, price=serving.price)


class VllmServer:
    """A vLLM server on the loopback interface that dies with this process. Starts when it is first needed."""

    def __init__(self, model_dir: Path, serving: Serving, scratch: Path):
        self._model_dir = model_dir
        self._serving = serving
        self._log = scratch / "server.log"
        self._log_start = 0  # where the lines of the running server begin
        self._record = scratch / f"server-{uuid.uuid4().hex[:8]}.json"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._starts: list[float] = []  # when, by the monotonic clock
        self.start_seconds: float | None = None

    def __enter__(self) -> "VllmServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def url(self) -> str:
        """See `Endpoint`."""
        return await asyncio.to_thread(self.ensure)

    async def model_name(self) -> str:
        """See `Endpoint`."""
        return SERVED_NAME

    def ensure(self) -> str:
        """The base URL of the running server; starts it, or starts it again when it died.

        Raises:
            ConfigError: vLLM is not installed, the model cannot be served on this machine, the port is taken.
            HostFault: it died at start, did not become ready in time, or died too often.
        """
        with self._lock:
            if self._is_healthy(HEALTH_PATIENCE_S):
                return self._base
            self._stop()
            self._starts = [start for start in self._starts if time.monotonic() - start < RESTART_WINDOW_S]
            if len(self._starts) > self._serving.max_restarts:
                raise HostFault(
                    f"The vLLM server for {self._model_dir} died {len(self._starts)} times within "
                    f"{RESTART_WINDOW_S / 60:.0f} minutes (max_restarts={self._serving.max_restarts}). Its "
                    f"last lines ({self._log}):\n{self._tail()}\n"
                    "A server that keeps dying is short of memory or meets a request it cannot stand. Free memory, "
                    "lower serving.kv_cache_gib or serving.max_sequences, then run the same command again: "
                    "answers that came are kept."
                )
            for tries_left in (2, 1, 0):
                self._start()
                if self._wait(may_try_again=tries_left > 0):
                    break
            return self._base

    def stop(self) -> None:
        """End the server and everything it started."""
        with self._lock:
            self._stop()

    @property
    def _base(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _is_healthy(self, patience_s: float = 0.0) -> bool:
        """Whether it answers; one that lives but is slow, as on a loaded machine, is given time."""
        until = time.monotonic() + patience_s
        while self._process is not None and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self._base}/health", timeout=CHECK_TIMEOUT_S):
                    return True
            except urllib.error.HTTPError:
                return False  # it says itself that its engine is dead
            except OSError:
                if time.monotonic() >= until:
                    return False
                time.sleep(POLL_S)
        return False

    def _start(self) -> None:
        python = server_python()
        _check_head_dim(self._model_dir)
        self._port = _free_port(self._serving.port)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        for record in self._log.parent.glob("server-*.json"):
            if killed := guard.sweep(record):
                log.warning("killed %d processes that a run which died had left: %s", len(killed), killed)
        self._starts.append(time.monotonic())
        command = [
            *(sys.executable, "-I", str(Path(guard.__file__)), str(os.getpid()), str(GRACE_S), str(self._record)),
            *(str(python), "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(self._model_dir), "--served-model-name", SERVED_NAME),
            *("--host", "127.0.0.1", "--port", str(self._port), "--dtype", self._serving.dtype),
            *("--max-model-len", str(self._serving.max_seq_len), "--max-num-seqs", str(self._serving.max_sequences)),
            "--enforce-eager",  # compiling takes minutes, a small stage does not
            "--no-enable-chunked-prefill",  # vLLM 0.32 on a CPU dies when the prompt of a seeded request is split
            *("--uvicorn-log-level", "warning"),
            *self._serving.arguments,
        ]
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(self._serving),
                start_new_session=True,  # Ctrl-C is ours: we stop the server in order
            )

    def _wait(self, may_try_again: bool) -> bool:
        """Wait until the server answers; False when it lost a race for its port, or was killed, and may try again."""
        assert self._process is not None
        began = time.monotonic()
        with track(f"start vLLM ({self._model_dir.parent.parent.name})", None, unit="s") as bar:
            while not self._is_healthy():
                took = time.monotonic() - began
                bar.advance(took - bar.done)
                if (code := self._process.poll()) is not None:
                    raced = "address already in use" in self._tail().lower() and not self._serving.port
                    if may_try_again and (raced or code > 128):
                        log.warning("vLLM ended with code %d while it started; it is started again", code)
                        return False
                    raise HostFault(
                        f"The vLLM server for {self._model_dir} ended with code {code} after {took:.0f} s. Its last "
                        f"lines ({self._log}):\n{self._tail()}\nA stage needs a running server. Most often memory is "
                        "short, the model is not one that vLLM can serve, or .venv-vllm is broken (rm -r .venv-vllm; "
                        "make vllm). Then run the same command again: answers that came are kept."
                    )
                if took > self._serving.start_timeout_s:
                    self._stop()
                    raise HostFault(
                        f"The vLLM server for {self._model_dir} was not ready after {took:.0f} s (start_timeout_s="
                        f"{self._serving.start_timeout_s:.0f}). Its last lines ({self._log}):\n{self._tail()}\n"
                        "A loaded or slow machine needs longer: set serving.start_timeout_s higher and run again."
                    )
                time.sleep(POLL_S)
        self.start_seconds = round(time.monotonic() - began, 1)
        log.info("vLLM serves %s on port %d after %.1f s", self._model_dir, self._port, self.start_seconds)
        return True

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(GRACE_S + 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        guard.sweep(self._record)

    def _tail(self) -> str:
        """The end of this server's log, the lines that say what went wrong first among equals."""
        try:
            lines = self._log.read_bytes()[self._log_start :].decode("utf-8", "replace").splitlines()
        except OSError:
            return "    (no log)"
        lines = [line for line in lines if line.strip()]
        errors = [line for line in lines[-200:] if "Error" in line and "Traceback" not in line]
        chosen = [*errors[:2], *lines[-LOG_LINES:]] if errors else lines[-LOG_LINES:]
        return "\n".join(f"    {redact(line)[:200]}" for line in dict.fromkeys(chosen)) or "    (empty)"


def server_python() -> Path:
    """The interpreter of the serving environment.

    Raises:
        ConfigError: it is not there.
    """
    python = Path(os.environ.get("NESTLING_VLLM_PYTHON") or ROOT / ".venv-vllm" / "bin" / "python")
    if not python.exists():
        raise ConfigError(
            f"{python} is not there: a teacher is served by vLLM, which lives in an environment of its own because it "
            "cannot share one with the trainer. Run `make vllm` (2 minutes), name another one with "
            "NESTLING_VLLM_PYTHON, or give the URL of a running server with serving.url."
        )
    return python


def _environment(serving: Serving) -> dict[str, str]:
    """Nothing is fetched, nothing is reported, caches stay in the project, all cores compute."""
    cores = sorted(os.sched_getaffinity(0))
    # Without compiled modules each of its four processes takes half as long again to start.
    ours = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in ours} | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CACHE_ROOT": str(ROOT / ".cache" / "vllm"),
        "VLLM_CPU_KVCACHE_SPACE": str(serving.kv_cache_gib),
        "PYTHONUNBUFFERED": "1",
    }
    if len(cores) <= 4:  # by default one core is kept free for the API, which is half of a laptop
        environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, cores)))
    libraries = [path for name in PREFERRED_LIBRARIES if (path := _library(name))]
    if libraries:
        environment.setdefault("LD_PRELOAD", ":".join(libraries))
    return environment


def _library(name: str) -> str | None:
    folders = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
    return next((str(path) for folder in folders if (path := Path(folder, name)).exists()), None)


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise ConfigError(
                f"serving.port={wanted} cannot be used ({error.strerror}): another program listens there. "
                "Use serving.port=0 to take any free port, or stop that program."
            ) from None
        return int(probe.getsockname()[1])


def _check_head_dim(model_dir: Path) -> None:
    """vLLM's CPU attention dies at the first request, not at start, when it has no kernel for the model's heads."""
    config = json.loads((model_dir / "config.json").read_text("utf-8"))
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if head_dim not in HEAD_DIMS:
        raise ConfigError(
            f"{model_dir}: head_dim={head_dim} is not one of {', '.join(map(str, HEAD_DIMS))}: vLLM on a CPU has "
            "attention kernels for these only, and would die at the first request. Choose a model with such heads."
        )


@dataclass
class _Shared:
    server: VllmServer
    users: int = 0
    timer: threading.Timer | None = field(default=None, repr=False)


_servers: dict[str, _Shared] = {}
_servers_lock = threading.Lock()


@contextlib.contextmanager
def _shared_server(model_dir: Path, serving: Serving, scratch: Path) -> Iterator[VllmServer]:
    key = hashlib.sha256(f"{model_dir.resolve()} {serving.model_dump_json()}".encode()).hexdigest()
    with _servers_lock:
        for other, shared in list(_servers.items()):
            if other != key and shared.users == 0:
                _drop(other)  # memory for the next one
        if key not in _servers:
            _servers[key] = _Shared(VllmServer(model_dir, serving, scratch))
        shared = _servers[key]
        shared.users += 1
        if shared.timer is not None:
            shared.timer.cancel()
    try:
        yield shared.server
    finally:
        with _servers_lock:
            shared.users -= 1
            if shared.users == 0:
                shared.timer = threading.Timer(serving.keep_alive_s, _stop_idle, [key])
                shared.timer.daemon = True
                shared.timer.start()


def _stop_idle(key: str) -> None:
    with _servers_lock:
        if key in _servers and _servers[key].users == 0:
            _drop(key)


def _drop(key: str) -> None:
    shared = _servers.pop(key)
    if shared.timer is not None:
        shared.timer.cancel()
    shared.server.stop()


@atexit.register
def stop_servers() -> None:
    """End every server of this process now."""
    with _servers_lock:
        for key in list(_servers):
            _drop(key)
