"""Near copies against a slow oracle: every pair compared in the total order, in one block or in many."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.dedup.near import part_bytes
from tests.tasks.ingest.dedup.small_corpora import NO_HELDOUT, dedup, document, edited, outcomes, prose

EVERY_PAIR = NO_HELDOUT.with_changes({"bands": 1000, "rows": 1})  # meets at any similarity worth speaking of
MANY_BLOCKS = EVERY_PAIR.with_changes({"memory_bytes": 8 << 20})  # 1,000 bands: some 20 documents a block


def slow_fates(rows: list[dict[str, str]], most: int = 10**9, threshold: float = 0.8) -> dict[str, str]:
    """The definition: in order, against everything kept so far that has a shingle in common, best first."""
    kept: list[set[str]] = []
    fates: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (-len(row["text"]), row["id"])):
        own = {row["text"][i : i + 5] for i in range(len(row["text"]) - 4)}
        near = [len(own & other) / len(own | other) for other in kept if own & other][:most]
        fates[row["id"]] = "near_duplicate" if any(share >= threshold for share in near) else "train"
        if fates[row["id"]] == "train":
            kept.append(own)
    return dict(sorted(fates.items()))


def crowded(rng: random.Random, count: int) -> list[dict[str, str]]:
    """Documents of one template, some of them near copies of each other: all in one component."""
    template = prose(0, 120)
    texts: list[str] = []
    for seed in range(count):
        if texts and rng.random() < 0.5:
            texts.append(edited(rng.choice(texts), seed, rng.choice((1, 2, 4))) + "末" * rng.randrange(3))
        else:
            texts.append(template + prose(1000 + seed, rng.randrange(60, 140)))
    return [document(i, text) for i, text in enumerate(texts)]


@given(st.integers(0, 10_000))
@settings(max_examples=2, deadline=None)
def test_what_goes_is_what_a_comparison_of_all_pairs_in_order_says(tmp_path_factory, seed):
    rows = crowded(random.Random(seed), 60)
    assert len(rows) * 1000 * 200 > 2 * part_bytes(MANY_BLOCKS)  # the component does not fit in a block
    folder = tmp_path_factory.mktemp("near")
    expected = slow_fates(rows)
    made = dedup(folder / "b", rows, MANY_BLOCKS, shards=2)
    assert outcomes(made) == expected
    assert made.read_json("dedup.json")["largest_component"]["documents"] == 60


@pytest.mark.parametrize("most", [1, 3])
def test_work_on_a_giant_component_is_bounded_and_the_bound_is_the_same_in_one_block_or_many(tmp_path, most):
    rows = crowded(random.Random(7), 60)
    found = []
    for name, config in (("one", EVERY_PAIR), ("many", MANY_BLOCKS)):
        made = dedup(tmp_path / name, rows, config.with_changes({"max_comparisons": most}))
        report = made.read_json("dedup.json")
        assert report["comparisons"] <= most * len(rows)
        assert report["cut_short"] > 0
        found.append((outcomes(made), report["cut_short"], report["comparisons"]))
    assert found[0] == found[1]
    assert found[0][0] == slow_fates(rows, most)
    everything = dedup(tmp_path / "all", rows, EVERY_PAIR)
    assert everything.read_json("dedup.json")["cut_short"] == 0
    assert everything.manifest.counts.out < sum(fate == "train" for fate in found[0][0].values())
