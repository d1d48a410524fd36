"""The whole stage on tiny real models: scores against independent computation, conservation, resume, refusals."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from model.convert import load_hf
from tasks.artifact import produce
from tasks.errors import DataFault
from tasks.eval import evaluate
from tasks.eval.config import EvalConfig
from tasks.eval.evaluate import EVAL
from tasks.inference import TextCodec
from tasks.records import CHAT, DOCUMENT, table
from tests.tasks import tiny_model
from tests.tasks.artifacts import artifact

LABELS = ("base", "sft")


def document(language: str, i: int, **changes: str) -> dict[str, str]:
    return {
        "id": f"{language}{i:02}",
        "text": tiny_model.text(language, 1000 + i, sentences=40),
        "url": "",
        "source": "test",
        "language": language,
        "licence": "MIT",
        "crawl_time": "",
        "meta": "{}",
    } | changes


def chat(language: str, i: int, question: str) -> dict[str, str]:
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": tiny_model.text(language, i, 1)},
    ]
    return {
        "id": f"c{i:02}",
        "messages": json.dumps(messages),
        "language": language,
        "source": "test",
        "teacher": "t",
        "licence": "MIT",
        "meta": "{}",
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two models, held-out documents in two languages, conversations with one that is too long."""
    root = tmp_path_factory.mktemp("eval")
    models = []
    for seed, label in enumerate(LABELS):
        directory = tiny_model.write(root / label, seed)
        files = {f"model/{path.name}": path for path in directory.iterdir()}
        models.append(artifact(root / "store", "train", label, files))
    heldout = [
        artifact(
            root / "store", "dedup", "ja", {"heldout/0.parquet": table([document("ja", i) for i in range(6)], DOCUMENT)}
        ),
        artifact(
            root / "store", "dedup", "en", {"heldout/0.parquet": table([document("en", i) for i in range(5)], DOCUMENT)}
        ),
    ]
    chats = [chat("ja", i, f"方針{i}とは?") for i in range(3)] + [chat("ja", 9, "方針とは?" * 60)]
    instructions = artifact(root / "store", "instruct", "t", {"heldout/0.parquet": table(chats, CHAT)})
    inputs = {f"models.{i}": model for i, model in enumerate(models)}
    inputs |= {f"heldout.{i}": part for i, part in enumerate(heldout)} | {"instructions": instructions}
    return root, inputs


def config(**changes):
    return EvalConfig(
        models=("a", "b"),
        labels=LABELS,
        heldout=("ja", "en"),
        instructions="c",
        tasks=("bits_per_byte", "continuation", "instructions:ja"),
        languages=("ja", "en"),
        limits={"bits_per_byte": 4},
        max_new_tokens=8,
        batch_tokens=512,
    ).with_changes(changes)


@pytest.fixture(scope="module")
def evaluated(world):
    root, inputs = world
    return produce(str(root / "store"), EVAL, "t", config(), inputs)


def scores(artifact):
    return {(s["model"], s["task"], s["language"], s["metric"]): s for s in artifact.read_json("scores.json")}


def rows(artifact, path):
    return pq.read_table(artifact.local_dir() / path).to_pylist()


def test_every_model_is_scored_on_every_task_and_each_record_says_on_what(evaluated):
    found = scores(evaluated)
    assert set(found) == {
        (label, task, language, metric)
        for label in LABELS
        for task, languages, metrics in (
            ("bits_per_byte", ("ja", "en"), ("bits_per_byte",)),
            ("continuation", ("ja", "en"), ("accuracy",)),
            ("instructions", ("ja",), ("chrf", "stopped", "right_language")),
        )
        for language in languages
        for metric in metrics
    }
    one = found["base", "continuation", "ja", "accuracy"]
    assert one["backend"] == "jax"
    assert one["dtype"] == "float32"
    assert one["context_tokens"] == 128
    assert one["batch_tokens"] == 512
    assert one["chance"] == 0.25
    assert one["n"] == 6
    assert {"jax", "flax"} <= set(one["versions"])
    assert len(one["code_digest"]) == 16


def test_bits_per_byte_is_what_a_plain_forward_pass_in_numpy_says(world, evaluated):
    """One window at a time, softmax in float64, no batching, no helper of model/."""
    directory = world[0] / "base"
    model, codec = load_hf(directory), TextCodec(directory)
    nats = size = 0.0
    for i in range(4):
        body = tiny_model.text("ja", 1000 + i, sentences=40)
        ids = codec.encode(body)
        position = 0
        while position < len(ids):
            if position == 0:
                context, step = [codec.bos_id], 127
            else:
                context, step = ids[position - 64 : position], 64
            scored = ids[position : position + step]
            line = [*context, *scored]
            tokens = jnp.asarray([line + [0] * (128 - len(line))])  # one shape; nothing looks at what comes later
            hidden = model(tokens, jnp.arange(128)[None], jnp.ones_like(tokens))
            logits = np.asarray(model.logits(hidden)[0], np.float64)
            logits -= logits.max(-1, keepdims=True)
            logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            nats -= sum(logprobs[len(context) - 1 + k, token] for k, token in enumerate(scored))
            position += step
        size += len(body.encode())
        assert len(ids) > 127, "the test must cross a window"
    value = scores(evaluated)["base", "bits_per_byte", "ja", "bits_per_byte"]["value"]
    assert value == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_items_are_conserved_and_the_too_long_question_is_kept_with_its_reason(evaluated):
    counts = evaluated.manifest.counts
    assert counts.in_ == 2 * (4 + 4 + 6 + 5 + 4)
    assert counts.dropped == {"longer_than_context": 2}
    assert counts.is_conserved
    assert len(rows(evaluated, "items/instructions-ja/sft.parquet")) == 3


def test_items_add_up_to_the_scores(evaluated):
    found = scores(evaluated)
    items = rows(evaluated, "items/bits_per_byte-en/sft.parquet")
    bits = sum(row["nats"] for row in items) / math.log(2) / sum(row["bytes"] for row in items)
    assert found["sft", "bits_per_byte", "en", "bits_per_byte"]["value"] == pytest.approx(bits)
    right = [row["is_correct"] for row in rows(evaluated, "items/continuation-en/base.parquet")]
    assert found["base", "continuation", "en", "accuracy"]["value"] == pytest.approx(sum(right) / len(right))


def test_generations_are_those_of_the_items(evaluated):
    lines = [json.loads(line) for line in evaluated.read_bytes("generations.jsonl").decode().splitlines()]
    assert [(line["model"], line["id"]) for line in lines] == [(label, f"c0{i}") for label in LABELS for i in range(3)]
    assert all(line["reference"] == tiny_model.text("ja", i % 3, 1) for i, line in enumerate(lines))


def test_a_second_run_is_a_hit_and_a_killed_one_redoes_only_what_was_in_flight(world, evaluated, monkeypatch, tmp_path):
    root, inputs = world
    assert produce(str(root / "store"), EVAL, "t", config(), inputs).manifest == evaluated.manifest
    done = []
    score = evaluate._score

    def dies_at_the_fourth(unit, *args):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(unit.key)
        return score(unit, *args)

    monkeypatch.setattr(evaluate, "_score", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        produce(str(tmp_path), EVAL, "t", config(), inputs)
    again = []
    monkeypatch.setattr(evaluate, "_score", lambda unit, *args: (again.append(unit.key), score(unit, *args)))
    resumed = produce(str(tmp_path), EVAL, "t", config(), inputs)
    assert len(done) == 3
    assert len(again) == 7
    assert not set(done) & set(again)
    assert resumed.manifest.content_digest == evaluated.manifest.content_digest


def test_batch_size_changes_nothing_but_the_last_digits(world, evaluated, tmp_path):
    _, inputs = world
    small = scores(produce(str(tmp_path), EVAL, "t", config(batch_tokens=1), inputs))
    for key, score in scores(evaluated).items():
        assert small[key]["value"] == pytest.approx(score["value"], rel=1e-5), key


def test_a_language_without_rows_is_refused_with_what_there_is(world, tmp_path):
    _, inputs = world
    with pytest.raises(DataFault, match=r"no items in language 'fr'.*'ja': 6"):
        produce(str(tmp_path), EVAL, "t", config(languages=("fr",)), inputs)


def test_conversations_given_as_documents_are_refused(world, tmp_path):
    _, inputs = world
    with pytest.raises(DataFault, match="no column 'text'"):
        produce(str(tmp_path), EVAL, "t", config(), inputs | {"heldout.0": inputs["instructions"]})


def test_a_context_longer_than_the_model_is_refused(world, tmp_path):
    _, inputs = world
    with pytest.raises(DataFault, match="made for 128"):
        produce(str(tmp_path), EVAL, "t", config(context_tokens=129), inputs)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": ("a",)}, "2 models"),
        ({"labels": ("a", "a")}, "different labels"),
        ({"labels": ("a", "b/c")}, "file names"),
        ({"tasks": ("bits",)}, "bits_per_byte"),
        ({"limits": {"bits_per_byte": 0}}, "1 or more"),
        ({"limits": {"other": 1}}, "benchmark 'other'"),
        ({"instructions": ""}, "instructions=instruct/PRESET"),
    ],
)
def test_a_bad_config_is_refused_before_anything_is_read(changes, says):
    with pytest.raises(ValueError, match=says):
        config(**changes)


def test_model_directory_of_something_else_says_what_it_needs(world, tmp_path):
    _, inputs = world
    with pytest.raises(DataFault, match=r"config\.json one level down"):
        evaluate.model_directory(inputs["heldout.0"])
    assert evaluate.model_directory(inputs["models.0"]).name == "model"
    assert Path(evaluate.model_directory(inputs["models.0"]) / "config.json").is_file()
