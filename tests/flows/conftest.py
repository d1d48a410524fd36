"""One real server for the tests of this folder: `python -m flows.server up` with the flow of tests/flows/toy."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).resolve().parent / "toy"
STARTUP_SECONDS = 300  # of server, deploy step and worker on a loaded machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class RunningServer:
    """What a test may ask of a running `make ui`."""

    url: str
    home: Path
    state: Path  # where the toy flow writes
    process: subprocess.Popen[str]
    env: dict[str, str]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = Request(f"{self.url}/api{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as response:
            return json.load(response)

    def get(self, path: str) -> Any:
        with urlopen(f"{self.url}/api{path}", timeout=60) as response:
            return json.load(response)

    def start(self, deployment: str, parameters: dict[str, Any] | None = None) -> str:
        found = self.get(f"/deployments/name/{deployment}")
        return self.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters or {}})["id"]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.get(f"/flow_runs/{run_id}")

    def wait(self, run_id: str, done: Callable[[dict[str, Any]], bool], timeout: float = 180) -> dict[str, Any]:
        """The run once `done(run)` holds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            run = self.run(run_id)
            if done(run):
                return run
            time.sleep(0.5)
        logs = "".join(path.read_text()[-3000:] for path in (self.home / "logs").glob("*.log"))
        pytest.fail(f"after {timeout} s the run is {self.run(run_id)['state']}\n{logs}")

    def wait_completed(self, run_id: str, timeout: float = 180) -> dict[str, Any]:
        run = self.wait(run_id, lambda run: run["state_type"] in {"COMPLETED", "FAILED", "CRASHED"}, timeout)
        assert run["state_type"] == "COMPLETED", run["state"]
        return run

    def wait_position(self, run_id: str, above: int = 0, timeout: float = 120) -> dict[str, Any]:
        """The toy flow's own record once it has counted beyond `above`."""
        path = self.state / f"{run_id}.json"
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if path.exists() and (text := path.read_text()) and (record := json.loads(text))["position"] > above:
                return record
            time.sleep(0.2)
        pytest.fail(f"{path} did not pass {above} within {timeout} s")

    def stop(self) -> int:
        """Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=120)
        return self.process.returncode


def start_server(folder: Path, project: Path = TOY, **env: str) -> RunningServer:
    """Start `flows.server up` with its state in `folder` (again, if it was there before)."""
    home, state, port = folder / "prefect", folder / "state", free_port()
    state.mkdir(parents=True, exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    full = clean | {"PYTHONPATH": str(ROOT), "TOY_STATE": str(state), "NESTLING_STORE": str(folder / "store")} | env
    command = [sys.executable, "-m", "flows.server", "up", "--port", str(port), "--home", str(home)]
    process = subprocess.Popen(
        [*command, "--project", str(project)],
        cwd=ROOT,
        env=full,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    deadline = time.monotonic() + STARTUP_SECONDS
    for line in process.stdout:
        said.append(line)
        if "Ctrl-C" in line:
            return RunningServer(f"http://127.0.0.1:{port}", home, state, process, full)
        if time.monotonic() > deadline:
            process.kill()
    process.communicate()
    pytest.fail("the server did not start:\n" + "".join(said))


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`make ui` as it is, with an empty store, or the one of NESTLING_TEST_STORE."""
    folder = tmp_path_factory.mktemp("real-ui")
    env = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "NESTLING_STORE": os.environ.get("NESTLING_TEST_STORE", str(folder / "store")),
    }
    running = start_server(folder, project=ROOT, **env)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the toy deployment, shared by the tests of one process."""
    running = start_server(tmp_path_factory.mktemp("make-ui"))
    yield running
    running.stop()


@pytest.fixture
def server_factory(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """For tests that kill servers: starts them with state in `tmp_path` and ends what is left."""
    started: list[RunningServer] = []

    def start(**kwargs: Any) -> RunningServer:
        started.append(start_server(tmp_path, **kwargs))
        return started[-1]

    yield start
    for running in started:
        running.stop()
