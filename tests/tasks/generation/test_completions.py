"""What is sent over HTTP and what is read from it."""

import pytest

from tasks.errors import HostFault
from tasks.generation.completions import GivenServer, HttpGenerator, request_body
from tasks.generation.requests import Garbled, Request, Sampling
from tests.tasks.generation.stub_api import stub_api, text

PLAIN = Sampling(max_tokens=5)


def test_a_chat_is_sent_as_messages_and_greedy_needs_no_seed():
    path, body = request_body(Request("m", "chat", (("system", "s"), ("user", "u")), PLAIN), "served")
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert "seed" not in body
    assert "stop" not in body


def test_a_sampled_completion_carries_its_seed_stops_and_penalty():
    sampling = Sampling(max_tokens=5, temperature=0.7, top_p=0.9, stop=("\n",), seed=11, repetition_penalty=1.1)
    path, body = request_body(Request("m", "completion", (1, 2, 3), sampling), "served")
    assert path == "/v1/completions"
    expected = {
        "prompt": [1, 2, 3],
        "seed": 11,
        "stop": ["\n"],
        "repetition_penalty": 1.1,
        "top_p": 0.9,
        "temperature": 0.7,
    }
    assert {key: body[key] for key in expected} == expected


async def test_a_score_is_the_log_probability_of_the_prompts_own_tokens():
    reply = text("x")
    reply["choices"][0]["prompt_logprobs"] = [
        None,
        {"7": {"logprob": -0.5}, "9": {"logprob": -2.0}},
        {"8": {"logprob": -0.25}},
    ]
    with stub_api(lambda prompt, before: reply) as stub:
        generator = HttpGenerator(GivenServer(stub.url), timeout_s=5)
        await generator.ready()
        answer = await generator.generate(Request("m", "score", (5, 9, 8), PLAIN))
        await generator.close()
    assert answer.logprobs == (-2.0, -0.25)
    assert answer.text == ""


async def test_an_answer_that_is_not_one_is_garbled_not_a_crash():
    with stub_api(lambda prompt, before: {"choices": [{"text": "x"}]}) as stub:
        generator = HttpGenerator(GivenServer(stub.url), timeout_s=5)
        await generator.ready()
        with pytest.raises(Garbled, match="usage"):
            await generator.generate(Request("m", "completion", "p", PLAIN))
        await generator.close()


async def test_a_given_server_names_its_model_and_tolerates_v1_in_its_url():
    with stub_api(lambda prompt, before: text("ok")) as stub:
        generator = HttpGenerator(GivenServer(stub.url + "/v1/"), timeout_s=5)
        await generator.ready()
        await generator.generate(Request("m", "completion", "p", PLAIN))
        await generator.close()
    assert stub.bodies[0]["model"] == "stub-model"


async def test_a_given_server_that_is_not_there_is_an_error_that_says_what_to_do():
    with pytest.raises(HostFault, match=r"(?s)127.0.0.1:9.*Start it, correct serving.url"):
        await HttpGenerator(GivenServer("http://127.0.0.1:9", patience_s=0.0), timeout_s=1).ready()
