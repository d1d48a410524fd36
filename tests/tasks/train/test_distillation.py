"""A student that learns from a teacher's words: in their places, resumed exactly, refused where they do not belong."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tasks.artifact import Artifact, produce
from tasks.errors import ConfigError, DataFault, Preempted
from tasks.teach.config import TeachConfig
from tasks.teach.stage import TEACH
from tasks.tokens import TextTokenizer
from tasks.train.feed.batches import Batches, prefetched
from tasks.train.feed.sources import open_sources
from tasks.train.feed.streams import FeedConfig
from tasks.train.journal import lasting
from tasks.train.stage import resolve
from tasks.train.trainer import train
from tests.tasks.train.nano import NANO, files, nano_config, never
from tests.tasks.training_data import document, make_model, make_pack

WORDS = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("distillation")


@pytest.fixture(scope="module")
def teacher(store, tokenizer_artifact) -> Artifact:
    return make_model(store, tokenizer_artifact, replace(NANO, final_softcap=None), seed=5)


def ask(store, data: Artifact, teacher: Artifact) -> Artifact:
    return produce(str(store), TEACH, "nano", TeachConfig(words=WORDS), {"data": data, "model": teacher})


@pytest.fixture(scope="module")
def taught(store, text_pack, teacher) -> Artifact:
    return ask(store, text_pack, teacher)


def student(run_dir, data, taught, **changes):
    changes = {"streams": 2, "taught": "given" if taught else "", "total_tokens": 128 * 8} | changes
    return resolve(run_dir, nano_config(**changes), {"data": data} | ({"taught": taught} if taught else {}))


def feed_of(spec, kind="text", seq_len=32):
    sources = open_sources(spec.data_dir, json.loads((spec.data_dir / "mixture.json").read_text()), 0, spec.taught_dir)
    return sources, Batches(sources, TextTokenizer(spec.tokenizer_dir), FeedConfig(kind, seq_len, 4, 2, 0))


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_each_target_has_the_words_that_were_said_about_it(tmp_path, store, text_pack, chat_pack, teacher, kind):
    """Found again by the draw: of the teacher's record of that document, the row of that token."""
    data = text_pack if kind == "text" else chat_pack
    changes = {} if kind == "text" else {"kind": "sft", "seq_len": 64}
    spec = student(tmp_path, data, ask(store, data, teacher), **changes)
    sources, batches = feed_of(spec, kind, spec.config.seq_len)
    tokenizer, said = TextTokenizer(spec.tokenizer_dir), {}
    for source in sources:
        for index in range(source.records):
            record = source.read(index)
            text = (
                tokenizer.document(record["text"])
                if kind == "text"
                else np.array(tokenizer.chat(record["messages"])[0])
            )
            words, shares = source.teach(index, text)
            for at in range(len(text) - 1):
                before = tuple(text[max(0, at - 6) : at + 2].tolist())
                said.setdefault(before, []).append((words[at].tolist(), shares[at].tolist()))
    checked, feed = 0, iter(batches)
    for _ in range(10):
        batch = next(feed)
        assert batch["teacher_ids_BTK"].shape == (4, spec.config.seq_len, WORDS)
        for row in range(4):
            tokens, segments = batch["tokens_BT"][row], batch["segments_BT"][row]
            for at in np.flatnonzero(batch["weights_BT"][row]):
                start = max(at - 6, int(np.flatnonzero(segments == segments[at])[0]))
                if at - start < 6 and batch["positions_BT"][row, start] == 0 and tokens[start] != tokenizer.bos_id:
                    continue  # the row begins within a document
                before = (*tokens[start : at + 1].tolist(), int(batch["targets_BT"][row, at]))
                here = batch["teacher_ids_BTK"][row, at].tolist(), batch["teacher_shares_BTK"][row, at].tolist()
                assert here in said[before]
                checked += 1
    assert checked > 200


def test_the_words_are_the_same_from_workers_and_after_a_resume(tmp_path, text_pack, taught):
    spec = student(tmp_path, text_pack, taught)
    _, batches = feed_of(spec)
    plain, workers = iter(batches), prefetched(feed_of(spec)[1], workers=2)
    try:
        for _ in range(5):
            expected, got = next(plain), next(workers)
            assert all(np.array_equal(expected[name], got[name]) for name in expected)
        state = json.loads(json.dumps(plain.get_state()))
        expected, resumed = next(plain), iter(feed_of(spec)[1])
        resumed.set_state(state)
        got = next(resumed)
        assert all(np.array_equal(expected[name], got[name]) for name in expected)
    finally:
        workers.close()


def test_a_student_learns_from_its_teacher_and_a_resumed_one_is_the_same(tmp_path, text_pack, taught):
    whole = student(tmp_path / "whole", text_pack, taught)
    train(whole, never)
    broken = student(tmp_path / "broken", text_pack, taught)
    calls = iter([False] * 4 + [True])
    with pytest.raises(Preempted):
        train(broken, lambda: next(calls))
    train(broken, never)
    assert files(whole.result) == files(broken.result)
    assert lasting(whole.metrics) == lasting(broken.metrics)
    mixed = student(tmp_path / "mixed", text_pack, taught, teacher_weight=0.5, total_tokens=128)
    alone = student(tmp_path / "alone", text_pack, None, total_tokens=128)
    for spec in (mixed, alone):
        train(spec, never)
    lines = [json.loads(spec.metrics.read_text().splitlines()[0]) for spec in (whole, mixed, alone)]
    taught_loss, mixed_loss, text_loss = (line["loss"] for line in lines)
    assert mixed_loss == pytest.approx((taught_loss + text_loss) / 2, rel=1e-5)
    assert abs(taught_loss - text_loss) > 0.01


def test_words_about_other_records_are_refused(tmp_path, store, text_pack, taught, tokenizer_artifact):
    other = make_pack(store, tokenizer_artifact, {"ja": [document(f"another text {i}") for i in range(40)]})
    with pytest.raises(ConfigError, match="its words belong to other records"):
        student(tmp_path, other, taught)


def test_words_that_came_into_the_wrong_file_are_refused(tmp_path, text_pack, taught):
    spec = student(tmp_path, text_pack, taught)
    swapped = tmp_path / "swapped"
    shutil.copytree(taught.local_dir(), swapped)
    first, second = sorted((swapped / "records" / "ja").iterdir())
    first.rename(swapped / "x")
    second.rename(first)
    (swapped / "x").rename(second)
    _, batches = feed_of(spec.model_copy(update={"taught_dir": swapped}))
    with pytest.raises(DataFault, match=r"spoke about .* other tokens"):
        next(iter(batches))
