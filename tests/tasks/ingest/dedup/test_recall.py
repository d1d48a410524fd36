"""Recall of the sketch against the theory, and against another implementation of MinHash."""

import random

import numpy as np
import pytest

from tasks.ingest.dedup.config import PRESETS, DedupConfig
from tasks.ingest.dedup.recall import measure_recall
from tasks.ingest.shingles import band_keys, flat_shingles
from tests.tasks.ingest.dedup.small_corpora import dedup, document, edited, prose


def texts(count: int, size: int = 600) -> list[str]:
    return [prose(seed, size) for seed in range(count)]


def words(count: int, size: int) -> list[str]:
    return [" ".join(prose(1000 * seed + i, 4) for i in range(size)) for seed in range(count)]


def sigma(row: dict[str, float]) -> float:
    return max((row["theory"] * (1 - row["theory"]) / row["pairs"]) ** 0.5, 1 / row["pairs"])


@pytest.mark.parametrize("name", [*PRESETS])
def test_every_preset_finds_what_theory_says(name):
    config = PRESETS[name].with_changes({"recall_pairs": 250})
    found = measure_recall(config, words(20, 120) if config.shingle == "word" else texts(20), seed=3)
    assert sum(row["pairs"] for row in found["strata"]) == 250
    for row in found["strata"]:
        assert abs(row["recall"] - row["theory"]) <= 4 * sigma(row), row
    assert found["precision"] == 1.0
    assert found["removed"] > 50
    assert found["unrelated_candidates"] == 0
    assert {row["from"] for row in found["strata"]} >= {0.7, 0.75, 0.8, 0.85, 0.9, 0.95}


def test_knees_are_where_the_documents_say():
    """Where half of the pairs meet."""
    knees = {"swallow": 0.82, "fineweb": 0.685, "cjk-short": 0.47}
    for name, knee in knees.items():
        meets = PRESETS[name].candidate_probability
        assert meets(knee - 0.01) < 0.5 < meets(knee + 0.01)
    swallow = DedupConfig(bands=20, rows=20)
    assert swallow.candidate_probability(0.84) < 0.5 < swallow.candidate_probability(0.87)
    assert swallow.candidate_probability(0.9) == pytest.approx(0.9252, abs=1e-3)


def test_the_measure_is_the_same_every_time_and_says_nothing_without_text():
    config = DedupConfig(bands=10, rows=5, recall_pairs=20)
    assert measure_recall(config, texts(5)) == measure_recall(config, texts(5))
    assert measure_recall(config, []) == {}
    assert measure_recall(config, ["短い"]) == {}


def test_the_report_of_a_corpus_holds_its_recall(tmp_path):
    rows = [document(i, prose(i)) for i in range(5)]
    config = DedupConfig(bands=10, rows=5, recall_pairs=30, workers=1, max_source_loss=1.0)
    assert dedup(tmp_path, rows, config).read_json("dedup.json")["recall"]["pairs"] == 30


@pytest.mark.slow
def test_recall_agrees_with_datasketch_on_planted_pairs():
    """datasketch: other hashes of the same sets of shingles. The two recalls differ by no more than chance allows."""
    from datasketch import MinHash

    bands, rows, n = 20, 20, 400
    rng = random.Random(1)
    met = {"ours": np.zeros(n, bool), "theirs": np.zeros(n, bool)}
    theory = np.zeros(n)
    for i in range(n):
        left = prose(i, 500)
        right = edited(left, rng.randrange(10**6), rng.randrange(1, 18))
        sets = [{text[k : k + 5] for k in range(len(text) - 4)} for text in (left, right)]
        similarity = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        theory[i] = DedupConfig(bands=bands, rows=rows).candidate_probability(similarity)
        keys = band_keys(*flat_shingles([left, right], 5), (bands, rows), seed=0)
        met["ours"][i] = (keys[0] == keys[1]).any()
        theirs = []
        for own in sets:
            sketch = MinHash(num_perm=bands * rows, seed=5)
            sketch.update_batch([shingle.encode() for shingle in own])
            theirs.append(sketch.hashvalues.reshape(bands, rows))
        met["theirs"][i] = (theirs[0] == theirs[1]).all(axis=1).any()
    spread = (theory * (1 - theory)).sum() ** 0.5
    for found in met.values():
        assert abs(found.sum() - theory.sum()) <= 3.5 * spread
