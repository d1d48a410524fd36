"""Scores: one sidecar row for every document in its place, the same by any number of workers."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tasks.artifact import Artifact, produce
from tasks.classify.config import CutConfig, ScoreConfig
from tasks.classify.cut import CUT
from tasks.classify.histogram import bins
from tasks.classify.score import SCORE
from tasks.shards import read_table
from tests.tasks.classify.conftest import LEARNED, SHOP, corpus, document, texts

ROOT = Path(__file__).resolve().parents[3]


def score(store, classifier: Artifact, documents: Artifact, **changes: object) -> Artifact:
    inputs = {"documents": documents, "classifier": classifier}
    return produce(str(store), SCORE, "s", ScoreConfig(workers=1).with_changes(changes), inputs)


def test_every_document_has_one_score_in_its_place_and_no_text_is_written(tmp_path, classifier, mixed):
    made = score(tmp_path, classifier, mixed)
    assert [e.path for e in made.files("annotations/")] == [f"annotations/{n}.parquet" for n in range(3)]
    for shard in ("0", "1", "2"):
        rows = read_table(made, f"annotations/{shard}.parquet")
        assert rows["id"].to_pylist() == read_table(mixed, f"docs/{shard}.parquet")["id"].to_pylist()
        assert rows.column_names == ["id", "group", "score"]
    assert (made.manifest.counts.in_, made.manifest.counts.out) == (300, 300)


def test_documents_worth_learning_from_score_higher(tmp_path, classifier, mixed):
    rows = read_table(score(tmp_path, classifier, mixed, group_by="source"), "annotations/").to_pydict()
    value, group = np.array(rows["score"]), np.array(rows["group"])
    assert set(group) == {"wiki", "shop"}
    assert value[group == "wiki"].min() > value[group == "shop"].max()
    assert ((value > 0) & (value < 1)).all()


def test_the_histograms_are_those_of_the_sidecars(tmp_path, classifier, mixed):
    made = score(tmp_path, classifier, mixed, group_by="source")
    rows = read_table(made, "annotations/")
    stored = made.read_json("histograms.json")
    assert (stored["highest"], stored["group_by"]) == (1, "source")
    for name in ("wiki", "shop"):
        mine = rows.filter(np.array(rows["group"].to_pylist()) == name)["score"].to_numpy()
        expected: dict[str, int] = {}
        for place in sorted(bins(mine, 1).tolist()):
            expected[str(place)] = expected.get(str(place), 0) + 1
        assert stored["groups"][name] == expected


def test_two_workers_write_the_bytes_of_one(tmp_path, classifier, mixed):
    one = score(tmp_path / "one", classifier, mixed)
    two = score(tmp_path / "two", classifier, mixed, workers=2)
    assert one.manifest.content_digest == two.manifest.content_digest
    assert one.manifest.fingerprint == two.manifest.fingerprint


@pytest.mark.parametrize(
    ("facts", "group"),
    [
        pytest.param({"meta": json.dumps({"snapshot": "CC-MAIN-2023-50"})}, "CC-MAIN-2023-50", id="named by the crawl"),
        pytest.param({"crawl_time": "2023-12-01T00:00:00Z"}, "2023-12", id="its month"),
        pytest.param({"meta": json.dumps({"title": '"snapshot": "x"'})}, "unknown", id="a title is no snapshot"),
        pytest.param({}, "unknown", id="nothing is known"),
    ],
)
def test_a_document_belongs_to_its_crawl(tmp_path, classifier, facts, group):
    documents = corpus(tmp_path / "docs", "one", {"0": [document("水は流れる。", "a", 0, **facts)]})
    assert read_table(score(tmp_path, classifier, documents), "annotations/")["group"].to_pylist() == [group]


def test_a_shard_without_documents_has_a_sidecar_without_rows(tmp_path, classifier):
    rows = [document(text, "a", n) for n, text in enumerate(texts(LEARNED + SHOP, 3, 5))]
    documents = corpus(tmp_path / "docs", "gap", {"0": rows, "1": []})
    made = score(tmp_path, classifier, documents)
    assert read_table(made, "annotations/1.parquet").num_rows == 0
    assert made.manifest.counts.out == 3


@pytest.mark.slow
def test_seven_workers_and_a_kill_end_with_the_bytes_of_one(tmp_path, classifier):
    """Both stages: a run whose workers are killed in the middle, then gone on with by seven."""
    rows = [document(text, "wiki", n) for n, text in enumerate(texts(LEARNED + SHOP, 4000, 3))]
    shards = {f"{n:02d}": rows[n::40] for n in range(40)}
    calm, rough = (corpus(tmp_path / name, "many", shards) for name in ("calm", "rough"))
    one = score(tmp_path / "calm", classifier, calm)
    program = (
        "import sys; from tasks.artifact import open_artifact, produce; from tasks.classify.config import ScoreConfig; "
        "from tasks.classify.score import SCORE; store, docs, model = sys.argv[1:]; "
        "produce(store, SCORE, 's', ScoreConfig(workers=2), "
        "{'documents': open_artifact(docs), 'classifier': open_artifact(model)})"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "rough"), rough.url, classifier.url]
    run = subprocess.Popen(command, cwd=ROOT)
    while not (found := list((tmp_path / "rough").glob("score/*/ledger/*.json"))):
        assert run.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    run.kill()
    run.wait()
    assert not list((tmp_path / "rough").glob("score/*/MANIFEST.json"))
    assert len(found) < 40
    seven = score(tmp_path / "rough", classifier, rough, workers=7)
    assert seven.manifest.content_digest == one.manifest.content_digest
    cuts = [
        produce(
            str(tmp_path / name),
            CUT,
            "c",
            CutConfig(workers=workers),
            {"documents": documents, "scores": scores},
        ).manifest
        for name, workers, documents, scores in (("calm", 1, calm, one), ("rough", 7, rough, seven))
    ]
    assert cuts[0].content_digest == cuts[1].content_digest
    assert [(e.path, e.sha256) for e in cuts[0].rejects] == [(e.path, e.sha256) for e in cuts[1].rejects]
    assert cuts[0].counts.in_ == 4000 == cuts[0].counts.out + cuts[0].counts.dropped["low_quality_score"]
