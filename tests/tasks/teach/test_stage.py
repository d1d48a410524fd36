"""The teach stage: a record for each record, in its place, that says what the model says."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource

from model.convert import load_hf
from model.families import gemma2
from tasks.artifact import Artifact, produce
from tasks.errors import ConfigError
from tasks.taught import unpack_taught
from tasks.teach import stage
from tasks.teach.config import TeachConfig
from tasks.teach.stage import TEACH
from tasks.tokens import TextTokenizer
from tests.tasks.training_data import chat, document, make_model, make_pack, make_tokenizer, turns

SMALL = replace(gemma2.SIZES["tiny"], embed_dim=32, num_layers=2, mlp_dim=64, max_seq_len=64, local_window=16)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("teach")


@pytest.fixture(scope="module")
def tokenizer(store):
    return make_tokenizer(store)


@pytest.fixture(scope="module")
def pack(store, tokenizer):
    rows = {name: [document(f"a text of {name} {'and more ' * (i * 7)}{i}") for i in range(6)] for name in ("ja", "en")}
    return make_pack(store, tokenizer, rows)


@pytest.fixture(scope="module")
def teacher(store, tokenizer):
    return make_model(store, tokenizer, SMALL)


def taught(store, pack: Artifact, teacher: Artifact, **changes) -> Artifact:
    config = TeachConfig(**({"words": 5, "choose": "top"} | changes))
    return produce(str(store), TEACH, "test", config, {"data": pack, "model": teacher})


def records(artifact: Artifact) -> dict[str, list[bytes]]:
    paths = sorted(entry.path for entry in artifact.files("records/"))
    return {path: list(ArrayRecordDataSource([str(artifact.local_dir() / path)])) for path in paths}


def test_each_record_has_one_in_the_same_place_about_its_own_tokens(store, pack, teacher, tokenizer):
    made = taught(store, pack, teacher)
    theirs, ours = records(pack), records(made)
    assert ours.keys() == theirs.keys()
    tokens = TextTokenizer(tokenizer.local_dir())
    model = load_hf(teacher.local_dir("model/"))
    probs_of = jax.jit(lambda t: jax.nn.softmax(model.logits(model(t, jnp.arange(t.shape[1])[None], jnp.ones_like(t)))))
    seen = 0
    for path, texts in theirs.items():
        assert len(ours[path]) == len(texts)
        for text, said in zip(texts, ours[path], strict=True):
            ids = tokens.document(json.loads(text)["text"])
            words, shares = unpack_taught(said, ids, path)
            first = ids[None, :64]  # longer records were cut to what the model can see
            probs = np.asarray(probs_of(np.pad(first, ((0, 0), (0, 64 - first.shape[1])))))[0, : first.shape[1]]
            for at in range(min(len(ids) - 1, 64)):
                top = np.sort(probs[at])[::-1][:5]
                np.testing.assert_allclose(probs[at][words[at]], top, rtol=1e-4)
                np.testing.assert_allclose(shares[at], top / top.sum(), rtol=4e-3)
            seen += 1
            assert len(words) == len(ids) - 1
    assert seen == 12
    assert any(len(TextTokenizer(tokenizer.local_dir()).document(json.loads(t)["text"])) > 70 for t in theirs[path])
    assert made.manifest.counts.out == made.manifest.counts.in_ == 12


def test_draws_depend_on_the_seed_and_the_record_alone(store, pack, teacher):
    drawn = [
        records(taught(store, pack, teacher, choose="drawn", **changes))
        for changes in ({}, {"batch_tokens": 64}, {"seed": 1})
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_stage_that_is_struck_down_goes_on_and_ends_the_same(store, pack, teacher, monkeypatch):
    whole = records(taught(store, pack, teacher, choose="drawn"))
    real, calls = stage.next_words, 0

    def dies(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(stage, "next_words", dies)
    other = store / "struck"
    with pytest.raises(KeyboardInterrupt):
        taught(other, pack, teacher, choose="drawn")
    assert records(taught(other, pack, teacher, choose="drawn")) == whole
    assert calls == 2 + 1 + len(whole) - 2, "two files were finished and stayed"


def test_conversations_are_asked_about_as_the_feed_reads_them(store, tokenizer, teacher):
    rows = [chat(turns("a question", f"an answer {i}")) for i in range(5)]
    pack = make_pack(store, tokenizer, {"talk": rows}, kind="chat")
    made, tokens = taught(store, pack, teacher), TextTokenizer(tokenizer.local_dir())
    for path, texts in records(pack).items():
        for text, said in zip(texts, records(made)[path], strict=True):
            ids = np.asarray(tokens.chat(json.loads(text)["messages"])[0])
            assert unpack_taught(said, ids, path)[0].shape == (len(ids) - 1, 5)


def test_a_teacher_of_another_tokenizer_or_of_fewer_words_is_refused(store, pack, teacher):
    with pytest.raises(ConfigError, match=r"counted with .*, the teacher in .* has another"):
        taught(store, pack, make_model(store, make_tokenizer(store, 420), SMALL))
    with pytest.raises(ConfigError, match="words=500 of a vocabulary of 400"):
        taught(store, pack, teacher, words=500)
