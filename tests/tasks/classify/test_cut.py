"""The cut: what is kept, row by row; who is compared with whom; when nothing is cut at all."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tasks.artifact import Artifact, produce
from tasks.classify.config import CutConfig
from tasks.classify.cut import CUT
from tasks.classify.histogram import as_json, count_bins
from tasks.classify.score import SCORES
from tasks.errors import ConfigError, DataFault
from tasks.records import DOCUMENT
from tasks.shards import read_table
from tests.tasks.artifacts import artifact
from tests.tasks.classify.conftest import corpus, document

SECOND = float(np.linspace(0.5, 0.95, 20)[-2])  # the second best score of `two_groups`


def scored(
    store: Path, name: str, shards: dict[str, list[tuple[str, float]]], *, model: str = "m"
) -> dict[str, Artifact]:
    """Documents with given (source, score), and their scores grouped by source, as the score stage leaves them."""
    rows = {s: [document(f"文{s}{n}", g, n) for n, (g, _) in enumerate(pairs)] for s, pairs in shards.items()}
    documents = corpus(store, name, rows)
    files: dict[str, bytes | pa.Table] = {}
    histograms: dict[str, np.ndarray] = {}
    for shard, pairs in shards.items():
        groups, values = [g for g, _ in pairs], np.array([v for _, v in pairs])
        columns = [pa.array([row["id"] for row in rows[shard]]), pa.array(groups), pa.array(values, pa.float64())]
        files[f"annotations/{shard}.parquet"] = pa.Table.from_arrays(columns, schema=SCORES)
        count_bins(histograms, values, groups, 1.0)
    stored = {"group_by": "source", "highest": 1, "groups": as_json(histograms)}
    files["histograms.json"] = json.dumps(stored).encode()
    parents = {"documents": documents, "classifier": artifact(store, "classifier", model, {"x": model.encode()})}
    return {"documents": documents, "scores": artifact(store, "score", name, files, parents=parents)}


def cut(store: Path, inputs: dict[str, Artifact], **changes: object) -> Artifact:
    if "reference" in inputs:
        changes["reference"] = "r"
    return produce(str(store), CUT, "c", CutConfig(workers=1).with_changes(changes), inputs)


def kept(made: Artifact) -> set[str]:
    return set(read_table(made, "docs/")["text"].to_pylist())


def spread(group: str, low: float, high: float, count: int) -> list[tuple[str, float]]:
    return [(group, float(v)) for v in np.linspace(low, high, count)]


@pytest.fixture
def two_groups(tmp_path) -> dict[str, Artifact]:
    """Group `good` scores 0.5 to 0.95, group `bad` 0.05 to 0.4: 20 documents each, over two shards."""
    good, bad = spread("good", 0.5, 0.95, 20), spread("bad", 0.05, 0.4, 20)
    return scored(tmp_path, "two", {"0": good[:10] + bad[:15], "1": bad[15:] + good[10:]})


def test_each_group_keeps_its_own_best_and_all_rows_are_accounted_for(tmp_path, two_groups):
    made = cut(tmp_path, two_groups, top_fraction=0.1)
    rows = read_table(made, "docs/")
    assert rows.schema == DOCUMENT
    assert sorted(rows["source"].to_pylist()) == ["bad", "bad", "good", "good"]
    assert kept(made) == {"文13", "文14", "文113", "文114"}
    assert made.manifest.counts.in_ == 40
    assert made.manifest.counts.dropped == {"low_quality_score": 36}
    assert made.manifest.extra["kept_share"] == {"bad": 0.1, "good": 0.1}


def test_all_groups_together_keep_the_best_of_all(tmp_path, two_groups):
    rows = read_table(cut(tmp_path, two_groups, top_fraction=0.1, per="all"), "docs/")
    assert rows["source"].to_pylist() == ["good"] * 4


@pytest.mark.parametrize(
    ("least", "count"),
    [
        pytest.param(SECOND, 2, id="the score itself is enough"),
        pytest.param(SECOND + 1e-9, 1, id="a little more is not"),
    ],
)
def test_a_least_score_is_exact_although_bins_are_wide(tmp_path, two_groups, least, count):
    made = cut(tmp_path, two_groups, top_fraction=None, min_score=least)
    assert made.manifest.counts.out == count
    assert made.read_json("cut.json")["thresholds"]["good"]["kept"] == count


def test_a_least_score_that_nothing_reaches_is_no_corpus(tmp_path, two_groups):
    with pytest.raises(DataFault, match=r"none of 40 documents is kept by min_score=0\.96(.|\n)*about 0\.9"):
        cut(tmp_path, two_groups, top_fraction=None, min_score=0.96)


def test_the_best_and_the_band_below_it_are_the_best_of_both_without_overlap(tmp_path, two_groups):
    """recipes.md 4.3: an ablation mixed the top 10 % with the band of 10 to 30 %."""
    best = cut(tmp_path / "best", two_groups, top_fraction=0.1)
    band = cut(tmp_path / "band", two_groups, top_fraction=0.3, skip_fraction=0.1)
    both = cut(tmp_path / "both", two_groups, top_fraction=0.3)
    assert not kept(best) & kept(band)
    assert kept(best) | kept(band) == kept(both)
    assert band.manifest.counts.dropped == {"low_quality_score": 28, "above_band": 4}
    assert band.read_json("cut.json")["thresholds"]["good"]["kept"] == 4


def test_a_band_within_one_bin_keeps_nothing_and_is_refused(tmp_path):
    same = scored(tmp_path, "same", {"0": [("a", 0.5)] * 10})
    with pytest.raises(DataFault, match=r"none of 10 documents is kept by(.|\n)*skip_fraction=0\.1"):
        cut(tmp_path, same, top_fraction=0.3, skip_fraction=0.1)


def test_what_is_dropped_says_its_score_and_group(tmp_path, two_groups):
    made = cut(tmp_path, two_groups)
    files = sorted((Path(made.url) / "rejects").rglob("*.zst"))
    data = b"".join(zstandard.ZstdDecompressor().stream_reader(f.read_bytes()).read() for f in files)
    rows = [json.loads(line) for line in data.splitlines()]
    assert len(rows) == 36
    worst = min(rows, key=lambda row: row["score"])
    assert (worst["reason"], worst["group"], worst["score"]) == ("low_quality_score", "bad", 0.05)
    assert worst["text"] == read_table(two_groups["documents"], "docs/0.parquet")["text"].to_pylist()[10]


def test_other_shards_with_the_same_documents_keep_the_same(tmp_path):
    pairs = spread("a", 0.1, 0.9, 30)
    one = scored(tmp_path / "one", "x", {"0": pairs})
    rows = read_table(one["documents"], "docs/").to_pylist()
    parts = {"0": slice(0, 7), "1": slice(7, 8), "2": slice(8, 30)}
    documents = corpus(tmp_path / "many", "x", {name: rows[part] for name, part in parts.items()})
    table = read_table(one["scores"], "annotations/")
    files: dict[str, bytes | pa.Table] = {
        f"annotations/{name}.parquet": table.slice(part.start, part.stop - part.start) for name, part in parts.items()
    }
    files["histograms.json"] = one["scores"].read_bytes("histograms.json")
    parents = {"documents": documents, "classifier": artifact(tmp_path, "classifier", "m", {"x": b"m"})}
    many = {"documents": documents, "scores": artifact(tmp_path / "many", "score", "x", files, parents=parents)}
    assert kept(cut(tmp_path / "one", one)) == kept(cut(tmp_path / "many", many))


def test_a_dump_like_the_last_one_raises_no_alarm(tmp_path, caplog):
    old = scored(tmp_path, "old", {"0": spread("2023-01", 0.1, 0.9, 200)})
    new = scored(tmp_path, "new", {"0": spread("2023-02", 0.1, 0.9, 100)})
    with caplog.at_level(logging.WARNING):
        made = cut(tmp_path, new | {"reference": old["scores"]}, max_drift=0.25)
    assert made.manifest.extra["warnings"] == []
    assert made.read_json("cut.json")["drift"]["2023-02"]["psi"] < 0.1
    assert not [r for r in caplog.records if "PSI" in r.getMessage()]


def test_a_dump_that_moved_warns_and_stops_only_when_told_to(tmp_path, caplog):
    old = scored(tmp_path, "old", {"0": spread("2023-01", 0.1, 0.9, 200)})
    new = scored(tmp_path, "new", {"0": spread("2023-02", 0.1, 0.6, 100)})
    inputs = new | {"reference": old["scores"]}
    with caplog.at_level(logging.WARNING):
        made = cut(tmp_path, inputs)
    found = made.read_json("cut.json")["drift"]["2023-02"]["psi"]
    assert found > 0.25
    assert made.manifest.extra["warnings"][0].startswith("(all) PSI")
    assert "Scores have moved" in made.read_bytes("report.html").decode()
    assert [r for r in caplog.records if "warn_drift" in r.getMessage()]
    assert cut(tmp_path, inputs, max_drift=found + 1e-6).manifest.counts.out == 10
    with pytest.raises(DataFault, match=r"2023-02 PSI .*above max_drift") as error:
        cut(tmp_path, inputs, max_drift=found - 1e-6)
    assert "train the classifier anew" in str(error.value)


def test_scores_of_other_documents_or_another_classifier_are_refused(tmp_path, two_groups):
    other = scored(tmp_path, "other", {"0": spread("good", 0.1, 0.9, 40)}, model="another")
    with pytest.raises(ConfigError, match="Give the scores of these documents"):
        cut(tmp_path, {"documents": other["documents"], "scores": two_groups["scores"]})
    with pytest.raises(ConfigError, match="two classifiers cannot be compared"):
        cut(tmp_path, two_groups | {"reference": other["scores"]})


@pytest.mark.parametrize("change", ["order", "missing", "more"])
def test_a_sidecar_that_is_not_row_by_row_is_refused(tmp_path, two_groups, change):
    table = read_table(two_groups["scores"], "annotations/0.parquet")
    changed = {"order": table.take(list(range(24, -1, -1))), "missing": table.slice(0, 24)}
    changed["more"] = pa.concat_tables([table, table.slice(0, 1)])
    files: dict[str, bytes | pa.Table] = {
        "annotations/0.parquet": changed[change],
        "annotations/1.parquet": read_table(two_groups["scores"], "annotations/1.parquet"),
        "histograms.json": two_groups["scores"].read_bytes("histograms.json"),
    }
    parents = {"documents": two_groups["documents"]}
    with pytest.raises(DataFault, match="row by row"):
        cut(tmp_path, two_groups | {"scores": artifact(tmp_path, "score", change, files, parents=parents)})


def test_histograms_that_are_not_those_of_the_sidecars_are_refused(tmp_path, two_groups):
    wrong = two_groups["scores"].read_json("histograms.json")
    wrong["groups"]["good"] = {place: 2 * n for place, n in wrong["groups"]["good"].items()}
    files: dict[str, bytes | pa.Table] = {
        f"annotations/{n}.parquet": read_table(two_groups["scores"], f"annotations/{n}.parquet") for n in (0, 1)
    }
    files["histograms.json"] = json.dumps(wrong).encode()
    parents = {"documents": two_groups["documents"]}
    with pytest.raises(DataFault, match="kept and promised"):
        cut(tmp_path, two_groups | {"scores": artifact(tmp_path, "score", "wrong", files, parents=parents)})


def test_exactly_one_rule_says_what_is_kept():
    with pytest.raises(ValueError, match="exactly one"):
        CutConfig(top_fraction=0.1, min_score=2.0)
    with pytest.raises(ValueError, match="exactly one"):
        CutConfig(top_fraction=None)
    with pytest.raises(ValueError, match="the smaller share"):
        CutConfig(top_fraction=0.1, skip_fraction=0.1)
    with pytest.raises(ValueError, match="without a reference"):
        CutConfig(max_drift=0.2)


def test_documents_and_scores_are_matched_whatever_their_row_groups(tmp_path):
    """3,000 rows are several batches of documents; the scores come in row groups of another size."""
    pairs = spread("a", 0.1, 0.9, 3000)
    inputs = scored(tmp_path, "long", {"0": pairs})
    table = read_table(inputs["scores"], "annotations/")
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=700)
    files: dict[str, bytes | pa.Table] = {
        "annotations/0.parquet": sink.getvalue(),
        "histograms.json": inputs["scores"].read_bytes("histograms.json"),
    }
    other = artifact(tmp_path, "score", "groups", files, parents={"documents": inputs["documents"]})
    one, two = cut(tmp_path / "1", inputs), cut(tmp_path / "2", inputs | {"scores": other})
    assert one.files("docs/") == two.files("docs/")
    assert one.manifest.counts.out == pytest.approx(300, abs=one.read_json("cut.json")["thresholds"]["a"]["in_bin"])
