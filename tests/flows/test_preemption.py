"""A run survives the death of its process, of its worker, and of the whole machine (docs/operations.md)."""

import os
import signal
import time

import psutil
import pytest

from flows.automations import SILENT_SECONDS, STILL_CRASHED_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LONG = {"changes": {"steps": 30, "pause": 1}}
RESTART_SECONDS = 120  # poll, two Python starts, the rest of the count, on a loaded machine


def names_of_task_states(server, run_id):
    found = server.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    return sorted(task["state_name"] for task in found)


def cut_power(server):
    """kill -9 of everything at once; returns how many processes that were."""
    everything = [*psutil.Process(server.process.pid).children(recursive=True), psutil.Process(server.process.pid)]
    for process in reversed(everything):
        process.kill()
    server.process.communicate()
    return len(everything)


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
    assert cut_power(server) >= 4, "supervisor, server, worker and flow run"
    again = server_factory()
    assert again.wait_completed(run_id, timeout=RESTART_SECONDS + 60)["run_count"] == 2
    assert_went_on(again, run_id, record)


def test_a_resumed_run_is_not_taken_for_dead_by_its_heartbeats_before_the_power_cut(server_factory):
    server = server_factory()
    run_id = server.start("toy/tiny", {"changes": {"steps": 150, "pause": 1}})
    server.wait_position(run_id, above=2)
    cut_power(server)
    time.sleep(SILENT_SECONDS * 0.6)  # back in the queue before the last heartbeat is too old, running after it
    again = server_factory()
    again.wait_completed(run_id, timeout=RESTART_SECONDS + 150)
    states = [state["name"] for state in again.get(f"/flow_run_states/?flow_run_id={run_id}")]
    assert "Crashed" not in states[states.index("AwaitingRetry") :]


def test_a_run_that_crashed_just_before_the_power_cut_is_resumed(server_factory):
    server = server_factory()
    run_id = server.start("toy/tiny", LONG)
    record = server.wait_position(run_id, above=2)
    os.kill(record["pid"], signal.SIGKILL)
    server.wait(run_id, lambda run: run["state_name"] == "Crashed", timeout=60)
    cut_power(server)
    again = server_factory()
    assert again.wait_completed(run_id, timeout=RESTART_SECONDS + 60)["run_count"] == 2
    assert_went_on(again, run_id, record)


def test_after_a_power_cut_the_next_crash_is_mended_as_soon_as_any(server_factory):
    server = server_factory()
    run_id = server.start("toy/tiny", LONG)
    server.wait_position(run_id, above=2)
    cut_power(server)
    again = server_factory()
    record = again.wait_position(run_id, above=12)
    os.kill(record["pid"], signal.SIGKILL)
    again.wait(run_id, lambda run: run["state_name"] == "Crashed", timeout=60)
    again.wait(run_id, lambda run: run["state_name"] != "Crashed", timeout=STILL_CRASHED_SECONDS + 60)
    assert again.wait_completed(run_id, timeout=RESTART_SECONDS + 60)["run_count"] == 3


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
