"""`make ui` on a real PostgreSQL: one variable, and runs, deployments and automations live there."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))

pytestmark = pytest.mark.skipif(not BINARIES, reason="needs Debian's PostgreSQL: apt-get install postgresql")


@dataclass
class Postgres:
    """A database server of its own on a port of its own."""

    url: str
    socket_dir: Path
    port: int
    user: list[str]  # how to run a program as the user that owns the cluster

    def query(self, sql: str) -> str:
        command = [str(BINARIES[-1].with_name("psql")), "-h", str(self.socket_dir), "-p", str(self.port)]
        arguments = ["-U", "nestling", "-d", "prefect", "-Atc", sql]
        return subprocess.run(
            [*self.user, *command, *arguments], check=True, capture_output=True, text=True, cwd="/"
        ).stdout.strip()


def _as_other_user() -> tuple[list[str], tuple[int, int] | None]:
    """PostgreSQL refuses root: as root, the unprivileged user of Debian's package owns the cluster."""
    if os.getuid() != 0:
        return [], None
    owner = next((name for name in ("postgres", "nobody") if _exists(name)), None)
    if owner is None or shutil.which("setpriv") is None:
        pytest.skip("running as root without an unprivileged user or setpriv for PostgreSQL")
    entry = pwd.getpwnam(owner)
    ids = [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "--"], (entry.pw_uid, entry.pw_gid)


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    user, ids = _as_other_user()
    folder = Path(tempfile.mkdtemp(prefix="nestling-pg-", dir="/tmp"))  # socket paths are limited to 107 bytes
    if ids:
        os.chown(folder, *ids)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binaries = BINARIES[-1].parent
    data = folder / "data"

    def run(*command: str) -> None:
        done = subprocess.run([*user, *command], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr

    run(str(binaries / "initdb"), "-D", str(data), "-U", "nestling", "--auth=trust", "-E", "UTF8", "--no-sync")
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    run(str(binaries / "pg_ctl"), "-D", str(data), "-w", "-o", options, "-l", str(folder / "log"), "start")
    try:
        run(str(binaries / "createdb"), "-h", str(folder), "-p", str(port), "-U", "nestling", "prefect")
        yield Postgres(f"postgresql://nestling@127.0.0.1:{port}/prefect", folder, port, user)
    finally:
        run(str(binaries / "pg_ctl"), "-D", str(data), "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.mark.slow
def test_deployments_runs_and_automations_live_in_postgres(postgres, server_factory):
    server = server_factory(NESTLING_DATABASE_URL=postgres.url)
    run_id = server.start("toy/tiny", {"changes": {"steps": 3, "pause": 0}})
    server.wait_completed(run_id)
    assert postgres.query(f"SELECT state_type FROM flow_run WHERE id = '{run_id}'") == "COMPLETED"
    assert postgres.query("SELECT name FROM deployment") == "tiny"
    assert postgres.query("SELECT name FROM automation ORDER BY name") == "crash-zombies\nreschedule-crashed"
    assert postgres.query("SELECT count(*) FROM artifact") == "2"
    assert not list(server.home.glob("*.db")), "no SQLite beside it"
    assert server.stop() == 0
