"""Deduplication: what is dropped was measured, what is held out is alone, and nothing depends on order or memory."""

import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifact import ConservationError
from tasks.errors import DataFault
from tasks.ingest.comparable import comparable
from tasks.ingest.dedup import stage
from tasks.ingest.shingles import jaccard, shingles
from tasks.records import DOCUMENT
from tasks.shards import read_documents
from tests.tasks.ingest.dedup.small_corpora import (
    CONFIG,
    NO_HELDOUT,
    dedup,
    document,
    edited,
    ids,
    outcomes,
    prose,
    rejects,
)


def verdicts(folder, rows, config=CONFIG, shards=1):
    return outcomes(dedup(folder, rows, config, shards))


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


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        pytest.param(("2024-01-01", "2025-01-01T00:00:00Z", ""), 2, id="the newest, although it is shorter"),
        pytest.param(("", "", ""), 1, id="the longest, where no time is known"),
        pytest.param(("2025-01-01T09:00:00+09:00", "2025-01-01T00:00:00Z", "2024-12-31"), 1, id="one instant"),
        pytest.param(("yesterday", "2001-01-01", ""), 2, id="what is not a time is unknown"),
    ],
)
def test_the_newest_stays_when_that_is_the_policy(tmp_path, times, kept):
    text = prose(1)
    texts = [text + "続き", text, text[:-1]]
    rows = [document(i, t, crawl_time=when) for i, (t, when) in enumerate(zip(texts, times, strict=True), 1)]
    found = verdicts(tmp_path, rows, NO_HELDOUT.with_changes({"keep": "newest"}))
    assert [int(name) for name, fate in found.items() if fate == "train"] == [kept]


@pytest.mark.parametrize("edits", [3, 9, 20, 40])
def test_the_threshold_is_exact_and_not_a_matter_of_luck(tmp_path, edits):
    text, other = prose(1), edited(prose(1), 2, edits)
    similarity = jaccard(shingles(comparable(text), 5), shingles(comparable(other), 5))
    rows = [document(1, text), document(2, other)]
    every_pair = NO_HELDOUT.with_changes({"bands": 200, "rows": 1})
    for limit, expected in ((similarity, 1), (min(1.0, similarity + 1e-9), 0)):
        found = verdicts(tmp_path, rows, every_pair.with_changes({"min_jaccard": limit}))
        assert list(found.values()).count("near_duplicate") == expected


def test_texts_shorter_than_a_shingle_go_only_as_exact_copies(tmp_path):
    rows = [document(1, "四文字だ"), document(2, "四文字よ"), document(3, "四文字だ"), document(4, ""), document(5, "")]
    loose = NO_HELDOUT.with_changes({"bands": 200, "rows": 1, "min_jaccard": 0.01})
    fates = list(verdicts(tmp_path, rows, loose).values())
    assert fates == ["train", "train", "exact_duplicate", "train", "exact_duplicate"]
    alike = [document(1, "五文字です"), document(2, "五文字です!")]
    assert list(verdicts(tmp_path / "b", alike, loose).values()) == ["near_duplicate", "train"]


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


def test_evidence_always_names_a_document_that_stays(tmp_path):
    """A copy of a document that goes as a near duplicate goes for the same kept one."""
    text = prose(1)
    shorter = text[:-2]
    made = dedup(tmp_path, [document(1, text), document(2, shorter), document(3, shorter)], NO_HELDOUT)
    evidence = {row["id"][-1]: (row["reason"], row["kept_id"][-1]) for row in rejects(made)}
    assert evidence == {"2": ("near_duplicate", "1"), "3": ("near_duplicate", "1")}
    assert all(0.8 <= row["similarity"] < 1 for row in rejects(made))


@given(st.data())
@settings(max_examples=4, deadline=None)
def test_no_order_no_sharding_and_no_memory_shows_in_the_result(tmp_path_factory, data):
    rng = random.Random(data.draw(st.integers(0, 10_000)))
    texts = [prose(seed, rng.randrange(30, 200)) for seed in range(8)]
    texts += [edited(rng.choice(texts), seed, 3) for seed in range(6)] + [rng.choice(texts) for _ in range(3)]
    rows = [document(i, text) for i, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("docs")
    expected = verdicts(folder / "a", rows)
    rng.shuffle(rows)
    small = CONFIG.with_changes({"memory_bytes": 8 << 20})
    assert verdicts(folder / "b", rows, small, shards=data.draw(st.integers(1, 4))) == expected


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
    many = [document(i, prose(i)) for i in range(5)]
    found = verdicts(tmp_path / "a", many, tiny, shards=3)
    assert list(found.values()).count("heldout") == 1
    assert verdicts(tmp_path / "b", many[::-1], tiny) == found
    assert list(verdicts(tmp_path / "c", [document(1, prose(1))], tiny).values()) == ["train"]
    assert verdicts(tmp_path / "d", [], tiny) == {}


@given(st.data())
@settings(max_examples=4, deadline=None)
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


def test_a_source_that_loses_too_much_stops_the_run_with_its_evidence(tmp_path):
    same = [document(i, prose(1) + str(i), source="broken") for i in range(30)]
    rows = same + [document(100 + i, prose(100 + i)) for i in range(30)]
    config = CONFIG.with_changes({"max_source_loss": 0.5})
    shared = prose(1)[:20]
    with pytest.raises(
        DataFault,
        match=rf"source 'broken' would lose 29 of 30 documents \(97%\).*Pairs: .* ~ .*of 30 documents.*{shared}.*raise",
    ):
        verdicts(tmp_path, rows, config)
    assert verdicts(tmp_path, rows, config.with_changes({"max_source_loss": 0.97}))
    assert verdicts(tmp_path, rows, config.with_changes({"source_loss": {"broken": 0.97}}))
    with pytest.raises(DataFault, match="would lose 29 of 30"):
        verdicts(tmp_path, rows, config.with_changes({"max_source_loss": 1.0, "source_loss": {"broken": 0.96}}))


def test_the_stage_writes_train_and_heldout_and_keeps_the_evidence(tmp_path):
    text = prose(1)
    rows = [document(i, prose(i)) for i in range(1, 40)] + [document(90, text), document(91, edited(text, 1, 3))]
    made = dedup(tmp_path, rows, CONFIG, shards=3)
    counts = made.manifest.counts
    assert (counts.in_, counts.out) == (41, 39)
    assert counts.dropped == {"exact_duplicate": 1, "near_duplicate": 1}
    train, heldout = ids(made, "train/"), ids(made, "heldout/")
    assert not set(train) & set(heldout)
    assert len(train) + len(heldout) == 39
    assert {batch.schema for batch in read_documents(made, "train/")} == {pa.schema(DOCUMENT)}
    assert len([entry for entry in made.manifest.files if entry.path.startswith("train/")]) == 3
    written = [row for batch in read_documents(made, "verdicts/") for row in batch.to_pylist()]
    assert {row["reason"] for row in written} == {"exact_duplicate", "near_duplicate"}
    report = made.read_json("dedup.json")
    assert report["sources"]["docs"] == {
        "documents": 41,
        "exact_duplicate": 1,
        "near_duplicate": 1,
        "old_duplicate": 0,
        "loss": round(2 / 41, 4),
    }
    assert made.manifest.extra["heldout"] == len(heldout)


def test_heldout_documents_that_nobody_wrote_stop_the_run(tmp_path, monkeypatch):
    def forgetful(workspace, sources, shard):
        with workspace.unit(f"heldout/{shard.path}") as unit:
            unit.write_parquet(f"heldout/{shard.path}", DOCUMENT.empty_table())

    monkeypatch.setattr(stage, "write_heldout", forgetful)
    with pytest.raises(ConservationError, match=r"the inputs hold 30 rows, the units took in 2\d:"):
        dedup(tmp_path, [document(i, prose(i)) for i in range(30)], CONFIG.with_changes({"heldout_fraction": 0.2}))
