"""A teacher's marks against a scripted server: rows conserved, resumed, licensed, and trained on to the end."""

import json
from pathlib import Path

import pytest
import zstandard

from tasks.artifact import Artifact, produce
from tasks.classify.classifier import CLASSIFIER
from tasks.classify.config import AnnotateConfig, ClassifierConfig, CutConfig, ScoreConfig
from tasks.classify.cut import CUT
from tasks.classify.labels.annotate import ANNOTATE
from tasks.classify.score import SCORE
from tasks.errors import ConfigError, DataFault
from tasks.shards import read_table
from tests.tasks.classify.conftest import SMALL
from tests.tasks.generation.stub_api import StubApi, stub_api, text
from tests.tasks.tiny_teacher import teacher


def config(stub: StubApi, **changes: object) -> AnnotateConfig:
    base = AnnotateConfig(documents="d", teacher="t", language="ja", max_documents=30, min_yield=0.0)
    return base.with_changes({"serving.url": stub.url, **changes})


def sensible(prompt: str, before: int):
    """Three points for what can be learned, none for the shop, one where both stand together."""
    learned, shop = (
        any(word in prompt for word in words) for words in (("葉緑体", "水素", "定理", "細胞"), ("送料", "商品"))
    )
    return text(f"理由。\n点数: {1 if learned and shop else 3 if learned else 0}")


def run(store, documents: Artifact, config: AnnotateConfig, chat: bool = True) -> Artifact:
    inputs = {"documents": documents, "teacher": teacher(Path(store) / "t", chat)}
    return produce(str(store), ANNOTATE, "ja", config, inputs)


def test_marks_become_examples_with_the_teachers_licence(tmp_path, mixed):
    with stub_api(sensible) as stub:
        made = run(tmp_path, mixed, config(stub))
    rows = read_table(made, "examples/").to_pylist()
    assert {(row["source"], row["label"]) for row in rows} == {("wiki", 3), ("shop", 0)}
    assert (made.manifest.counts.in_, made.manifest.counts.out) == (30, 30)
    assert made.manifest.teachers == ("Tiny-Teacher",)
    assert made.manifest.licences == ("Apache-2.0", "CC-BY-SA-4.0")
    assert made.manifest.tokens == 90
    system, user = stub.bodies[0]["messages"]
    assert (system["role"], user["role"], stub.bodies[0]["temperature"]) == ("system", "user", 0.0)
    assert user["content"].startswith("<<<\n")


def test_answers_without_a_mark_are_counted_by_reason_and_kept_aside(tmp_path, mixed):
    def script(prompt: str, before: int):
        if "葉緑体" in prompt:
            return text("点数: 7")
        if "定理" in prompt:
            return text("三点です。")
        return (400, "too long") if "送料" in prompt else text("点数: 1")

    with stub_api(script) as stub:
        made = run(tmp_path, mixed, config(stub))
    counts = made.manifest.counts
    assert set(counts.dropped) == {"out_of_range", "unparsed", "dead_rejected"}
    assert counts.in_ == 30 == counts.out + sum(counts.dropped.values())
    files = sorted((Path(made.url) / "rejects").rglob("*.zst"))
    data = b"".join(zstandard.ZstdDecompressor().stream_reader(f.read_bytes()).read() for f in files)
    said = {row["reason"]: row for row in map(json.loads, data.splitlines())}
    assert said["out_of_range"]["answer"] == "点数: 7"
    assert "葉緑体" in said["out_of_range"]["text"]
    assert said["dead_rejected"]["message"] == "HTTP 400: too long"


def test_only_as_many_documents_as_wanted_are_asked_about(tmp_path, mixed):
    with stub_api(sensible) as stub:
        made = run(tmp_path, mixed, config(stub, max_documents=25, sources=["wiki"]))
        assert sum(stub.asked.values()) == 25
    assert {row["source"] for row in read_table(made, "examples/").to_pylist()} == {"wiki"}


def test_a_run_that_dies_asks_only_what_is_missing(tmp_path, mixed):
    def dies(prompt: str, before: int):
        return sensible(prompt, before) if "葉緑体" in prompt else text("...")

    with stub_api(sensible) as stub:
        whole = run(tmp_path / "whole", mixed, config(stub))
    with stub_api(dies) as stub, pytest.raises(DataFault, match="min_yield"):
        run(tmp_path / "cut", mixed, config(stub, min_yield=0.9, preview_requests=10))
    with stub_api(sensible) as stub:
        first = run(tmp_path / "again", mixed, config(stub))
        asked = stub.asked.total()
        again = run(tmp_path / "again", mixed, config(stub, heldout_fraction=0.5))
        assert stub.asked.total() == asked, "another split asks nothing"
    assert first.manifest.content_digest == whole.manifest.content_digest
    assert again.manifest.counts.out == 30


def test_a_base_model_is_not_asked(tmp_path, mixed):
    with stub_api(sensible) as stub, pytest.raises(ConfigError, match="base model"):
        run(tmp_path, mixed, config(stub), chat=False)


def test_from_a_teachers_marks_to_the_best_tenth(trains, tmp_path, mixed):
    store = str(tmp_path)
    with stub_api(sensible) as stub:
        examples = run(tmp_path, mixed, config(stub, max_documents=80))
    settings = ClassifierConfig(**SMALL)
    classifier = produce(store, CLASSIFIER, "ja", settings, {"examples": examples})
    inputs = {"documents": mixed, "classifier": classifier}
    scores = produce(store, SCORE, "ja", ScoreConfig(group_by="source", workers=1), inputs)
    kin = {"documents": mixed, "scores": scores}
    made = produce(store, CUT, "ja", CutConfig(top_fraction=0.1, per="all", workers=1), kin)
    found = classifier.read_json("metrics.json")
    assert found["marks"] == [0, 3]
    assert found["quadratic_kappa"] > 0.9
    assert scores.read_json("histograms.json")["highest"] == 3
    assert set(read_table(made, "docs/")["source"].to_pylist()) == {"wiki"}
    assert made.manifest.counts.out == pytest.approx(30, abs=15)
    assert made.manifest.teachers == ("Tiny-Teacher",), "whoever releases the corpus must know who marked it"
    assert "Apache-2.0" in made.manifest.licences
