"""What the supervisor asks a server about interrupted runs; the real thing is in test_preemption.py (slow)."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flows.interrupted import Runs


class Api:
    """Answers like Prefect's API as far as this goes, and remembers what it was told."""

    def __init__(self) -> None:
        self.runs = {
            "a": {"state": "RUNNING", "tags": ["preemptible"]},
            "b": {"state": "COMPLETED", "tags": ["preemptible"]},
            "c": {"state": "RUNNING", "tags": []},
            "d": {"state": "PENDING", "tags": ["preemptible"]},
            "e": {"state": "CRASHED", "tags": ["preemptible"], "end_time": "2026-11-25T13:39:56+00:00"},
        }
        self.authorization: set[str | None] = set()

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/set_state"):
            self.runs[path.split("/")[-2]]["state"] = body["state"]["type"]
            assert body["force"] is True
            return {"status": "ACCEPT"}
        wanted = body["flow_runs"]
        return [
            {"id": key}
            for key, run in self.runs.items()
            if run["state"] in wanted["state"]["type"]["any_"]
            and set(wanted.get("tags", {}).get("all_", [])) <= set(run["tags"])
            and key in wanted.get("id", {}).get("any_", [key])
            and run.get("end_time", "") >= wanted.get("end_time", {}).get("after_", "")
        ]


@pytest.fixture
def api() -> Iterator[tuple[Api, str]]:
    fake = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fake.authorization.add(self.headers["Authorization"])
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(fake.answer(self.path, body)).encode())

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield fake, f"http://127.0.0.1:{server.server_address[1]}/api"
        server.shutdown()


def test_only_preemptible_runs_that_have_started_and_not_ended_are_found(api):
    assert Runs(api[1], None, "local").started() == ["a", "d"]


@pytest.mark.parametrize(("second", "found"), [(55, ["e"]), (57, [])])
def test_runs_that_a_starting_server_declared_dead_are_found(api, second, found):
    """Between its start and the first question it may see heartbeats that are too old."""
    moment = datetime(2026, 11, 25, 13, 39, second, tzinfo=UTC)
    assert Runs(api[1], None, "local").crashed_since(moment) == found


def test_they_are_queued_again_unless_they_ended_meanwhile(api):
    fake, url = api
    runs = Runs(url, None, "local")
    found = runs.started()
    fake.runs["d"]["state"] = "COMPLETED"
    fake.runs["a"]["state"] = "CRASHED"
    assert runs.queue_again(found, "stopped") == 1
    assert {key: run["state"] for key, run in fake.runs.items()} == {
        "a": "SCHEDULED",
        "b": "COMPLETED",
        "c": "RUNNING",
        "d": "COMPLETED",
        "e": "CRASHED",
    }


def test_nothing_to_queue_asks_nothing():
    assert Runs("http://127.0.0.1:1/api", None, "local").queue_again([], "stopped") == 0


def test_the_password_of_the_server_is_sent(api):
    fake, url = api
    Runs(url, "admin:secret", "local").started()
    assert fake.authorization == {"Basic YWRtaW46c2VjcmV0"}


def test_a_server_that_is_gone_is_an_oserror_which_the_caller_can_expect():
    with pytest.raises(OSError, match="refused"):
        Runs("http://127.0.0.1:1/api", None, "local").started()
