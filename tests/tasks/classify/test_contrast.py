"""Examples by origin: who is drawn, who is left out and why, and which texts are held out."""

import operator
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifact import Artifact, produce
from tasks.classify.config import ContrastConfig, Side
from tasks.classify.labels.contrast import CONTRAST
from tasks.classify.labels.examples import EXAMPLE, is_heldout, ranks, sample_limit, text_key
from tasks.errors import ConfigError, DataFault
from tasks.shards import read_table
from tests.tasks.artifacts import artifact
from tests.tasks.classify.conftest import LEARNED, SHOP, contrast_config, corpus, document, texts


def rows(made: Artifact) -> list[dict]:
    return read_table(made, "examples/").to_pylist()


def draw(store, documents: Artifact, **changes: object) -> Artifact:
    return produce(str(store), CONTRAST, "x", contrast_config(**changes), {"documents.0": documents})


def test_sources_give_labels_and_every_draw_is_accounted_for(examples):
    found = rows(examples)
    assert read_table(examples, "examples/").schema == EXAMPLE
    assert {(row["source"], row["label"]) for row in found} == {("wiki", 1), ("shop", 0)}
    assert examples.manifest.counts.in_ == 300 == len(found)
    assert examples.manifest.licences == ("CC-BY-SA-4.0",)
    held = np.mean([row["heldout"] for row in found])
    assert 0.2 < held < 0.4


def test_a_sample_is_the_same_however_the_shards_are_cut(tmp_path, mixed):
    every = read_table(mixed, "docs/").to_pylist()
    random.Random(3).shuffle(every)
    other = corpus(tmp_path / "other", "other", {"0": every[:5], "1": every[5:299], "2": every[299:]})
    sides = {
        "positives": [{"input": 0, "sources": ["wiki"], "max_documents": 50}],
        "negatives": [{"input": 0, "sources": ["shop"], "max_documents": 70}],
    }
    one, two = rows(draw(tmp_path / "one", mixed, **sides)), rows(draw(tmp_path / "two", other, **sides))
    by_id = operator.itemgetter("id")
    assert sorted(one, key=by_id) == sorted(two, key=by_id)
    assert sum(row["label"] for row in one) == 50
    assert len(one) == 120
    again = rows(draw(tmp_path / "three", mixed, **sides, seed=1))
    assert {row["id"] for row in again} != {row["id"] for row in one}


def test_a_text_on_both_sides_a_copy_and_an_empty_one_are_left_out(tmp_path):
    shared, twice = "水は水素と酸素から成る。", "光合成は葉緑体で行われる。"
    documents = corpus(
        tmp_path,
        "dirty",
        {
            "0": [
                document(shared, "wiki", 0),
                document(twice, "wiki", 1),
                document(f" {twice}\n", "wiki", 2),  # the same line to fastText
                document(" \n　", "wiki", 3),
                document("細胞。", "wiki", 4),
            ],
            "1": [document(shared, "shop", 0), document("送料無料。", "shop", 1)],
        },
    )
    made = draw(tmp_path, documents)
    assert made.manifest.counts.dropped == {"both_sides": 2, "duplicate": 1, "empty": 1}
    assert {row["text"] for row in rows(made)} == {twice, "細胞。", "送料無料。"}
    assert made.manifest.counts.in_ == 7


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=60, unique=True), st.integers(1, 20), st.randoms())
@settings(max_examples=50)
def test_the_limit_of_a_sample_is_the_nth_smallest_rank_in_any_order(values, count, draw_order):
    limit = sorted(values)[min(count, len(values)) - 1]
    shuffled = list(values)
    draw_order.shuffle(shuffled)
    parts = [np.array(shuffled[i : i + 7], np.uint64) for i in range(0, len(shuffled), 7)]
    assert sample_limit(parts, count) == limit


def test_nothing_has_no_sample():
    assert sample_limit([], 5) == -1
    assert len(ranks([], 0)) == 0


@given(st.text(max_size=20), st.sampled_from([" ", "\n", "\u3000", "\0", "\r\n"]))
@settings(max_examples=50)
def test_texts_that_are_one_line_to_fasttext_never_part(text, space):
    assert text_key(f"{space}{text}{space}") == text_key(text)
    assert is_heldout(text_key(text), 1.0)
    assert not is_heldout(text_key(text), 0.0)


def test_two_artifacts_can_be_the_two_sides(tmp_path):
    good = corpus(tmp_path, "good", {"0": [document(t, "a", n) for n, t in enumerate(texts(LEARNED, 8, 1))]})
    bad = corpus(tmp_path, "bad", {"0": [document(t, "a", n) for n, t in enumerate(texts(SHOP, 9, 2))]})
    config = ContrastConfig(documents=("g", "b"), positives=(Side(input=0),), negatives=(Side(input=1),))
    made = produce(str(tmp_path), CONTRAST, "x", config, {"documents.0": good, "documents.1": bad})
    assert [row["label"] for row in rows(made)].count(1) == 8
    assert made.manifest.counts.out == 17


def test_a_source_that_is_not_there_is_named(tmp_path, mixed):
    with pytest.raises(DataFault, match="no document of wikipedia"):
        draw(tmp_path, mixed, positives=[{"input": 0, "sources": ["wikipedia"]}])


def test_an_artifact_without_documents_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no shards under train/ or docs/"):
        draw(tmp_path, artifact(tmp_path, "mirror", "x", {"pages/0.parquet": b""}))


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        pytest.param({"negatives": [{"input": 1}]}, "input=1 of 1", id="an input that is not there"),
        pytest.param({"negatives": [{"input": 0, "sources": ["wiki"]}]}, "'wiki'.*both sides", id="a source twice"),
        pytest.param({"negatives": [{"input": 0}]}, "both sides", id="all of it against a part"),
    ],
)
def test_sides_that_share_documents_are_refused_before_anything_is_read(sides, message):
    with pytest.raises(ValueError, match=message):
        contrast_config(**sides)
