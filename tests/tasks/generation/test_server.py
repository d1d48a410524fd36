"""Our own server: starts when needed, is shared, survives its death, and says in one screen why it cannot start."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tasks.errors import ConfigError, HostFault
from tasks.generation import guard, server
from tasks.generation.answer_store import AnswerStore
from tasks.generation.answers import Policy, answer_all
from tasks.generation.requests import Answer, Request, Sampling
from tasks.generation.server import Serving, VllmServer, served, stop_servers

FAKE = Path(__file__).with_name("fake_vllm.py")
QUICK = Policy(start=4, most=4, backoff_s=0.01, backoff_most_s=0.05)


@pytest.fixture(autouse=True)
def _no_server_outlives_a_test():
    yield
    stop_servers()


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": 128, "num_attention_heads": 2}))
    return folder


@pytest.fixture
def lives(tmp_path, monkeypatch) -> Path:
    """A stand-in for vLLM's interpreter; each start adds a line to the file."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    python.chmod(0o755)
    log = tmp_path / "lives"
    monkeypatch.setenv("NESTLING_VLLM_PYTHON", str(python))
    monkeypatch.setenv("FAKE_VLLM_LIVES", str(log))
    monkeypatch.setattr(server, "GRACE_S", 0.2)
    return log


def starts(lives: Path) -> int:
    return len(lives.read_text().splitlines()) if lives.exists() else 0


def ask(generator, store: Path, prompts: list[str]) -> list[object]:
    requests = [Request("m@1", "completion", prompt, Sampling(max_tokens=1)) for prompt in prompts]
    return [reply for _, reply in answer_all(requests, generator, AnswerStore(str(store)), policy=QUICK)]


def test_nothing_starts_before_the_first_request_and_consecutive_users_share_one_server(tmp_path, model, lives):
    store = tmp_path / "store"
    with served(model, Serving(), tmp_path):
        pass
    assert starts(lives) == 0
    for prompts in (["a", "b"], ["c"], ["a", "c"]):  # the last is all in the store
        with served(model, Serving(), tmp_path) as generator:
            replies = ask(generator, store, prompts)
        assert [reply.text for reply in replies] == [f"<{prompt}>" for prompt in prompts]
    assert starts(lives) == 1


def test_the_server_stops_some_time_after_its_last_user(tmp_path, model, lives):
    with served(model, Serving(keep_alive_s=0.2), tmp_path) as generator:
        ask(generator, tmp_path / "store", ["a"])
    (pid,) = [int(line.split()[0]) for line in lives.read_text().splitlines()]
    until = time.monotonic() + 10
    while any(process.pid == pid for process in guard.processes()) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(process.pid == pid for process in guard.processes())


def test_another_model_takes_the_place_of_an_idle_one(tmp_path, model, lives):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_bytes((model / "config.json").read_bytes())
    for folder in (model, other):
        with served(folder, Serving(), tmp_path) as generator:
            ask(generator, tmp_path / "store", [folder.name])
    assert len(server._servers) == 1
    assert starts(lives) == 2


def test_a_server_that_dies_in_the_middle_is_restarted_and_the_stage_finishes(tmp_path, model, lives, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "crash:6")
    prompts = [str(i) for i in range(30)]
    with served(model, Serving(), tmp_path) as generator:
        replies = ask(generator, tmp_path / "store", prompts)
    assert [reply.text for reply in replies if isinstance(reply, Answer)] == [f"<{prompt}>" for prompt in prompts]
    assert starts(lives) == 3


def test_kill_9_of_the_server_between_requests_is_survived(tmp_path, model, lives):
    with served(model, Serving(), tmp_path) as generator:
        ask(generator, tmp_path / "store", ["a"])
        os.kill(int(lives.read_text().split()[0]), signal.SIGKILL)
        (reply,) = ask(generator, tmp_path / "store", ["b"])
    assert reply.text == "<b>"
    assert starts(lives) == 2


def test_a_server_that_keeps_dying_ends_the_run_and_keeps_the_answers(tmp_path, model, lives, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "crash:3")
    store = tmp_path / "store"
    with served(model, Serving(max_restarts=0), tmp_path) as generator, pytest.raises(HostFault, match="died 1 times"):
        ask(generator, store, [str(i) for i in range(30)])
    kept = len(list(store.rglob("*.json")))
    assert kept >= 1
    monkeypatch.delenv("FAKE_VLLM")
    stop_servers()
    with served(model, Serving(), tmp_path) as generator:
        assert len(ask(generator, store, [str(i) for i in range(30)])) == 30


def test_death_at_start_shows_the_last_lines_the_reason_and_the_remedy(tmp_path, model, lives, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "die")
    with VllmServer(model, Serving(), tmp_path) as server, pytest.raises(HostFault) as caught:
        server.ensure()
    message = str(caught.value)
    assert "ended with code 3" in message
    assert "ValueError: no such architecture" in message
    assert "make vllm" in message
    assert str(tmp_path / "server.log") in message
    assert message.count("\n") < 24  # one screen
    assert starts(lives) == 1


def test_a_server_that_is_killed_while_it_starts_is_started_again(tmp_path, model, lives, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "killed:2")
    with VllmServer(model, Serving(), tmp_path) as server:
        assert server.ensure().startswith("http://127.0.0.1:")
    assert starts(lives) == 3


def test_a_server_that_is_killed_at_every_start_is_given_up(tmp_path, model, lives, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "killed:9")
    with VllmServer(model, Serving(), tmp_path) as server, pytest.raises(HostFault, match="ended with code 137"):
        server.ensure()
    assert starts(lives) == 3


def test_a_server_that_is_not_ready_in_time_is_stopped_and_said(tmp_path, model, lives, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "never")
    with VllmServer(model, Serving(start_timeout_s=1.5), tmp_path) as server:
        with pytest.raises(HostFault, match=r"(?s)not ready after.*still loading.*start_timeout_s higher"):
            server.ensure()
        pid = int(lives.read_text().split()[0])
        assert not any(process.pid == pid for process in guard.processes())


def test_a_race_for_the_port_is_run_again_on_another_port(tmp_path, model, lives, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "taken")
    with VllmServer(model, Serving(), tmp_path) as server:
        assert server.ensure().startswith("http://127.0.0.1:")
    assert starts(lives) == 2


def test_a_wanted_port_that_is_taken_is_an_error_before_anything_starts(tmp_path, model, lives):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            VllmServer(model, Serving(port=port), tmp_path) as server,
            pytest.raises(ConfigError, match=rf"serving.port={port}.*serving.port=0"),
        ):
            server.ensure()
    assert starts(lives) == 0


def test_the_server_keeps_compiled_modules_also_where_the_environment_says_not_to(tmp_path, model, lives, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    with served(model, Serving(), tmp_path) as generator:
        ask(generator, tmp_path / "store", ["a"])
        (pid,) = [int(line.split()[0]) for line in lives.read_text().splitlines()]
        assert b"PYTHONDONTWRITEBYTECODE" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_without_the_serving_environment_the_error_says_make_vllm(tmp_path, model, monkeypatch):
    monkeypatch.setenv("NESTLING_VLLM_PYTHON", str(tmp_path / "absent"))
    with VllmServer(model, Serving(), tmp_path) as server, pytest.raises(ConfigError, match="make vllm"):
        server.ensure()


@pytest.mark.parametrize(("head_dim", "is_served"), [(16, False), (64, True), (72, False), (256, True)])
def test_heads_without_a_kernel_are_refused_at_start_not_at_the_first_request(
    tmp_path, model, lives, head_dim, is_served
):
    (model / "config.json").write_text(json.dumps({"head_dim": head_dim}))
    with VllmServer(model, Serving(), tmp_path) as server:
        if is_served:
            server.ensure()
        else:
            with pytest.raises(ConfigError, match=f"head_dim={head_dim}"):
                server.ensure()


def test_leftovers_of_a_run_that_died_are_killed_at_the_next_start(tmp_path, model, lives):
    first = VllmServer(model, Serving(), tmp_path)
    first.ensure()
    assert first._process is not None
    os.kill(first._process.pid, signal.SIGKILL)  # the guard; the server is told by the kernel or swept
    first._process.wait()
    with VllmServer(model, Serving(), tmp_path) as second:
        second.ensure()
        pids = [int(line.split()[0]) for line in lives.read_text().splitlines()]
        living = {process.pid for process in guard.processes()}
        assert pids[0] not in living
        assert pids[1] in living


def test_how_a_model_is_served_is_not_part_of_any_fingerprint():
    from tasks.instruct.config import InstructConfig
    from tasks.synth.config import SynthConfig

    synth = SynthConfig(documents="d", teacher="t", recipe="qa", language="en", max_requests=1)
    instruct = InstructConfig(teacher="t", language="en", num_prompts=1)
    for config in (synth, instruct):
        changed = config.with_changes({"serving.url": "http://elsewhere", "serving.dtype": "float32"})
        assert changed.semantic() == config.semantic()
        assert "serving" not in config.semantic()
