"""Benchmarks with rigged models: known answers give known scores."""

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.eval.benchmarks import BENCHMARKS, bits_per_byte, continuation, instructions
from tasks.eval.benchmarks.bits_per_byte import windows
from tasks.eval.evaluate import answer
from tasks.eval.requests import Generate, Generation, Item, Likelihood, LogLikelihood, Material, Settings
from tests.tasks import tiny_model

SETTINGS = Settings(context_tokens=10_000, max_new_tokens=8, max_document_chars=1_000)


class Bytes:
    """A tokenizer of bytes: id = byte + 3, bos 2."""

    bos_id = 2

    def encode(self, text):
        return [byte + 3 for byte in text.encode()]

    def decode(self, ids):
        return bytes(i - 3 for i in ids).decode()

    def chat_prompt(self, messages):
        return [self.bos_id, *self.encode(messages[-1]["content"])]


class Knows:
    """A model that has learnt some texts by heart: 1/2 for a byte that follows in one of them, 1/1000 otherwise."""

    codec = Bytes()

    def __init__(self, *texts):
        self.texts = texts

    def loglikelihood(self, requests):
        codec = self.codec
        found = []
        for request in requests:
            before = codec.decode([i for i in request.context if i >= 3])
            said = codec.decode(request.continuation)
            right = any(before + said in text for text in self.texts)
            found.append(Likelihood(len(request.continuation) * math.log(0.5 if right else 0.001), right))
        return found

    def generate(self, requests):
        return [Generation(tuple(self.codec.encode("ja" * 2)), True) for _ in requests]


class Indifferent(Knows):
    """A model to which everything is equally likely."""

    def loglikelihood(self, requests):
        return [Likelihood(0.0, False) for _ in requests]


def documents(count=8):
    return [{"id": f"{i:02}", "text": tiny_model.text("ja", i, 30), "language": "ja"} for i in range(count)]


def run(benchmark, model, material, language="ja", settings=SETTINGS):
    rows = []
    for item in benchmark.load(material, language, 100, settings):
        requests = benchmark.prompt(item, model.codec, settings)
        rows.append(benchmark.score(item, list(answer(requests, model)), model.codec, language))
    return rows, {metric.name: metric for metric in benchmark.summarize(rows)}


def test_a_model_that_knows_the_documents_continues_all_of_them():
    material = Material(documents={"ja": documents()})
    _, metrics = run(continuation, Knows(*(row["text"] for row in documents())), material)
    assert metrics["accuracy"].value == 1
    assert metrics["accuracy"].n == 8
    assert metrics["accuracy"].stderr == 0
    assert metrics["accuracy"].chance == 0.25


def test_a_model_that_always_answers_the_first_choice_gets_its_share():
    """Equal likelihoods per byte are a tie, which the first choice wins; right answers stand at hashed places."""
    material = Material(documents={"ja": documents(200)})
    rows, metrics = run(continuation, Indifferent(), material)
    assert {row["chosen"] for row in rows} == {0}
    assert metrics["accuracy"].value == sum(row["right"] == 0 for row in rows) / 100
    assert abs(metrics["accuracy"].value - 0.25) < 3 * metrics["accuracy"].stderr


def test_a_question_has_one_right_and_three_wrong_passages_whatever_the_order_of_documents():
    forward = continuation.load(Material(documents={"ja": documents()}), "ja", 100, SETTINGS)
    backward = continuation.load(Material(documents={"ja": documents()[::-1]}), "ja", 100, SETTINGS)
    assert {item.id: item.fields for item in forward} == {item.id: item.fields for item in backward}
    for item, row in zip(forward, documents(), strict=True):
        choices = item.fields["choices"]
        assert len(set(choices)) == 4
        assert item.fields["context"] + choices[item.fields["right"]] in row["text"]
        assert sum(item.fields["context"] + choice in row["text"] for choice in choices) == 1


@pytest.mark.parametrize(("chars", "items"), [(207, 0), (208, 4)])
def test_a_document_must_hold_the_context_and_the_passage(chars, items):
    rows = [{**row, "text": row["text"][:chars]} for row in documents(4)]
    assert len(continuation.load(Material(documents={"ja": rows}), "ja", 100, SETTINGS)) == items


def test_three_documents_make_no_question():
    assert continuation.load(Material(documents={"ja": documents(3)}), "ja", 100, SETTINGS) == []


def test_bits_per_byte_of_a_model_that_gives_every_byte_half_is_one():
    material = Material(documents={"ja": documents(3)})
    rows, metrics = run(bits_per_byte, Knows(*(row["text"] for row in documents())), material)
    assert metrics["bits_per_byte"].value == pytest.approx(1)
    assert metrics["bits_per_byte"].stderr == pytest.approx(0, abs=1e-12)
    assert all(row["bytes"] == row["tokens"] for row in rows)


@given(st.integers(0, 400), st.integers(9, 64))
def test_windows_score_every_token_once_with_as_much_context_as_fits(count, context_tokens):
    tokens = list(range(100, 100 + count))
    made = windows(tokens, 2, context_tokens)
    assert list(itertools.chain.from_iterable(one.continuation for one in made)) == tokens
    assert made[0].context == (2,)
    for before, one in itertools.pairwise(made):
        assert len(one.context) == context_tokens // 2
        assert one.context[-1] == before.continuation[-1], "the context ends where the scored tokens begin"
    assert all(len(one.context) + len(one.continuation) <= context_tokens for one in made)


def test_an_empty_document_is_dropped_with_its_reason():
    assert bits_per_byte.prompt(Item("x", {"text": ""}), Bytes(), SETTINGS) == "empty"


def conversation(*contents):
    roles = itertools.cycle(("user", "assistant"))
    return {"id": "c", "messages": json.dumps([{"role": next(roles), "content": text} for text in contents])}


def test_instructions_are_scored_against_the_last_answer():
    material = Material(instructions={"en": [conversation("a", "b", "question", "jaja")]})
    rows, metrics = run(instructions, Knows(), material, "en")
    assert rows[0]["prompt"] == "question"
    assert rows[0]["answer"] == rows[0]["reference"] == "jaja"
    assert metrics["chrf"].value == pytest.approx(100)
    assert metrics["stopped"].value == metrics["right_language"].value == 1
    _, in_japanese = run(instructions, Knows(), Material(instructions={"ja": [conversation("q", "jaja")]}), "ja")
    assert in_japanese["right_language"].value == 0


@pytest.mark.parametrize(("context_tokens", "verdict"), [(12, "longer_than_context"), (13, None)])
def test_a_prompt_needs_room_for_its_answer(context_tokens, verdict):
    settings = Settings(context_tokens=context_tokens, max_new_tokens=8, max_document_chars=10)
    item = Item("x", {"messages": [{"role": "user", "content": "abcd"}], "reference": "r"})
    asked = instructions.prompt(item, Bytes(), settings)
    assert asked == (verdict or [Generate(tuple(Bytes().chat_prompt(item.fields["messages"])), 8)])


def test_answers_come_back_in_the_order_of_mixed_requests():
    asked = [Generate((2,), 4), LogLikelihood((2,), (100,)), Generate((2,), 4), LogLikelihood((2,), (100, 101))]
    kinds = [type(one) for one in answer(asked, Knows())]
    assert kinds == [Generation, Likelihood, Generation, Likelihood]


def test_every_benchmark_names_its_source_and_version():
    for benchmark in BENCHMARKS.values():
        assert "Source:" in (benchmark.__doc__ or "")
        assert benchmark.VERSION
