"""The real thing: SmolLM2-135M-Instruct from its package, behind a real vLLM server, killed in the middle."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.teachers import SMOLLM2
from tasks.artifact import Artifact, produce
from tasks.errors import HostFault
from tasks.generation import guard
from tasks.generation.answer_store import AnswerStore
from tasks.generation.answers import Policy, Tally, answer_all
from tasks.generation.completions import HttpGenerator
from tasks.generation.requests import Answer, DeadLetter, Request, Sampling
from tasks.generation.server import ROOT, Serving, VllmServer
from tasks.teacher.stage import TEACHER

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.timeout(1800)]
POLICY = Policy(start=32, most=64, backoff_s=0.2)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Artifact:
    if not (ROOT / ".venv-vllm" / "bin" / "python").exists():
        pytest.skip("no .venv-vllm: make vllm")
    store = tmp_path_factory.mktemp("teacher")
    try:
        config = SMOLLM2.with_changes({"cache_dir": str(ROOT / ".cache" / "teachers")})
        return produce(str(store), TEACHER, "smollm2", config, {})
    except HostFault as error:
        pytest.skip(f"no package index: {error}")


@pytest.fixture(scope="module")
def server(teacher, tmp_path_factory) -> Iterator[VllmServer]:
    with VllmServer(teacher.local_dir("model"), Serving(), tmp_path_factory.mktemp("server")) as running:
        running.ensure()
        yield running


def ask(server: VllmServer, store: Path, requests: list[Request]) -> list[Answer | DeadLetter]:
    generator = HttpGenerator(server, timeout_s=600)
    return [reply for _, reply in answer_all(requests, generator, AnswerStore(str(store)), policy=POLICY)]


def chat(content: str, **sampling: object) -> Request:
    return Request("smollm2@1", "chat", (("user", content),), Sampling(max_tokens=24, **sampling))  # type: ignore[arg-type]


def server_processes(server: VllmServer) -> list[int]:
    assert server._process is not None
    return guard._descendants(guard.processes(), server._process.pid)


def named(pids: list[int], name: str) -> int:
    return next(pid for pid in pids if name in Path(f"/proc/{pid}/cmdline").read_text())


def test_the_converted_teacher_answers_as_it_should(server, tmp_path):
    (answer,) = ask(server, tmp_path, [chat("What is the capital of Japan?")])
    assert isinstance(answer, Answer)
    assert answer.text == "The capital of Japan is Tokyo."
    assert answer.finish == "stop"
    assert answer.prompt_tokens > 20  # the template's own system turn is there


def test_a_score_prefers_the_true_sentence(server, tmp_path):
    requests = [
        Request("smollm2@1", "score", f"The capital of France is{city}.", Sampling(max_tokens=1))
        for city in (" Paris", " banana")
    ]
    true, false = ask(server, tmp_path, requests)
    assert isinstance(true, Answer)
    assert isinstance(false, Answer)
    assert true.logprobs is not None
    assert false.logprobs is not None
    assert len(true.logprobs) == true.prompt_tokens - 1
    assert sum(true.logprobs) > sum(false.logprobs) + 2


def test_many_long_seeded_prompts_do_not_bring_the_server_down(server, tmp_path):
    """vLLM 0.32 on a CPU dies when it splits the prompt of a seeded request; we tell it not to split."""
    text = "The mail server keeps every message until it is read. " * 40
    requests = [
        Request("smollm2@1", "completion", f"{i} {text}", Sampling(max_tokens=4, temperature=1.0, seed=i))
        for i in range(24)
    ]
    before = len(server._starts)
    assert all(isinstance(reply, Answer) for reply in ask(server, tmp_path, requests))
    assert len(server._starts) == before


@pytest.mark.parametrize("victim", ["VLLM::EngineCore", "VLLM::Worker", "api_server"])
def test_kill_9_of_any_server_process_in_the_middle_is_survived(server, tmp_path, victim):
    requests = [chat(f"Write a line about the number {i}.", temperature=1.0, seed=i) for i in range(40)]
    tally = Tally()
    generator = HttpGenerator(server, timeout_s=600)
    store = AnswerStore(str(tmp_path))
    replies = answer_all(requests, generator, store, policy=Policy(start=8, most=8), tally=tally)
    found = [next(replies)[1] for _ in range(6)]
    os.kill(named(server_processes(server), victim), signal.SIGKILL)
    found += [reply for _, reply in replies]
    assert len(found) == 40
    assert all(isinstance(reply, Answer) for reply in found)
    assert tally.retries["unreachable"] <= 2 * 8  # those in flight, and what knocked before it was back


FLOW = """
import sys, time
from pathlib import Path
from tasks.generation.server import Serving, VllmServer
server = VllmServer(Path(sys.argv[1]), Serving(), Path(sys.argv[2]))
print(server.ensure(), flush=True)
time.sleep(600)
"""


def test_when_the_flow_is_killed_no_process_of_the_server_stays(teacher, tmp_path):
    command = [sys.executable, "-c", FLOW, str(teacher.local_dir("model")), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as flow:
        assert flow.stdout is not None
        assert flow.stdout.readline().startswith("http://")
        family = guard._descendants(guard.processes(), flow.pid)
        assert len(family) >= 4
        flow.kill()
        flow.wait()
    end = time.monotonic() + 15
    while time.monotonic() < end and {process.pid for process in guard.processes()} & set(family):
        time.sleep(0.1)
    assert not {process.pid for process in guard.processes()} & set(family)


def test_the_example_runs_and_its_second_run_asks_nothing(server, teacher, tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "magpie_tiny.py"), "--prompts", "6", "--store", str(tmp_path)]
    runs = [
        subprocess.run(
            [*command, "--url", server.ensure()], capture_output=True, text=True, cwd=ROOT, check=True
        ).stdout
        for _ in range(2)
    ]
    assert runs[0].count("user:") == 6
    assert "0 asked now" in runs[1]
    assert runs[0].rpartition("{")[0] == runs[1].rpartition("{")[0]
