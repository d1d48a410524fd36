"""New documents against finished artifacts: what one of them kept is not kept again."""

import pytest

from tasks.errors import DataFault
from tests.tasks.ingest.dedup.small_corpora import (
    CONFIG,
    NO_HELDOUT,
    dedup,
    document,
    edited,
    outcomes,
    prose,
    rejects,
)


def old_and_new(tmp_path, config=NO_HELDOUT, shards=1):
    text = prose(3)
    old = dedup(tmp_path / "old", [document(i, prose(i)) for i in range(6)] + [document(7, text[:-1])], config, 2)
    rows = [
        document(100, prose(1)),  # an exact copy of a kept one
        document(101, edited(prose(2), 1, 3) + "長い続き"),  # near one, and longer
        document(102, prose(102)),
        document(103, edited(text[:-1], 5, 1)),  # near one that was dropped, and so near the kept one too
        document(104, edited(prose(102), 2, 2)),  # near a new one
    ]
    return old, dedup(tmp_path / "new", rows, config, shards, against=[old])


def test_what_an_old_artifact_kept_is_dropped_with_evidence_whatever_the_policy_says(tmp_path):
    old, new = old_and_new(tmp_path, shards=2)
    fates = {int(name): fate for name, fate in outcomes(new).items()}
    assert fates == {
        100: "old_duplicate",
        101: "old_duplicate",
        102: "train",
        103: "old_duplicate",
        104: "near_duplicate",
    }
    kept = {row["id"][-3:]: (int(row["kept_id"]), row["similarity"]) for row in rejects(new)}
    assert kept["100"] == (1, 1.0)
    assert kept["101"][0] == 2
    assert kept["103"][0] == 3
    assert all(0.8 <= similarity <= 1 for _, similarity in kept.values())
    assert old.manifest.counts.dropped == {"near_duplicate": 1}
    report = new.read_json("dedup.json")
    assert (report["documents"], report["old_documents"]) == (5, 6)
    assert report["sources"]["docs"]["old_duplicate"] == 3


def test_old_documents_are_not_written_again_and_a_chain_of_crawls_works(tmp_path):
    old, new = old_and_new(tmp_path)
    assert new.manifest.counts.in_ == 5
    third = dedup(tmp_path / "third", [document(200, prose(4)), document(201, prose(102))], NO_HELDOUT, 1, [old, new])
    assert set(outcomes(third).values()) == {"old_duplicate"}


def test_training_documents_stay_away_from_old_heldout_text(tmp_path):
    old = dedup(tmp_path / "old", [document(i, prose(i, 200)) for i in range(30)])
    held = [number for number, fate in outcomes(old).items() if fate == "heldout"]
    passage = prose(int(held[0]), 200)
    rows = [document(100, prose(500) + passage + prose(501)), document(101, prose(502))]
    new = dedup(tmp_path / "new", rows, NO_HELDOUT, against=[old])
    assert outcomes(new) == {f"{100:016d}": "heldout_overlap", f"{101:016d}": "train"}
    assert rejects(new)[0]["kept_id"] == held[0]


@pytest.mark.parametrize("change", [{"ngram": 4}, {"bands": 19}, {"seed": 1}, {"shingle": "word"}])
def test_an_index_of_another_sketch_is_refused(tmp_path, change):
    old = dedup(tmp_path / "old", [document(1, prose(1))])
    with pytest.raises(DataFault, match=r"against .*its index is \{.*this run makes .*never meet.*same values"):
        dedup(tmp_path / "new", [document(2, prose(2))], CONFIG.with_changes(change), against=[old])
