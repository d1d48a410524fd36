"""What `make ui` refuses, how it maps settings, and that it leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.server import Place, check_exposure, check_port, database_url, main, settings
from flows.supervisor import Program, end_leftovers
from tasks.errors import ConfigError, HostFault

PLACE = Place("127.0.0.1", 4200, Path("/nowhere/prefect"))


def test_a_port_in_use_is_named_with_two_ways_out(capsys, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["up", "--port", str(port), "--home", str(tmp_path)]) == 78
    error = capsys.readouterr().err
    assert f"127.0.0.1:{port} cannot be used (Address already in use)" in error
    assert "make ui-down" in error
    assert f"make ui PORT={port + 1}" in error


def test_a_free_port_is_fine():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check_port(Place("127.0.0.1", port, Path()))


def test_a_second_supervisor_of_the_same_state_is_refused(capsys, tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import flows.server as s, time, pathlib; s._lock(pathlib.Path({str(tmp_path)!r}));"
         "print('held', flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert main(["up", "--home", str(tmp_path)]) == 78
        assert f"in use by process {holder.pid}" in capsys.readouterr().err
        assert main(["down", "--home", str(tmp_path)]) == 0
        assert holder.wait(10) == -signal.SIGTERM
    finally:
        holder.kill()
        holder.communicate()
    assert main(["down", "--home", str(tmp_path)]) == 0
    assert "nothing is running" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("postgresql+asyncpg://u:p@h:1/d", "postgresql+asyncpg://u:p@h:1/d"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("sqlite+aiosqlite:////tmp/x.db", "sqlite+aiosqlite:////tmp/x.db"),
    ],
)
def test_database_urls_get_the_asynchronous_driver(given, understood):
    assert database_url(given) == understood


def test_another_database_is_refused_without_showing_its_password():
    with pytest.raises(ConfigError, match=r"postgresql\+asyncpg") as error:
        database_url("mysql://user:secret@host/db")
    assert "secret" not in str(error.value)


def test_the_worker_never_sees_the_database_or_the_servers_secrets():
    environ = {
        "NESTLING_DATABASE_URL": "postgresql://u:p@h/d",
        "PREFECT_SERVER_API_AUTH_STRING": "admin:secret",
        "PREFECT_API_KEY": "pnu_x",
        "PREFECT_API_URL": "https://elsewhere/api",
    }
    server, client = settings(PLACE, environ)
    assert server["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == "postgresql+asyncpg://u:p@h/d"
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == client["PREFECT_API_AUTH_STRING"] == "admin:secret"
    assert client["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    hidden = {"NESTLING_DATABASE_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_SERVER_API_AUTH_STRING"}
    assert not (hidden | {"PREFECT_API_KEY"}) & set(client)


def test_nobody_is_told_about_the_use_of_this_software():
    server, client = settings(PLACE, {})
    assert server["DO_NOT_TRACK"] == client["DO_NOT_TRACK"] == "1"
    assert server["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert server["PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT"] == "false"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_loopback_needs_no_password(host):
    check_exposure(Place(host, 1, Path()), {})


def test_an_address_that_others_reach_needs_a_password():
    place = Place("0.0.0.0", 1, Path())
    with pytest.raises(ConfigError, match="run code on its workers"):
        check_exposure(place, {})
    check_exposure(place, {"PREFECT_SERVER_API_AUTH_STRING": "admin:secret"})


def gone(pid: int) -> bool:
    """Whether the process ends within ten seconds; one that nobody collects counts as ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def _program(tmp_path: Path, name: str, code: str) -> Program:
    return Program(name, [sys.executable, "-c", code], os.environ | {"MARK": str(tmp_path)}, tmp_path / name, tmp_path)


def test_a_program_that_keeps_ending_is_given_up_with_the_end_of_its_log(tmp_path):
    program = _program(tmp_path, "server", "print('no database'); raise SystemExit(3)")
    program.start()
    for attempt in range(6):
        assert program.process is not None
        program.process.wait()
        if attempt < 5:
            program.restart()
    with pytest.raises(HostFault, match=r"ended 6 times(.|\n)*last with code 3(.|\n)*no database"):
        program.restart()


def test_leftovers_are_found_by_their_environment_and_ended(tmp_path):
    ours = _program(tmp_path, "worker", "import time; time.sleep(60)")
    ours.start()
    assert end_leftovers("MARK", "another") == 0
    assert end_leftovers("MARK", str(tmp_path)) == 1
    assert ours.process is not None
    assert ours.process.wait(10) == -signal.SIGTERM


def test_when_the_supervisor_is_killed_its_programs_are_too(tmp_path):
    code = f"""
import os, pathlib, sys, time
from flows.supervisor import Program, Supervisor
folder = pathlib.Path({str(tmp_path)!r})
def sleeper(name):
    program = Program(name, [sys.executable, "-c", "import time; time.sleep(60)"], os.environ, folder / name, folder)
    program.start()
    return program
supervisor = Supervisor(sleeper("server"), sleeper("worker"))
print(supervisor.server.process.pid, supervisor.worker.process.pid, flush=True)
time.sleep(60)
"""
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    children = [psutil.Process(int(pid)) for pid in supervisor.stdout.readline().split()]
    assert len(children) == 2
    supervisor.kill()
    supervisor.communicate()
    assert all(gone(child.pid) for child in children)


def test_stop_ends_what_the_worker_started_and_what_a_dead_worker_left(tmp_path):
    code = f"""
import os, pathlib, sys, time
from flows.supervisor import Program, Supervisor
folder = pathlib.Path({str(tmp_path)!r})
parent = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
def program(name, code):
    made = Program(name, [sys.executable, "-c", code], os.environ, folder / name, folder)
    made.start()
    return made
worker = program("worker", parent + "print(p.pid, flush=True); time.sleep(60)")
supervisor = Supervisor(program("server", "import time; time.sleep(60)"), worker)
while not (folder / "worker").read_text():
    time.sleep(0.1)
left = int((folder / "worker").read_text())
worker.process.kill()
worker.process.wait()
worker.restart()
while len((folder / "worker").read_text().split()) < 2 or "starting" in (folder / "worker").read_text():
    time.sleep(0.1)
supervisor.stop()
print(*(folder / "worker").read_text().split())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    pids = [int(pid) for pid in done.stdout.splitlines()[-1].split()]
    assert len(pids) == 2
    assert "stopping 2 flow run(s)" in done.stdout
    assert all(gone(pid) for pid in pids)
