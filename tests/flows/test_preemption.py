"""A run survives the death of its process, of its worker, and of the whole machine (docs/operations.md)."""

import os
import signal

import psutil
import pytest

from flows.automations import SILENT_SECONDS, STILL_CRASHED_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LONG = {"changes": {"steps": 30, "pause": 1}}
RESTART_SECONDS = 120  # poll, two Python starts, the rest of the count, on a loaded machine


def names_of_task_states(server, run_id):
    found = server.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    return sorted(task["state_name"] for task in found)


def assert_went_on(server, run_id, record):
    final = server.wait_position(run_id, above=29)
    assert final["run_count"] == 2
    assert final["pid"] != record["pid"]
    artifacts = server.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
    report = next(artifact["data"] for artifact in artifacts if artifact["key"] == "toy-report")
    assert int(report.rsplit(" ", 1)[1]) >= record["position"], f"began again: {report}"


def test_a_killed_flow_process_is_rescheduled_and_goes_on_where_it_was(server):
    run_id = server.start("toy/tiny", LONG)
    record = server.wait_position(run_id, above=2)
    os.kill(record["pid"], signal.SIGKILL)
    server.wait(run_id, lambda run: run["state_name"] == "Crashed", timeout=60)
    server.wait(run_id, lambda run: run["state_name"] != "Crashed", timeout=STILL_CRASHED_SECONDS + 60)
    run = server.wait_completed(run_id, timeout=RESTART_SECONDS + 60)
    assert run["run_count"] == 2
    assert_went_on(server, run_id, record)
    assert names_of_task_states(server, run_id) == ["Completed", "Crashed"], "no task run shows as running for ever"


def test_a_worker_killed_with_its_flow_is_replaced_and_the_silent_run_found(server):
    run_id = server.start("toy/tiny", LONG)
    record = server.wait_position(run_id, above=2)
    worker = psutil.Process(record["pid"]).parent()
    assert worker is not None
    worker.kill()
    os.kill(record["pid"], signal.SIGKILL)
    crashed = server.wait(run_id, lambda run: run["state_name"] == "Crashed", timeout=SILENT_SECONDS + 90)
    assert "no heartbeat" in crashed["state"]["message"]
    server.wait(run_id, lambda run: run["state_name"] != "Crashed", timeout=STILL_CRASHED_SECONDS + 60)
    server.wait_completed(run_id, timeout=RESTART_SECONDS + 60)
    assert_went_on(server, run_id, record)


def test_after_a_power_cut_the_next_start_resumes_the_run(server_factory):
    server = server_factory()
    run_id = server.start("toy/tiny", LONG)
    record = server.wait_position(run_id, above=2)
    everything = [*psutil.Process(server.process.pid).children(recursive=True), psutil.Process(server.process.pid)]
    for process in reversed(everything):
        process.kill()
    server.process.communicate()
    assert len(everything) >= 4, "supervisor, server, worker and flow run"
    again = server_factory()
    assert again.wait_completed(run_id, timeout=RESTART_SECONDS + 60)["run_count"] == 2
    assert_went_on(again, run_id, record)


def test_ctrl_c_stops_everything_and_the_next_start_resumes_the_run(server_factory):
    server = server_factory()
    run_id = server.start("toy/tiny", LONG)
    record = server.wait_position(run_id, above=2)
    everything = psutil.Process(server.process.pid).children(recursive=True)
    assert server.stop() == 0
    assert not [process for process in everything if process.is_running()]
    again = server_factory()
    again.wait_completed(run_id, timeout=RESTART_SECONDS + 60)
    assert_went_on(again, run_id, record)


def test_a_run_that_someone_cancelled_stays_cancelled(server):
    run_id = server.start("toy/tiny", LONG)
    record = server.wait_position(run_id, above=2)
    server.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    run = server.wait(run_id, lambda run: run["state_type"] in {"CANCELLED", "CRASHED"}, timeout=90)
    assert run["state_type"] == "CANCELLED"
    assert not psutil.pid_exists(record["pid"])
