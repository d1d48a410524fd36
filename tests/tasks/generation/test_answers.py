"""The request engine against a real loopback server: nothing asked twice, nothing lost, everything counted."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import HostFault
from tasks.generation.answer_store import AnswerStore
from tasks.generation.answers import Policy, Tally, answer_all
from tasks.generation.completions import GivenServer, HttpGenerator
from tasks.generation.requests import Answer, DeadLetter, Request, Sampling
from tests.tasks.generation.stub_api import StubApi, stub_api, text

QUICK = Policy(start=4, most=8, backoff_s=0.01, backoff_most_s=0.05)


def request(prompt: str, **changes: object) -> Request:
    return Request("stub@1", "completion", prompt, Sampling(max_tokens=8, **changes))  # type: ignore[arg-type]


def generator(stub: StubApi, timeout_s: float = 5.0, **options: object) -> HttpGenerator:
    return HttpGenerator(GivenServer(stub.url), timeout_s=timeout_s, **options)  # type: ignore[arg-type]


def ask(stub: StubApi, prompts: list[str], store: Path, policy: Policy = QUICK, **options: object):
    tally = Tally()
    replies = answer_all(
        [request(prompt) for prompt in prompts],
        generator(stub, **options),
        AnswerStore(str(store)),
        policy=policy,
        tally=tally,
    )
    return [reply for _, reply in replies], tally


def test_replies_come_in_the_order_of_the_requests_whatever_the_order_of_the_answers(tmp_path):
    def slow_first(prompt: str, before: int):
        time.sleep(0.2 if prompt == "0" else 0)
        return text(f"answer to {prompt}")

    with stub_api(slow_first) as stub:
        replies, tally = ask(stub, [str(i) for i in range(20)], tmp_path)
    assert [reply.text for reply in replies] == [f"answer to {i}" for i in range(20)]
    assert (tally.asked, tally.answered, tally.stored) == (20, 20, 0)


def test_a_second_run_asks_nothing_and_needs_no_server(tmp_path):
    with stub_api(lambda prompt, before: text(prompt)) as stub:
        first, _ = ask(stub, ["a", "b"], tmp_path)
        gone = StubApi(lambda prompt, before: None)  # never serves
        gone.server.server_close()
        again, tally = ask(gone, ["a", "b"], tmp_path)
    assert again == first
    assert (tally.answered, tally.stored) == (0, 2)
    assert stub.asked == Counter({"a": 1, "b": 1})


def test_another_sampling_or_model_is_another_question(tmp_path):
    digests = {
        request("a").digest,
        request("a", seed=1).digest,
        request("a", temperature=0.5).digest,
        request("a", stop=("x",)).digest,
        request("b").digest,
        Request("stub@2", "completion", "a", Sampling(max_tokens=8)).digest,
        Request("stub@1", "score", "a", Sampling(max_tokens=8)).digest,
        Request("stub@1", "completion", (1, 2), Sampling(max_tokens=8)).digest,
    }
    assert len(digests) == 8
    assert request("a").digest == request("a").digest


def test_equal_requests_are_asked_once(tmp_path):
    with stub_api(lambda prompt, before: text(prompt), delay_s=0.05) as stub:
        replies, tally = ask(stub, ["a"] * 12, tmp_path)
    assert stub.asked == Counter({"a": 1})
    assert len(replies) == 12
    assert tally.is_reconciled


@pytest.mark.parametrize(
    ("failure", "retried"),
    [
        pytest.param((429, "slow down", {"retry-after": "0"}), True, id="too many requests"),
        pytest.param((503, "starting"), True, id="overloaded"),
        pytest.param((500, "oops"), True, id="a server that failed inside"),
        pytest.param(None, True, id="a cut connection"),
        pytest.param({"unexpected": 1}, True, id="not an answer of this API"),
        pytest.param((400, "too long"), False, id="refused for good"),
        pytest.param((404, "no such model"), False, id="unknown model"),
    ],
)
def test_what_may_pass_is_tried_again_and_what_never_will_is_given_up(tmp_path, failure, retried):
    with stub_api(lambda prompt, before: failure if before == 0 else text("ok")) as stub:
        (reply,), tally = ask(stub, ["a"], tmp_path)
    assert stub.asked["a"] == (2 if retried else 1)
    if retried:
        assert isinstance(reply, Answer)
        assert tally.retries.total() == 1
    else:
        assert reply == DeadLetter("rejected", f"HTTP {failure[0]}: {failure[1]}", 1)


def test_a_timeout_has_a_budget_and_then_the_request_is_a_dead_letter_with_its_reason(tmp_path):
    def stuck(prompt: str, before: int):
        if prompt == "stuck":
            time.sleep(0.6)
        return text("ok")

    with stub_api(stuck) as stub:
        replies, tally = ask(stub, ["a", "stuck", "b"], tmp_path, timeout_s=0.2)
    dead = replies[1]
    assert isinstance(dead, DeadLetter)
    assert (dead.reason, dead.attempts) == ("timeout", 4)  # one, and three retries
    assert tally.dead == Counter({"timeout": 1})
    assert tally.is_reconciled
    assert stub.asked["stuck"] == 4


def test_a_dead_letter_is_asked_again_by_the_next_run_and_answers_are_not(tmp_path):
    with stub_api(lambda prompt, before: (400, "no") if prompt == "bad" and before == 0 else text("ok")) as stub:
        ask(stub, ["good", "bad"], tmp_path)
        replies, _ = ask(stub, ["good", "bad"], tmp_path)
    assert stub.asked == Counter({"good": 1, "bad": 2})
    assert all(isinstance(reply, Answer) for reply in replies)


def test_a_model_that_answers_nothing_but_failures_stops_the_run(tmp_path):
    policy = Policy(start=4, most=4, backoff_s=0.01, backoff_most_s=0.02, give_up=5)
    with stub_api(lambda prompt, before: {"nothing": 1}) as stub, pytest.raises(HostFault, match="5 requests in a row"):
        ask(stub, [str(i) for i in range(50)], tmp_path, policy)
    assert len(stub.asked) < 50


def test_requests_refused_one_by_one_do_not_stop_the_run(tmp_path):
    policy = Policy(start=4, most=4, give_up=3)
    with stub_api(lambda prompt, before: (400, "no") if prompt != "9" else text("ok")) as stub:
        replies, tally = ask(stub, [str(i) for i in range(10)], tmp_path, policy)
    assert tally.dead == Counter({"rejected": 9})
    assert isinstance(replies[9], Answer)


def test_no_more_requests_are_in_flight_than_allowed(tmp_path):
    policy = Policy(start=2, most=5)
    with stub_api(lambda prompt, before: text("ok"), delay_s=0.01) as stub:
        ask(stub, [str(i) for i in range(60)], tmp_path, policy)
    assert 2 < stub.most_at_once <= 5


def test_a_caller_that_leaves_early_keeps_what_was_answered(tmp_path):
    with stub_api(lambda prompt, before: text("ok"), delay_s=0.02) as stub:
        replies = answer_all(
            [request(str(i)) for i in range(200)], generator(stub), AnswerStore(str(tmp_path)), policy=QUICK
        )
        for _ in range(10):
            next(replies)
        replies.close()
        asked = stub.asked.total()
        assert asked < 200
        _, tally = ask(stub, [str(i) for i in range(200)], tmp_path)
    assert tally.stored >= 10
    assert max(stub.asked.values()) <= 2


def test_errors_in_logs_and_dead_letters_hold_no_key(tmp_path, caplog):
    key = "very-private-key-12345"
    with stub_api(lambda prompt, before: (401, f"bad key {key}; Authorization: Bearer {key}")) as stub:
        (reply,), _ = ask(stub, ["a"], tmp_path, api_key=key)
    assert stub.headers[0]["Authorization"] == f"Bearer {key}"
    stored = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert key not in f"{reply} {caplog.text} {stored}"


def test_tokens_and_cost_are_the_same_for_an_interrupted_and_an_undisturbed_run(tmp_path):
    with stub_api(lambda prompt, before: text("two words")) as stub:
        prompts = [str(i) for i in range(8)]
        _, whole = ask(stub, prompts, tmp_path / "whole", price=(1.0, 10.0))
        ask(stub, prompts[:3], tmp_path / "parts", price=(1.0, 10.0))
        _, resumed = ask(stub, prompts, tmp_path / "parts", price=(1.0, 10.0))
    assert resumed.facts() == whole.facts()
    assert (whole.prompt_tokens, whole.completion_tokens) == (24, 16)
    assert whole.cost == pytest.approx((24 * 1.0 + 16 * 10.0) / 1e6)


@settings(max_examples=15, deadline=None)
@given(fates=st.lists(st.sampled_from(["ok", "refused", "late", "cut"]), max_size=12))
def test_every_request_has_exactly_one_fate(tmp_path_factory, fates):
    def script(prompt: str, before: int):
        fate = fates[int(prompt)]
        if fate == "refused":
            return (400, "no")
        if before == 0 and fate in ("late", "cut"):
            return (429, "later", {"retry-after": "0"}) if fate == "late" else None
        return text("ok")

    with stub_api(script) as stub:
        replies, tally = ask(stub, [str(i) for i in range(len(fates))], tmp_path_factory.mktemp("store"))
    assert len(replies) == len(fates) == tally.asked
    assert tally.is_reconciled
    assert tally.dead.total() == fates.count("refused")


CLIENT = """
import sys
from tasks.generation.answer_store import AnswerStore
from tasks.generation.answers import Policy, answer_all
from tasks.generation.completions import GivenServer, HttpGenerator
from tasks.generation.requests import Request, Sampling

url, store, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
requests = [Request("m@1", "completion", f"prompt {i}", Sampling(max_tokens=4)) for i in range(number)]
generator = HttpGenerator(GivenServer(url), timeout_s=5)
for request, reply in answer_all(requests, generator, AnswerStore(store), policy=Policy(start=8, most=8)):
    print(request.prompt, flush=True)
"""


def test_after_kill_9_only_what_was_in_flight_is_asked_twice(tmp_path):
    log, number = tmp_path / "log", 120
    here = Path(__file__).resolve()
    server = subprocess.Popen(
        [sys.executable, str(here.with_name("stub_api.py")), str(log)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        command = [sys.executable, "-c", CLIENT, url, str(tmp_path / "store"), str(number)]
        environment = {**os.environ, "PYTHONPATH": str(here.parents[3])}
        for _ in range(3):
            client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            assert client.stdout is not None
            for _ in range(12):
                client.stdout.readline()
            os.kill(client.pid, signal.SIGKILL)
            client.wait()
            client.stdout.close()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    assert done.stdout.splitlines() == [f"prompt {i}" for i in range(number)]
    asked = Counter(log.read_text().splitlines())
    assert len(asked) == number
    assert sum(times - 1 for times in asked.values()) <= 3 * 8  # eight were in flight at each kill
