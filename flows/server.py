"""`python -m flows.server up|down|deploy`: a Prefect server, a worker and every deployment on this machine.

One supervising process starts the server and the worker, restarts what dies, and stops all of it, flow runs
included, when it ends. Should it be killed, the kernel tells its children (PR_SET_PDEATHSIG). State lives in
`.nestling/prefect`. This module does not import Prefect: its settings must be in the environment before that.
"""

import argparse
import contextlib
import fcntl
import http.client
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from flows.interrupted import Runs
from flows.supervisor import Program, Supervisor, end_leftovers, tail
from tasks.errors import ConfigError, HostFault, NestlingError

ROOT = Path(__file__).resolve().parent.parent
POOL = "local"
DATABASE = "NESTLING_DATABASE_URL"
STARTUP_SECONDS = 180  # the first start migrates the database and compiles bytecode: 15 s here, minutes when loaded
OWNER = "NESTLING_SUPERVISOR"  # in the environment of everything this starts
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Place:
    """Where the server listens and where its state lives."""

    host: str
    port: int
    home: Path
    project: Path = ROOT  # the directory of prefect.yaml

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def logs(self) -> Path:
        return self.home / "logs"


def database_url(text: str) -> str:
    """The connection URL that Prefect's server understands.

    Raises:
        ConfigError: neither PostgreSQL nor SQLite with their asynchronous drivers.
    """
    for short in ("postgres://", "postgresql://"):
        if text.startswith(short):
            return text.replace(short, "postgresql+asyncpg://", 1)
    if text.startswith(("postgresql+asyncpg://", "sqlite+aiosqlite://")):
        return text
    raise ConfigError(
        f"{DATABASE}={text.split('://')[0]}://… is not a database of Prefect's server: it speaks "
        "asynchronous PostgreSQL or SQLite only. Write postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE, "
        "or unset it for SQLite."
    )


def settings(place: Place, environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The environments of the server and of its clients (deploy step, worker and with it the flow runs)."""
    auth = environ.get("PREFECT_SERVER_API_AUTH_STRING") or environ.get("PREFECT_API_AUTH_STRING")
    secret = {DATABASE, "PREFECT_API_KEY", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_DATABASE_CONNECTION_URL"}
    client = {key: value for key, value in environ.items() if key not in secret} | {
        "DO_NOT_TRACK": "1",
        OWNER: str(place.home),
        "NESTLING_ROOT": str(place.project),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}",
        "PREFECT_API_URL": f"{place.url}/api",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # HEARTBEAT_SECONDS of flows/automations.py, which imports Prefect
        "PREFECT_HOME": str(place.home),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PYTHONUNBUFFERED": "1",
    }
    server = client | {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    if environ.get(DATABASE):
        server["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database_url(environ[DATABASE])
    if auth:
        client["PREFECT_API_AUTH_STRING"] = auth
        server |= {"PREFECT_API_AUTH_STRING": auth, "PREFECT_SERVER_API_AUTH_STRING": auth}
    return server, client


def check_port(place: Place) -> None:
    """Refuse a port that is taken, before anything starts.

    Raises:
        ConfigError: with the way out.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((place.host, place.port))
        except OSError as error:
            raise ConfigError(
                f"{place.host}:{place.port} cannot be used ({error.strerror}): the server needs an address and port of "
                "its own. If it is an earlier `make ui`, stop it with `make ui-down`; otherwise choose another port: "
                f"make ui PORT={place.port + 1}"
            ) from error


def check_exposure(place: Place, environ: Mapping[str, str]) -> None:
    """Refuse to listen beyond this machine without a password.

    Raises:
        ConfigError: whoever reaches the API can run code on the workers.
    """
    loopback = place.host in ("localhost", "::1") or place.host.startswith("127.")
    if not loopback and not environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        raise ConfigError(
            f"host {place.host} is reachable from other machines and PREFECT_SERVER_API_AUTH_STRING is not set: "
            "whoever reaches this API can run code on its workers. Set PREFECT_SERVER_API_AUTH_STRING=user:password, "
            "or stay on 127.0.0.1 (docs/operations.md, Security)."
        )


def wait_healthy(place: Place, server: Program) -> None:
    """Return when the API answers.

    Raises:
        HostFault: the server ended or did not answer in time; with the end of its log.
    """
    deadline = time.monotonic() + STARTUP_SECONDS
    where = urlsplit(place.url)
    while time.monotonic() < deadline and server.alive:
        connection = http.client.HTTPConnection(where.hostname or place.host, place.port, timeout=5)
        try:
            connection.request("GET", "/api/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.3)
    state = f"did not answer within {STARTUP_SECONDS} s" if server.alive else "ended while starting"
    raise HostFault(
        f"the Prefect server {state}. The end of {server.log}:\n{tail(server.log)}\n"
        f"If it speaks of the database, check {DATABASE}; {place.home} can be moved away to start afresh."
    )


def deploy(place: Place, env: Mapping[str, str]) -> None:
    """Pools, deployments and automations onto the running server, in a process of its own.

    Raises:
        HostFault: with what it printed.
    """
    command = [sys.executable, "-m", "flows.deploy", str(place.project)]
    done = subprocess.run(command, cwd=ROOT, env=dict(env), capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostFault(f"deploying prefect.yaml failed:\n{(done.stdout + done.stderr)[-3000:]}")
    print(done.stdout.strip(), flush=True)


def _lock(home: Path) -> int:
    """Hold the state directory for the life of this process.

    Raises:
        ConfigError: another supervisor holds it.
    """
    handle = os.open(home / "supervisor.pid", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigError(
            f"{home} is in use by process {_holder(home)}: two servers on one database would both act on each run. "
            "Use the one that runs (`make ui-down` stops it), or another directory: make ui NESTLING_PREFECT_HOME=DIR"
        ) from error
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle


def _holder(home: Path) -> str:
    return (home / "supervisor.pid").read_text().strip() or "unknown"


def up(place: Place) -> int:
    """Start everything and stay until told to stop."""
    check_exposure(place, os.environ)
    server_env, client_env = settings(place, os.environ)
    place.logs.mkdir(parents=True, exist_ok=True)
    place.home.chmod(0o700)
    _lock(place.home)
    end_leftovers(OWNER, str(place.home))
    check_port(place)
    for number in SIGNALS:
        signal.signal(number, _stop)
    prefect = [sys.executable, "-m", "prefect"]
    serve = [*prefect, "server", "start", "--host", place.host, "--port", str(place.port)]
    work = [*prefect, "worker", "start", "--pool", POOL, "--name", f"nestling-{platform.node()}"]
    server = Program("server", serve, server_env, place.logs / "server.log", place.project)
    worker = Program("worker", work, client_env, place.logs / "worker.log", place.project)
    supervisor = Supervisor(server, worker)
    runs = Runs(f"{place.url}/api", client_env.get("PREFECT_API_AUTH_STRING"), POOL)
    try:
        database = server_env.get("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite")
        print(f"starting the Prefect server ({'PostgreSQL' if 'postgres' in database else 'SQLite'}) …", flush=True)
        server.start()
        wait_healthy(place, server)
        interrupted = runs.started()  # asked before the automations call them dead, which they do after 90 s
        print("deploying prefect.yaml …", flush=True)
        deploy(place, client_env)
        interrupted = sorted({*interrupted, *runs.crashed()})
        if count := runs.queue_again(interrupted, "its machine stopped; resumed by make ui"):
            print(f"{count} run(s) were interrupted when this machine stopped; they go on now", flush=True)
        worker.start()
        print(welcome(place), flush=True)
        for _ in supervisor.keep():
            pass
    except KeyboardInterrupt:
        pass
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        pause(supervisor, runs)
        print(f"stopped; state is kept in {place.home}", flush=True)
    return 0


def pause(supervisor: Supervisor, runs: Runs) -> None:
    """Stop everything; runs that were cut short wait in the queue for the next `make ui`."""
    interrupted: list[str] = []
    with contextlib.suppress(OSError):
        interrupted = runs.started()
    supervisor.stop_work()
    with contextlib.suppress(OSError):  # a server that is gone cannot be told; the next start finds them
        if count := runs.queue_again(interrupted, "paused: make ui was stopped"):
            print(f"{count} run(s) wait for the next `make ui`; cancel them there to end them for good", flush=True)
    supervisor.stop()


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def welcome(place: Place) -> str:
    prefect = Path(sys.executable).parent / "prefect"
    return f"""
  UI      {place.url}
  logs    {place.logs}
  shell   export PREFECT_API_URL={place.url}/api
          {os.path.relpath(prefect)} deployment run cpt/tiny --watch
  Ctrl-C (or `make ui-down` in another terminal) stops the server, the worker and their flow runs.
"""


def down(place: Place) -> int:
    """Stop the supervisor of this state directory, wherever it runs."""
    path = place.home / "supervisor.pid"
    if not path.exists():
        print("nothing is running")
        return 0
    with path.open("r+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.kill(int(_holder(place.home)), signal.SIGTERM)
            fcntl.flock(handle, fcntl.LOCK_EX)  # granted when it has stopped everything
            print("stopped")
        else:
            print("nothing is running")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.server", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("command", choices=("up", "down", "deploy"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4200)
    home = os.environ.get("NESTLING_PREFECT_HOME") or ROOT / ".nestling" / "prefect"
    parser.add_argument("--home", type=Path, default=Path(home), help="state of the server: database, logs")
    parser.add_argument("--project", type=Path, default=ROOT, help="directory of prefect.yaml")
    args = parser.parse_args(argv)
    place = Place(args.host, args.port, args.home.absolute(), args.project.absolute())
    try:
        if args.command == "up":
            return up(place)
        if args.command == "down":
            return down(place)
        deploy(place, settings(place, os.environ)[1])
    except NestlingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
