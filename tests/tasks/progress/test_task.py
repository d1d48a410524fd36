"""The progress artifact of a Prefect task run."""

import time
from typing import Any
from uuid import UUID, uuid4

import pytest

import tasks.progress.task as progress_task
from tasks.progress import track
from tasks.progress.task import prefect_progress


class Server:
    """Stands in for the Prefect API: what was created and how often it was updated."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.updates: list[tuple[UUID, float, str]] = []
        self.id = uuid4()

    def create(self, **facts: Any) -> UUID:
        self.created.append(facts)
        return self.id

    def update(self, artifact_id: UUID, progress: float, description: str) -> UUID:
        self.updates.append((artifact_id, progress, description))
        return artifact_id


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    fake = Server()
    monkeypatch.setattr(progress_task, "create_progress_artifact", fake.create)
    monkeypatch.setattr(progress_task, "update_progress_artifact", fake.update)
    return fake


def test_outside_a_task_run_nothing_is_sent(server: Server):
    with prefect_progress("clean", "tiny-ja"), track("x", 2) as bar:
        bar.advance(2)
    assert server.created == []


def test_one_artifact_a_task_run_updated_every_five_seconds(server: Server, monkeypatch: pytest.MonkeyPatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress_task.TaskRunContext, "get", classmethod(lambda cls: object()))
    with prefect_progress("clean", "Tiny ja/2"), track("clean", 100, "pages") as bar:
        for _ in range(100):
            now[0] += 0.2
            bar.advance()
    (created,) = server.created
    assert created["key"] == "progress-clean-tiny-ja-2"
    assert created["progress"] == 1.0
    assert 4 <= len(server.updates) <= 5
    assert server.updates[-1][:2] == (server.id, 100.0)
    assert "100/100 pages" in server.updates[-1][2]


def test_a_server_that_does_not_answer_does_not_stop_the_work(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fails(**_: Any) -> UUID:
        raise ConnectionError("no route")

    monkeypatch.setattr(progress_task.TaskRunContext, "get", classmethod(lambda cls: object()))
    monkeypatch.setattr(progress_task, "create_progress_artifact", fails)
    with prefect_progress("clean", "x"), track("clean", 2) as bar:
        bar.advance(2)
    assert bar.done == 2
    assert "no route" in caplog.text
