"""Deduplication: what is dropped was measured, what is held out is alone, and nothing depends on order."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifact import Artifact, produce
from tasks.errors import DataFault
from tasks.ingest.config import DedupConfig
from tasks.ingest.dedup import DEDUP, HeldoutIndex, decide
from tasks.ingest.shingles import comparable, jaccard, shingles
from tasks.records import DOCUMENT, table
from tasks.shards import read_documents

CONFIG = DedupConfig(bands=20, rows=5, min_jaccard=0.8, heldout_fraction=0.1, max_source_loss=1.0)


def document(number: int, text: str, source: str = "docs") -> dict[str, str]:
    fixed = {"url": f"u{number}", "language": "ja", "licence": "MIT", "crawl_time": "", "meta": "{}"}
    return {"id": f"{number:016d}", "text": text, "source": source} | fixed


def prose(seed: int, size: int = 300) -> str:
    rng = random.Random(seed)
    return "".join(chr(0x4E00 + rng.randrange(3000)) for _ in range(size))


def edited(text: str, seed: int, edits: int) -> str:
    rng = random.Random(seed)
    letters = list(text)
    for position in rng.sample(range(len(letters)), edits):
        letters[position] = chr(0x3041 + rng.randrange(80))
    return "".join(letters)


def write(folder: Path, rows: list[dict[str, str]], shards: int = 1) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, str] = {}
    for number in range(shards):
        path = folder / f"{number:05d}.parquet"
        pq.write_table(table(rows[number::shards], DOCUMENT), path)
        paths[f"docs/{path.name}"] = str(path)
    return paths


def verdicts(folder: Path, rows: list[dict[str, str]], config: DedupConfig = CONFIG, shards: int = 1) -> dict[str, str]:
    """id -> 'train', 'heldout' or the reason of the drop."""
    decision = decide(write(folder, rows, shards), config)
    found: dict[str, str] = {}
    for i, name in enumerate(decision.index.ids):
        kept = "heldout" if i in decision.heldout else "train"
        found[name] = decision.dropped[i].reason if i in decision.dropped else kept
    return found


NO_HELDOUT = CONFIG.with_changes({"heldout_fraction": 0.0})


def test_copies_go_and_the_smallest_id_stays(tmp_path):
    rows = [document(3, "同じ文書 です"), document(1, "同じ文書\nです"), document(2, "別の文書")]
    assert verdicts(tmp_path, rows, NO_HELDOUT) == {
        "0000000000000001": "train",
        "0000000000000002": "train",
        "0000000000000003": "exact_duplicate",
    }


def test_of_near_duplicates_the_longest_stays(tmp_path):
    text = prose(1)
    rows = [document(1, text), document(2, text + "続き")]
    assert list(verdicts(tmp_path, rows, NO_HELDOUT).values()) == ["near_duplicate", "train"]


@pytest.mark.parametrize("edits", [3, 6, 9, 12, 20, 40])
def test_the_threshold_is_exact_and_not_a_matter_of_luck(tmp_path, edits):
    text, other = prose(1), edited(prose(1), 2, edits)
    similarity = jaccard(shingles(comparable(text), 5), shingles(comparable(other), 5))
    rows = [document(1, text), document(2, other)]
    every_pair = NO_HELDOUT.with_changes({"bands": 200, "rows": 1})
    for limit, expected in ((similarity, 1), (min(1.0, similarity + 1e-9), 0)):
        found = verdicts(tmp_path, rows, every_pair.with_changes({"min_jaccard": limit}))
        assert list(found.values()).count("near_duplicate") == expected


def test_a_chain_of_matches_does_not_take_its_ends_along(tmp_path):
    """Each link is alike its neighbours, the ends are not alike: only documents near a kept one may go."""
    chain = [prose(1, 300)]
    for step in range(1, 12):
        chain.append(chain[-1][20:] + prose(100 + step, 20))
    rows = [document(i, text) for i, text in enumerate(chain)]
    found = verdicts(tmp_path, rows, NO_HELDOUT.with_changes({"bands": 100, "rows": 2}))
    kept = [i for i, row in enumerate(rows) if found[row["id"]] == "train"]
    assert len(kept) >= 4
    for row in rows:
        sets = shingles(comparable(row["text"]), 5)
        alike = [jaccard(sets, shingles(comparable(chain[k]), 5)) >= 0.8 for k in kept]
        assert any(alike) if found[row["id"]] == "near_duplicate" else sum(alike) == 1


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_no_order_and_no_sharding_shows_in_the_result(tmp_path_factory, data):
    rng = random.Random(data.draw(st.integers(0, 10_000)))
    texts = [prose(seed, rng.randrange(30, 200)) for seed in range(8)]
    texts += [edited(rng.choice(texts), seed, 3) for seed in range(6)] + [rng.choice(texts) for _ in range(3)]
    rows = [document(i, text) for i, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("docs")
    expected = verdicts(folder / "a", rows)
    rng.shuffle(rows)
    assert verdicts(folder / "b", rows, shards=data.draw(st.integers(1, 4))) == expected


def test_the_choice_of_heldout_documents_depends_on_the_text_alone(tmp_path):
    texts = [prose(seed) for seed in range(60)]
    first = verdicts(tmp_path / "a", [document(i, text) for i, text in enumerate(texts)])
    moved = [document(i, text) | {"url": f"elsewhere/{i}", "source": "other"} for i, text in enumerate(texts)]
    assert verdicts(tmp_path / "b", moved) == first
    more = [*moved, *[document(100 + seed, prose(100 + seed)) for seed in range(20)]]
    later = verdicts(tmp_path / "c", more)
    assert {name: later[name] for name in first} == first
    assert 1 <= list(first.values()).count("heldout") <= 15


def test_there_is_at_least_one_heldout_document_and_a_lone_one_is_trained_on(tmp_path):
    tiny = CONFIG.with_changes({"heldout_fraction": 1e-9})
    assert sorted(verdicts(tmp_path, [document(i, prose(i)) for i in range(5)], tiny).values()).count("heldout") == 1
    assert list(verdicts(tmp_path, [document(1, prose(1))], tiny).values()) == ["train"]
    assert verdicts(tmp_path, [], tiny) == {}


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_no_training_document_is_near_a_heldout_one(tmp_path_factory, data):
    """Checked by brute force over all pairs, with buckets so few that the sketch alone would miss most."""
    rng = random.Random(data.draw(st.integers(0, 10_000)))
    texts = [prose(seed, rng.randrange(60, 200)) for seed in range(8)]
    texts += [edited(rng.choice(texts), seed, rng.choice((2, 5, 9))) for seed in range(10)]
    texts += [prose(500 + i, 150) + rng.choice(texts) + prose(600 + i, 150) for i in range(4)]  # holds one whole
    config = CONFIG.with_changes({"bands": 1, "rows": 20, "heldout_fraction": 0.3})
    folder = tmp_path_factory.mktemp("docs")
    found = verdicts(folder, [document(i, text) for i, text in enumerate(texts)], config)
    by_fate = {
        fate: [t for t, f in zip(texts, found.values(), strict=True) if f == fate] for fate in set(found.values())
    }
    for held in by_fate.get("heldout", []):
        for trained in by_fate.get("train", []):
            a, b = comparable(held), comparable(trained)
            assert jaccard(shingles(a, 5), shingles(b, 5)) < config.min_jaccard
            passages = {a[i : i + config.overlap_ngram] for i in range(max(1, len(a) - config.overlap_ngram + 1))}
            assert sum(passage in b for passage in passages) <= config.max_heldout_overlap * len(passages)


@given(st.lists(st.sets(st.integers(0, 30), min_size=1), min_size=1, max_size=8), st.sets(st.integers(0, 30)))
def test_shared_shingles_are_counted_for_every_heldout_document(members, own):
    index = HeldoutIndex.__new__(HeldoutIndex)
    flat = [(value, i) for i, member in enumerate(members) for value in member]
    flat.sort()
    index.members = list(range(len(members)))
    index._hashes = np.array([value for value, _ in flat], np.uint64)
    index._owners = np.array([owner for _, owner in flat])
    found = index.shared(np.array(sorted(own), np.uint64))
    assert found.tolist() == [len(member & own) for member in members]


def test_a_source_that_loses_too_much_stops_the_run_with_its_evidence(tmp_path):
    same = [document(i, prose(1) + str(i), source="broken") for i in range(30)]
    rows = same + [document(100 + i, prose(100 + i)) for i in range(30)]
    config = CONFIG.with_changes({"max_source_loss": 0.5})
    with pytest.raises(DataFault, match=r"source 'broken' would lose 29 of 30 documents \(97%\).*Pairs: .* ~ .*raise"):
        verdicts(tmp_path, rows, config)
    assert verdicts(tmp_path, rows, config.with_changes({"max_source_loss": 0.97}))


def fake_docs(folder: Path, rows: list[dict[str, str]], shards: int) -> Artifact:
    """A finished artifact of clean documents, made by a stage that only writes."""
    from tasks.artifact import Stage
    from tasks.config import StageConfig

    def run(workspace, config, inputs):
        for number in range(shards):
            with workspace.unit(str(number)) as unit:
                part = rows[number::shards]
                unit.count(rows_in=len(part), rows_out=len(part))
                unit.write_parquet(f"docs/{number:05d}.parquet", table(part, DOCUMENT))

    return produce(str(folder), Stage("docs", "1", run, ("tasks.records",)), "x", StageConfig(), {})


def test_the_stage_writes_train_and_heldout_and_keeps_the_evidence(tmp_path):
    text = prose(1)
    rows = [document(i, prose(i)) for i in range(1, 40)] + [document(90, text), document(91, edited(text, 1, 3))]
    docs = fake_docs(tmp_path, rows, shards=3)
    made = produce(str(tmp_path), DEDUP, "x", CONFIG, {"docs": docs})
    counts = made.manifest.counts
    assert (counts.in_, counts.out) == (41, 39)
    assert counts.dropped == {"exact_duplicate": 1, "near_duplicate": 1}
    ids = {
        part: [name for batch in read_documents(made, part) for name in batch.column("id").to_pylist()]
        for part in ("train/", "heldout/")
    }
    assert not set(ids["train/"]) & set(ids["heldout/"])
    assert len(ids["train/"]) + len(ids["heldout/"]) == 39
    schemas = {batch.schema for batch in read_documents(made, "train/")}
    assert schemas == {pa.schema(DOCUMENT)}
    assert len([entry for entry in made.manifest.files if entry.path.startswith("train/")]) == 3
