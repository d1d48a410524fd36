"""What the supervisor asks a server about interrupted runs; the real thing is in test_preemption.py (slow)."""

import json
import threading
from collections.abc import Iterator
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
            "e": {"state": "CRASHED", "tags": ["preemptible"]},
            "f": {"state": "CRASHED", "tags": []},
        }
        self.told: list[tuple[str, str]] = []
        self.authorization: set[str | None] = set()

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/set_state"):
            key = path.split("/")[-2]
            self.runs[key]["state"] = body["state"]["type"]
            assert body["force"] is True
            self.told.append(("state", key))
            return {"status": "ACCEPT"}
        if path.endswith("/events"):
            self.told += [(event["id"], event["resource"]["prefect.resource.id"]) for event in body]
            return None
        wanted = body["flow_runs"]
        return [
            {"id": key, "state_id": f"state of {key}"}
            for key, run in self.runs.items()
            if run["state"] in wanted["state"]["type"]["any_"]
            and set(wanted.get("tags", {}).get("all_", [])) <= set(run["tags"])
            and key in wanted.get("id", {}).get("any_", [key])
        ]


@pytest.fixture
def api() -> Iterator[tuple[Api, str]]:
    fake = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            fake.authorization.add(self.headers["Authorization"])
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = fake.answer(self.path, body)
            self.send_response(204 if answer is None else 200)
            self.end_headers()
            if answer is not None:
                self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield fake, f"http://127.0.0.1:{server.server_address[1]}/api"
        server.shutdown()


def test_only_preemptible_runs_that_have_started_and_not_ended_are_found(api):
    assert Runs(api[1], None, "local").started() == ["a", "d"]


def test_crashed_runs_are_found_if_they_may_be_started_again(api):
    assert Runs(api[1], None, "local").crashed() == ["e"]


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
        "f": "CRASHED",
    }


def test_the_server_is_shown_the_state_before_so_that_it_believes_the_next(api):
    fake, url = api
    Runs(url, None, "local").queue_again(["a"], "stopped")
    assert fake.told == [("state of a", "prefect.flow-run.a"), ("state", "a")]


def test_nothing_to_queue_asks_nothing():
    assert Runs("http://127.0.0.1:1/api", None, "local").queue_again([], "stopped") == 0


def test_the_password_of_the_server_is_sent(api):
    fake, url = api
    Runs(url, "admin:secret", "local").started()
    assert fake.authorization == {"Basic YWRtaW46c2VjcmV0"}


def test_a_server_that_is_gone_is_an_oserror_which_the_caller_can_expect():
    with pytest.raises(OSError, match="refused"):
        Runs("http://127.0.0.1:1/api", None, "local").started()
