"""Answers survive as they were written, or are found damaged."""

import json

import pytest

from tasks.generation.answer_store import AnswerStore, answers_url
from tasks.generation.requests import Answer, Request, Sampling

REQUEST = Request("m@1", "chat", (("user", "日本語で\ud83d?"),), Sampling(max_tokens=4, stop=("。",)))
ANSWER = Answer(
    text="はい\n\u2028",
    finish="stop",
    prompt_tokens=3,
    completion_tokens=2,
    seconds=0.5,
    cost=1e-6,
    logprobs=(-1.5, -0.25),
)


@pytest.mark.parametrize("url", ["{tmp}", "memory://answers-test"])
def test_what_was_put_is_what_is_got(tmp_path, url):
    store = AnswerStore(url.format(tmp=tmp_path))
    assert store.get(REQUEST) is None
    store.put(REQUEST, ANSWER)
    assert AnswerStore(store.url).get(REQUEST) == ANSWER


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="torn"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data.replace(b"\\u2028", b"").replace("\u2028".encode(), b""), id="a character lost"),
        pytest.param(lambda data: bytes([data[0] ^ 1]) + data[1:], id="a bit flipped"),
        pytest.param(lambda data: b"[1, 2]", id="another thing"),
    ],
)
def test_a_damaged_answer_is_no_answer_and_can_be_written_again(tmp_path, damage, caplog):
    store = AnswerStore(str(tmp_path))
    store.put(REQUEST, ANSWER)
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(damage(file.read_bytes()))
    assert store.get(REQUEST) is None
    assert "damaged" in caplog.text
    store.put(REQUEST, ANSWER)
    assert store.get(REQUEST) == ANSWER


def test_an_answer_under_the_wrong_name_is_not_taken(tmp_path):
    store = AnswerStore(str(tmp_path))
    other = Request("m@1", "completion", "other", Sampling(max_tokens=4))
    store.put(other, ANSWER)
    (file,) = tmp_path.rglob("*.json")
    place = file.parents[1] / REQUEST.digest[:2] / f"{REQUEST.digest}.json"
    place.parent.mkdir(exist_ok=True)
    file.rename(place)
    assert store.get(REQUEST) is None


def test_a_record_says_what_was_asked(tmp_path):
    AnswerStore(str(tmp_path)).put(REQUEST, ANSWER)
    (file,) = tmp_path.rglob("*.json")
    record = json.loads(file.read_bytes())
    assert record["request"]["model"] == "m@1"
    assert file.parent.parent.name == "m@1"


def test_answers_live_beside_the_stages_of_their_store():
    assert answers_url("gs://bucket/store/synth/tiny-0123456789ab") == "gs://bucket/store/.answers"
