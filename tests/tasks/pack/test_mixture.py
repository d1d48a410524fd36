"""The pack stage: exact budgets, every row accounted for, nothing held out among the records."""

import json

import pytest
from array_record.python import array_record_module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.artifact import Artifact, Workspace, produce
from tasks.errors import ConfigError, DataFault
from tasks.pack.config import PackConfig, SourceShare
from tasks.pack.mixture import PACK
from tasks.records import CHAT
from tasks.shards import read_table
from tasks.tokens import TextTokenizer
from tests.tasks.training_data import chat, document, make_artifact, make_tokenizer, turns


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Artifact:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def texts(language: str, count: int, first: int = 0) -> list[dict[str, str]]:
    return [document(f"{language} {i} " + "word " * (i * 7 % 40 + 1), language) for i in range(first, first + count)]


def records(artifact: Artifact, source: str) -> list[dict]:
    found: list[dict] = []
    for entry in artifact.files(f"records/{source}/"):
        reader = array_record_module.ArrayRecordReader(str(artifact.local_dir() / entry.path))
        found += [json.loads(row) for row in reader.read_all()]
        reader.close()
    return found


def pack(tmp_path, tokenizer, sources, *documents, **changes) -> Artifact:
    shares = [SourceShare(language="en", **source) for source in sources]
    config = PackConfig(**({"kind": "text", "sources": tuple(shares), "total_tokens": None} | changes))
    inputs = {f"documents.{i}": artifact for i, artifact in enumerate(documents)}
    return produce(str(tmp_path / "out"), PACK, "mix", config, inputs | {"tokenizer": tokenizer})


def test_whole_sources_go_in_order_and_are_counted_exactly(tmp_path, tokenizer):
    rows = texts("en", 30)
    artifact = make_artifact(tmp_path, "x", {"train/00000.parquet": rows[:11], "train/00001.parquet": rows[11:]})
    made = pack(tmp_path, tokenizer, [{"name": "en", "input": 0}], artifact)
    assert records(made, "en") == [{"id": row["id"], "text": row["text"]} for row in rows]
    ours = TextTokenizer(tokenizer.local_dir())
    mixture = made.read_json("mixture.json")
    (source,) = mixture["sources"]
    assert source["tokens"] == sum(len(ours.document(row["text"])) for row in rows)
    assert source["bytes"] == sum(len(row["text"].encode()) for row in rows)
    assert (source["records"], source["weight"], source["epochs"]) == (30, 1.0, 1.0)
    assert source["files"] == ["records/en/00000.arrayrecord", "records/en/00001.arrayrecord"]
    assert mixture["tokenizer_digest"] == tokenizer.manifest.content_digest
    assert mixture["total_tokens"] == source["tokens"]
    assert mixture["missing_tokens"] == 0


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(50, 900), st.integers(1, 9))
def test_a_budget_keeps_just_enough_documents(tmp_path, tokenizer, total, weight):
    artifacts = [make_artifact(tmp_path, name, {"train/0.parquet": texts(name, 60)}) for name in ("a", "b")]
    sources = [
        {"name": "a", "input": 0, "weight": weight, "max_epochs": 9},
        {"name": "b", "input": 1, "weight": 5, "max_epochs": 9},
    ]
    made = pack(tmp_path, tokenizer, sources, *artifacts, total_tokens=total)
    ours = TextTokenizer(tokenizer.local_dir())
    mixture = made.read_json("mixture.json")
    assert sum(source["budget_tokens"] for source in mixture["sources"]) == total
    assert sum(source["weight"] for source in mixture["sources"]) == pytest.approx(1)
    for source in mixture["sources"]:
        lengths = [len(ours.document(row["text"])) for row in records(made, source["name"])]
        assert sum(lengths) == source["tokens"]
        assert source["tokens"] - max(lengths) < source["budget_tokens"] <= source["tokens"], (
            "one document less is too few"
        )
        assert source["epochs"] <= 1
    counts = made.manifest.counts
    assert (counts.in_, counts.out) == (120, sum(source["records"] for source in mixture["sources"]))
    assert counts.dropped.get("over_budget", 0) == counts.in_ - counts.out


def test_small_source_is_repeated_or_refused_or_recorded(tmp_path, tokenizer):
    artifact = make_artifact(tmp_path, "x", {"docs/0.parquet": texts("en", 10)})
    held = pack(tmp_path, tokenizer, [{"name": "en", "input": 0}], artifact).read_json("mixture.json")["total_tokens"]
    many = pack(tmp_path, tokenizer, [{"name": "en", "input": 0, "max_epochs": 4}], artifact, total_tokens=3 * held)
    assert many.read_json("mixture.json")["sources"][0]["epochs"] == pytest.approx(3)
    with pytest.raises(DataFault, match="at most 2 epochs"):
        pack(tmp_path, tokenizer, [{"name": "en", "input": 0, "max_epochs": 2}], artifact, total_tokens=3 * held)
    sources = [{"name": "en", "input": 0, "max_epochs": 2}]
    short = pack(tmp_path, tokenizer, sources, artifact, total_tokens=3 * held, on_shortfall="spread")
    mixture = short.read_json("mixture.json")
    assert (mixture["total_tokens"], mixture["missing_tokens"]) == (2 * held, held)
    assert short.manifest.extra["missing_tokens"] == held


def test_bad_rows_are_dropped_with_their_reason(tmp_path, tokenizer):
    rows = [document("good text"), document(" \n ")]
    made = pack(
        tmp_path, tokenizer, [{"name": "en", "input": 0}], make_artifact(tmp_path, "x", {"train/0.parquet": rows})
    )
    assert made.manifest.counts.dropped == {"empty": 1}
    talks = [
        turns("hi", "hello"),
        turns("only a question"),
        [{"role": "assistant", "content": "I speak first"}],
        [{"role": "user"}],
        "not json",
        turns("a", "b", "c"),
    ]
    talks = make_artifact(tmp_path, "y", {"train/0.parquet": [chat(talk) for talk in talks]}, CHAT)
    made = pack(tmp_path, tokenizer, [{"name": "en", "input": 0}], talks, kind="chat")
    assert made.manifest.counts.dropped == {"no_answer": 1, "bad_messages": 3}
    assert [row["messages"] for row in records(made, "en")] == [turns("hi", "hello"), turns("a", "b", "c")]


def test_held_out_documents_are_carried_by_language_and_never_packed(tmp_path, tokenizer):
    first = make_artifact(tmp_path, "a", {"train/0.parquet": texts("en", 5), "heldout/0.parquet": texts("en", 3, 100)})
    second = make_artifact(
        tmp_path, "b", {"train/0.parquet": texts("en", 5, 50), "heldout/0.parquet": texts("en", 2, 200)}
    )
    # Two sources may read one input: its held-out documents are there once.
    sources = [{"name": "a", "input": 0}, {"name": "again", "input": 0}, {"name": "b", "input": 1}]
    made = pack(tmp_path, tokenizer, sources, first, second)
    heldout = read_table(made, "heldout/en.parquet")["id"].to_pylist()
    assert heldout == [row["id"] for row in texts("en", 3, 100) + texts("en", 2, 200)]
    assert not set(heldout) & {row["id"] for name in ("a", "again", "b") for row in records(made, name)}
    leaky = make_artifact(tmp_path, "c", {"train/0.parquet": texts("en", 5), "heldout/0.parquet": texts("en", 1, 4)})
    with pytest.raises(DataFault, match="both for training and held out"):
        pack(tmp_path, tokenizer, [{"name": "c", "input": 0}], leaky)


def test_same_bytes_however_often_it_is_interrupted(tmp_path, tokenizer, monkeypatch):
    rows = texts("en", 40)
    artifact = make_artifact(tmp_path, "x", {f"train/{i}.parquet": rows[i * 10 : i * 10 + 10] for i in range(4)})
    sources, budget = [{"name": "en", "input": 0, "max_epochs": 2}], {"total_tokens": 300}
    whole = pack(tmp_path / "whole", tokenizer, sources, artifact, **budget)
    begun: list[str] = []
    unit = Workspace.unit

    def failing(self, key):
        begun.append(key)
        if len(begun) % 3 == 0:
            raise KeyboardInterrupt
        return unit(self, key)

    monkeypatch.setattr(Workspace, "unit", failing)
    for _ in range(20):
        try:
            broken = pack(tmp_path / "broken", tokenizer, sources, artifact, **budget)
            break
        except KeyboardInterrupt:
            continue
    assert broken.manifest.content_digest == whole.manifest.content_digest
    assert len(set(begun)) == 9, "4 counts, 4 writes, 1 mixture"
    assert len(begun) <= 9 + 4, "what was finished was not done again"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"name": "b", "input": 5}, "documents. has 1 entries", id="no such input"),
        pytest.param({"name": "a", "input": 0}, "must be there once", id="name twice"),
    ],
)
def test_config_refuses_unsound_sources(change, words):
    sources = ({"name": "a", "input": 0, "language": "en"}, {"language": "en"} | change)
    with pytest.raises(ValueError, match=words):
        PackConfig.model_validate({"documents": ("x",), "kind": "text", "sources": sources, "total_tokens": 5})


def test_a_source_without_its_input_is_a_config_error(tmp_path, tokenizer):
    artifact = make_artifact(tmp_path, "x", {"train/0.parquet": texts("en", 2)})
    with pytest.raises(ConfigError, match="input=1, but the inputs are"):
        pack(tmp_path, tokenizer, [{"name": "en", "input": 1}], artifact)
    empty = make_artifact(tmp_path, "y", {"pages/0.parquet": texts("en", 2)})
    with pytest.raises(ConfigError, match="no shards under"):
        pack(tmp_path, tokenizer, [{"name": "en", "input": 0}], empty)
