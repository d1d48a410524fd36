"""Magpie against a scripted server: prompts, answers, gates, the split, and what a resumed run asks."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.artifact import Artifact, produce
from tasks.errors import ConfigError, DataFault
from tasks.generation.requests import Answer, DeadLetter
from tasks.instruct import magpie
from tasks.instruct.config import InstructConfig
from tasks.instruct.magpie import INSTRUCT, judge_prompts, tidy_prompt
from tasks.instruct.wording import answer_prompt, elicitation
from tests.tasks.generation.stub_api import StubApi, stub_api, text
from tests.tasks.tiny_teacher import teacher

SUBJECTS = (
    "apples",
    "bridges",
    "candles",
    "dolphins",
    "engines",
    "forests",
    "glaciers",
    "harbours",
    "islands",
    "jungles",
)


def config(url: str = "", **changes: object) -> InstructConfig:
    base = InstructConfig(teacher="t", language="en", num_prompts=10, unit_requests=4, min_yield=0.0)
    return base.with_changes({"serving.url": url, **changes})


class Script:
    """A teacher that asks about one subject after the other and answers about it; `answers` overrides."""

    def __init__(self, **answers: str):
        self.drawn = 0
        self.answers = answers

    def __call__(self, prompt: str, before: int):
        if "<|im_start|>" in prompt or prompt.endswith("User:"):
            self.drawn += 1
            subject = SUBJECTS[self.drawn % len(SUBJECTS)]
            return text(f"Why do people like {subject} in the spring?")
        subject = prompt.rpartition("like ")[2].partition(" in")[0]
        return text(self.answers.get(subject, f"People like {subject} because they are good to look at."))


def said(content: str, finish: str = "stop") -> Answer:
    return Answer(text=content, finish=finish, prompt_tokens=1, completion_tokens=1, seconds=0.0)


def run(tmp_path: Path, stub: StubApi, chat: bool = True, **changes: object) -> Artifact:
    inputs = {"teacher": teacher(tmp_path / "store", chat)}
    return produce(str(tmp_path / "store"), INSTRUCT, "tiny-en", config(stub.url, **changes), inputs)


def conversations(made: Artifact, part: str = "") -> list[dict[str, str]]:
    return [row for entry in made.files(part) for row in pq.read_table(made.file_url(entry.path)).to_pylist()]


def test_a_chat_model_writes_the_users_turn_and_then_answers_it(tmp_path):
    with stub_api(Script()) as stub:
        made = run(tmp_path, stub)
    drawn = [body for body in stub.bodies if "prompt" in body]
    answers = [body for body in stub.bodies if "messages" in body]
    assert len(drawn) == 10
    assert all(body["prompt"].endswith("<|im_end|>\n<|im_start|>user\n") for body in drawn)
    assert len({body["seed"] for body in drawn}) == 10
    assert all(body["temperature"] == 0 and "seed" not in body for body in answers)
    for row in conversations(made):
        user, assistant = json.loads(row["messages"])
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        subject = user["content"].removeprefix("Why do people like ").removesuffix(" in the spring?")
        assert assistant["content"] == f"People like {subject} because they are good to look at."
        assert (row["teacher"], row["licence"], row["source"]) == ("Tiny-Teacher", "Apache-2.0", "magpie-en")
    assert made.manifest.counts.in_ == 10
    assert made.manifest.teachers == ("Tiny-Teacher",)


def test_train_and_heldout_share_no_prompt_and_every_row_is_in_one_of_them(tmp_path):
    with stub_api(Script()) as stub:
        made = run(tmp_path, stub, held_out_fraction=0.5)
    parts = {
        part: {json.loads(row["messages"])[0]["content"] for row in conversations(made, part)}
        for part in ("train/", "heldout/")
    }
    assert not parts["train/"] & parts["heldout/"]
    assert len(parts["train/"]) + len(parts["heldout/"]) == made.manifest.counts.out
    assert parts["heldout/"]


def test_examples_for_brief_answers_are_asked_with_but_not_kept(tmp_path):
    with stub_api(Script()) as stub:
        made = run(tmp_path, stub, brief_answers=True)
    (body, *_) = [body for body in stub.bodies if "messages" in body]
    assert len(body["messages"]) == 8  # system, three examples, the question
    assert all(len(json.loads(row["messages"])) == 2 for row in conversations(made))


def test_a_base_model_is_led_by_examples(tmp_path):
    with stub_api(Script()) as stub:
        run(tmp_path, stub, chat=False)
    assert all("messages" not in body for body in stub.bodies)
    assert stub.bodies[0]["prompt"].endswith("User:")
    assert stub.bodies[-1]["prompt"].endswith("Answer:")


@pytest.mark.parametrize(
    ("content", "finish", "reason"),
    [
        pytest.param("Why do cats sleep so much?", "stop", None, id="kept"),
        pytest.param("Please explain how a mail server works", "stop", None, id="a request without a question mark"),
        pytest.param("Why do cats sleep so", "length", "prompt_truncated", id="cut"),
        pytest.param("Why?", "stop", "prompt_too_short", id="too short"),
        pytest.param("The cat sat on the mat.", "stop", "prompt_not_asking", id="a statement"),
        pytest.param("Here are the questions I want to ask you:", "stop", "prompt_unfinished", id="ends with a colon"),
        pytest.param("What can I do for you today?", "stop", "prompt_by_assistant", id="the assistant speaks"),
        pytest.param("What does ChatGPT think about cats?", "stop", "prompt_identity_leak", id="another model"),
        pytest.param("Can you help me write to [Your Name] please?", "stop", "prompt_leftovers", id="a placeholder"),
        pytest.param(
            "Warum schlafen Katzen eigentlich immer so viel und lange?", "stop", "prompt_wrong_language", id="German"
        ),
        pytest.param("Write a Python function that adds numbers", "stop", None, id="code is kept by default"),
    ],
)
def test_prompts_are_judged(content, finish, reason):
    ((_, found, _),) = judge_prompts([said(content, finish)], config())
    assert found == reason


def test_prompts_about_code_or_calculation_can_be_left_out():
    settings = config(**{"gates.allow_code_and_maths": False})
    for content in ("Write a Python function that adds numbers", "What is 12 + 30 in the end?"):
        ((_, reason, _),) = judge_prompts([said(content)], settings)
        assert reason == "prompt_code_or_maths"


def test_of_near_duplicates_the_first_stays_and_dead_letters_are_named():
    replies = [
        said("Why do cats sleep so much?"),
        DeadLetter("timeout", "no answer", 4),
        said("Why do cats sleep so much"),
        said("How do bees make honey in summer?"),
    ]
    reasons = [reason for _, reason, _ in judge_prompts(replies, config())]
    assert reasons == [None, "dead_timeout", "near_duplicate", None]


@pytest.mark.parametrize(
    ("answer", "finish", "reason"),
    [
        pytest.param("Cats sleep much because they hunt at night.", "stop", None, id="kept"),
        pytest.param("Cats sleep much because", "length", "answer_truncated", id="cut"),
        pytest.param("Cats.", "stop", "answer_too_short", id="too short"),
        pytest.param("I'm sorry, but as an AI I cannot say.", "stop", "answer_refusal", id="refused"),
        pytest.param("I am SmolLM, made by Hugging Face.", "stop", "answer_identity_leak", id="names itself"),
        pytest.param("My wife and I have two cats.", "stop", "answer_persona", id="claims a life"),
        pytest.param("Why do cats sleep so much?", "stop", "answer_echo", id="the question again"),
        pytest.param("I'd be happy to help. What is your cat's name?", "stop", "answer_echo", id="asks back"),
        pytest.param(
            "Cats hunt at night. What's your cat like? So they sleep by day.", "stop", None, id="one question of three"
        ),
        pytest.param(
            "I'm here to help. What's your cat like? I can offer support.",
            "stop",
            "answer_echo",
            id="half of it asks back",
        ),
        pytest.param("I'd be happy to help you with that.", "stop", None, id="nothing but an opener stays as it is"),
        pytest.param(
            "Cats: the air scatters blue light more than red light.",
            "stop",
            "answer_from_example",
            id="an example's answer",
        ),
        pytest.param("They sleep a lot. They sleep a lot. They sleep a lot.", "stop", "answer_repetition", id="a loop"),
        pytest.param("猫は夜に狩りをするからです。", "stop", "answer_wrong_language", id="Japanese"),
    ],
)
def test_answers_are_judged(answer, finish, reason):
    assert magpie.answer_gate("Why do cats sleep so much?", said(answer, finish), config()) == reason


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("I'd be happy to help you with that. Start by making a list.", "Start by making a list."),
        ("Sure, I'd be happy to help. Start now.", "Start now."),
        ("Absolutely! Start now.", "Start now."),
        ("Yes, I'm happy to help: start now.", "start now."),
        ("Sure enough, it works.", "Sure enough, it works."),
        ("I would love to visit Rome.", "I would love to visit Rome."),
        ("I'm here to help you.", "I'm here to help you."),
    ],
)
def test_an_opener_that_says_nothing_is_cut_off(said, kept):
    assert magpie.tidy_answer(said) == kept


def test_rejected_conversations_are_counted_and_the_rows_add_up(tmp_path):
    with stub_api(Script(apples="I'm sorry, I can't help.", bridges="People.")) as stub:
        made = run(tmp_path, stub)
    counts = made.manifest.counts
    assert counts.dropped["answer_refusal"] == 1
    assert counts.dropped["answer_too_short"] == 1
    assert counts.in_ == counts.out + sum(counts.dropped.values()) == 10


def test_a_stopped_run_is_resumed_without_asking_what_was_answered(tmp_path):
    script = Script()
    with stub_api(script) as stub:
        with pytest.raises(DataFault, match="min_yield"):
            run(tmp_path, stub, min_yield=1.0, preview_requests=4, **{"gates.max_answer_chars": 13})
        first = stub.asked.total()
        made = run(tmp_path, stub)
    assert made.manifest.counts.in_ == 10
    assert stub.asked.total() - first <= 10 + 10 - 4


def test_useless_prompts_stop_the_run_before_the_rest_is_drawn(tmp_path):
    with stub_api(lambda prompt, before: text("nothing to ask")) as stub:
        with pytest.raises(DataFault, match=r"prompts of tiny-en: 0 of the last 4 .*prompt_not_asking 4"):
            run(tmp_path, stub, min_yield=0.2, preview_requests=4)
        assert stub.asked.total() == 4


@pytest.mark.parametrize(
    ("raw", "tidy"),
    [
        ('"Why do cats sleep?"', "Why do cats sleep?"),
        ("**Why do cats sleep?**", "Why do cats sleep?"),
        ("User: Why do cats sleep?\n", "Why do cats sleep?"),
        ("利用者： 猫はなぜ寝ますか。", "猫はなぜ寝ますか。"),
        ("Why do 'cats' sleep?", "Why do 'cats' sleep?"),
    ],
)
def test_prompts_lose_what_a_user_would_not_have_typed(raw, tidy):
    assert tidy_prompt(raw) == tidy


def test_an_unknown_template_or_language_says_where_to_add_it(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "[INST]"}')
    with pytest.raises(ConfigError, match=r"PRE_QUERY in tasks/instruct/wording.py"):
        elicitation(tmp_path, True, "en")
    with pytest.raises(ConfigError, match=r"language='fr' has no examples"):
        elicitation(tmp_path, False, "fr")


def test_a_gemma_template_is_fed_up_to_the_users_first_word(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}<start_of_turn>user\n")
    found = elicitation(tmp_path, True, "en")
    assert found.prefix == "<bos><start_of_turn>user\n"
    assert "<end_of_turn>" in found.stop


def test_a_plain_chat_answer_is_asked_with_the_prompt_alone():
    assert answer_prompt("Why?", chat=True, language="en", brief=False) == ("chat", (("user", "Why?"),), ())
