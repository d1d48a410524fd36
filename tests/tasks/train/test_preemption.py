"""Notices: heard from whoever speaks first, through whatever a server does, and free where there is none."""

import http.client
import os
import socket
import threading
import time

import pytest

from tasks.train import preemption
from tasks.train.preemption import HOST_VARIABLE, Notices, metadata_host, watch, watch_file, watch_key
from tests.tasks.train.fake_metadata import FakeMetadata


@pytest.fixture
def fake():
    with FakeMetadata() as server:
        yield server


def wait_for(condition, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.01)


def watched(
    host: str, key: str = "preempted", is_end=preemption._is_true, **options
) -> tuple[Notices, threading.Thread]:
    notices = Notices()
    options = {"wait_s": 20.0, "backoff": lambda failures: 0.02} | options
    thread = threading.Thread(target=watch_key, args=(host, key, is_end, notices.tell), kwargs=options, daemon=True)
    thread.start()
    return notices, thread


def test_the_server_is_asked_once_and_waits_until_something_changes(fake):
    notices, thread = watched(fake.host)
    wait_for(lambda: len(fake.requests) == 2)
    assert "wait_for_change=true" in fake.requests[0]
    assert "last_etag=0" in fake.requests[0], "the first answer comes at once"
    assert "last_etag=FALSE" in fake.requests[1], "the next one when the value is another"
    time.sleep(0.3)
    assert len(fake.requests) == 2
    fake.set("preempted", "TRUE")
    thread.join(10)
    assert notices.first is not None
    assert notices.first.reason == "Google Compute Engine says preempted=TRUE"


@pytest.mark.parametrize(
    ("event", "is_told"),
    [("TERMINATE_ON_HOST_MAINTENANCE", True), ("MIGRATE_ON_HOST_MAINTENANCE", False), ("NONE", False)],
)
def test_only_events_that_end_the_machine_count(event, is_told):
    assert preemption._is_terminate(event) is is_told


def test_both_keys_are_watched_where_the_environment_names_a_server(fake, monkeypatch):
    monkeypatch.setenv(HOST_VARIABLE, fake.host)
    notices = Notices()
    watch(notices)
    wait_for(lambda: {path.split("?")[0].rpartition("/")[2] for path in fake.requests} == fake.values.keys())
    fake.set("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE")
    wait_for(lambda: any("last_etag=MIGRATE" in path for path in fake.requests))
    assert not notices.is_told()
    fake.set("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    wait_for(notices.is_told)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(["drop", "503"], id="fails at first"),
        pytest.param(["", "drop", "503", "drop", "503", "drop"], id="fails for long after it answered"),
        pytest.param(["slow"], id="is slow"),
        pytest.param(["", "hasty", "hasty"], id="does not wait for a change"),
    ],
)
def test_a_server_that_misbehaves_is_asked_again(fake, trouble):
    fake.trouble = list(trouble)
    notices, thread = watched(fake.host)
    wait_for(lambda: not fake.trouble)
    fake.set("preempted", "TRUE")
    thread.join(20)
    assert notices.is_told()


def test_a_server_that_answers_without_waiting_is_not_asked_without_pause(fake):
    fake.trouble = ["hasty"] * 100
    watched(fake.host)
    time.sleep(1.5)
    assert len(fake.requests) <= 4


@pytest.mark.parametrize(
    ("trouble", "requests"),
    [
        pytest.param(["404"], 1, id="has no such key"),
        pytest.param(["stranger"], 1, id="is not Google's"),
        pytest.param(["drop"] * 9, preemption.TRIES, id="never answers"),
        pytest.param(["503"] * 9, preemption.TRIES, id="is out of order from the start"),
    ],
)
def test_a_server_without_notices_is_left_alone_for_good(fake, trouble, requests):
    fake.trouble = list(trouble)
    notices, thread = watched(fake.host)
    thread.join(10)
    assert not thread.is_alive()
    assert (len(fake.requests), notices.is_told()) == (requests, False)


def test_nobody_at_the_address_is_found_out_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
        notices, thread = watched(host)
        thread.join(10)
    assert not thread.is_alive()
    assert not notices.is_told()


@pytest.mark.parametrize(
    ("product", "host"),
    [("Google Compute Engine\n", preemption.HOST), ("Standard PC\n", None), (None, None)],
)
def test_elsewhere_nobody_is_asked_at_all(tmp_path, monkeypatch, product, host):
    monkeypatch.delenv(HOST_VARIABLE, raising=False)
    monkeypatch.setattr(preemption, "PRODUCT", tmp_path / "product_name")
    if product is not None:
        (tmp_path / "product_name").write_text(product)
    assert metadata_host() == host
    if host is None:
        monkeypatch.setattr(http.client, "HTTPConnection", lambda *_, **__: pytest.fail("asked"))
        before = threading.active_count()
        watch(Notices())
        assert threading.active_count() == before


@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_counts_when_it_is_written_from_now_on(tmp_path, is_there):
    path = tmp_path / "go"
    if is_there:
        path.write_text("old")
    notices = Notices()
    thread = threading.Thread(target=watch_file, args=(path, notices.tell), kwargs={"every_s": 0.01}, daemon=True)
    thread.start()
    time.sleep(0.2)
    assert not notices.is_told(), "one of another time says nothing"
    path.write_text("new and longer")
    os.utime(path)
    thread.join(10)
    assert notices.first is not None
    assert notices.first.reason == f"{path} appeared"


def test_the_first_notice_counts_and_its_grace_runs_down():
    notices = Notices()
    assert (notices.first, notices.left(30.0)) == (None, 30.0)
    notices.tell("SIGTERM")
    notices.tell("later")
    assert notices.first is not None
    assert notices.first.reason == "SIGTERM"
    time.sleep(0.05)
    assert 29.0 < notices.left(30.0) <= 29.95
