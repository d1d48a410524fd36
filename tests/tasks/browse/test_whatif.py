"""What other thresholds would keep, against filtering all texts again with those thresholds."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.browse.shelf import Shelf
from tasks.browse.whatif import SAMPLES, Sidecar
from tasks.errors import ConfigError
from tasks.ingest.filters import FILTERS
from tasks.ingest.filters.verdicts import judge
from tasks.ingest.texts import Texts
from tests.tasks.browse.conftest import FILTER_RULES, PAGES, make_clean
from tests.tasks.training_data import document, make_artifact

TEXTS = Texts([page["text"] for page in PAGES])


@pytest.fixture(scope="module")
def sidecar(made):
    return Sidecar(Shelf(made.artifact))


def thresholds(sidecar, **moved):
    names = [limit.reason for limit in sidecar.limits]
    assert moved.keys() <= set(names)
    return [moved.get(limit.reason, limit.threshold) for limit in sidecar.limits]


def test_unmoved_thresholds_change_nothing(sidecar, made):
    found = sidecar.what_if(thresholds(sidecar))
    counts = made.artifact.manifest.counts
    assert (found.total.judged, found.total.kept, found.total.then) == (counts.in_, counts.out, counts.out)
    assert (found.total.gained, found.total.lost, found.unlike, found.gained, found.lost) == (0, 0, 0, (), ())
    assert {reason: now for reason, (now, then) in found.reasons.items() if now} == counts.dropped
    assert (found.shards, found.of_shards) == (3, 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 900), st.integers(0, 80), st.integers(20, 200))
def test_counts_are_those_of_filtering_again(sidecar, made, min_chars, min_mean, max_mean):
    moved = thresholds(sidecar, too_short=min_chars, short_sentences=min_mean, long_sentences=max_mean)
    found = sidecar.what_if(moved)
    rules = {
        **FILTER_RULES,
        "length": {"min_chars": min_chars},
        "sentences": {"min_mean_chars": min_mean, "max_mean_chars": max_mean},
    }
    applied = {name: FILTERS[name].rules.model_validate(said) for name, said in rules.items()}
    now, then = judge(TEXTS, made.filters).reasons, judge(TEXTS, applied).reasons
    missed = (
        0  # those that only an expensive filter drops, which had not seen them: the one thing a sidecar cannot know
    )
    gained, lost, kept = Counter(), Counter(), Counter()
    for page, before, after in zip(PAGES, now, then, strict=True):
        kept[page["source"]] += before is None
        lost[page["source"]] += before is None and after is not None
        is_unseen = before is not None and (after is None or "gram" in after)
        gained[page["source"]] += is_unseen
        missed += is_unseen and after is not None
    for name, change in found.sources.items():
        assert (change.kept, change.gained, change.lost) == (kept[name], gained[name], lost[name])
    assert missed <= found.unmeasured <= found.total.gained
    after = Counter(reason for reason in then if reason)
    cheap = {reason: number for reason, (_, number) in found.reasons.items() if number and "gram" not in reason}
    assert cheap == {reason: number for reason, number in after.items() if "gram" not in reason}
    assert len(found.gained) == min(SAMPLES, found.total.gained)
    assert len(found.lost) == min(SAMPLES, found.total.lost)
    by_id = {page["id"]: (before, end) for page, before, end in zip(PAGES, now, then, strict=True)}
    for changed in found.lost:
        row = sidecar.shelf.rows(changed.place, 1)[0]
        assert by_id[row["id"]] == (None, changed.reason)
    for changed in found.gained:
        row = sidecar.shelf.rows(changed.place, 1)[0]
        assert by_id[row["id"]][0] == changed.reason == row["reason"]


def test_a_value_at_the_threshold_is_kept_and_one_beyond_it_is_not(sidecar):
    lengths = sorted({len(page["text"]) for page in PAGES if len(page["text"]) < 200})
    at = sidecar.what_if(thresholds(sidecar, too_short=lengths[-1])).reasons["too_short"]
    above = sidecar.what_if(thresholds(sidecar, too_short=lengths[-1] + 0.5)).reasons["too_short"]
    longest = sum(len(page["text"]) == lengths[-1] for page in PAGES)
    assert at[1] + longest == above[1] == at[0]


@pytest.mark.parametrize("cache_bytes", [0, 3000, 1 << 30])
def test_a_small_cache_gives_the_same_counts_and_stays_small(made, sidecar, cache_bytes):
    small = Sidecar(Shelf(made.artifact), cache_bytes)
    moved = thresholds(sidecar, too_short=300)
    assert small.what_if(moved) == small.what_if(moved) == sidecar.what_if(moved)
    held = sum(part.nbytes for part in small._cache.values())
    assert held <= cache_bytes
    assert bool(held) == (cache_bytes > 0)


def test_a_time_limit_says_how_far_it_came(sidecar):
    found = sidecar.what_if(thresholds(sidecar, too_short=300), seconds=0)
    assert (found.shards, found.of_shards, found.total.judged) == (1, 3, 60)


def test_the_sample_is_fair_and_the_same_each_time(made, monkeypatch):
    monkeypatch.setattr("tasks.browse.whatif.SAMPLE_ROWS", 40)
    first, second = (Sidecar(Shelf(made.artifact)).sample["length.chars"] for _ in range(2))
    assert np.array_equal(first, second)
    assert len(first) == 40
    later = {float(len(page["text"])) for page in PAGES[61:]}
    assert 10 < sum(value in later for value in first.tolist()) < 35, "89 of 150 pages are in the last shard"


def test_a_reason_that_is_no_limit_stays_whatever_the_thresholds(tmp_path, monkeypatch):
    """A row that another step dropped after the filters is not brought back by them."""
    real = judge

    def stricter(texts, applied):
        found = real(texts, applied)
        reasons = ["secret" if i == 0 and reason is None else reason for i, reason in enumerate(found.reasons)]
        return type(found)(found.columns, reasons)

    monkeypatch.setattr("tests.tasks.browse.conftest.judge", stricter)
    long = [document("長い文章がここにある。" * 30 + f"{i}。") for i in range(3)]
    other = Sidecar(Shelf(make_clean(tmp_path, {"length": {"min_chars": 10}}, [long]).artifact))
    found = other.what_if(thresholds(other, too_short=0))
    assert (found.total.judged, found.total.kept, found.total.gained, found.unlike) == (3, 2, 0, 0)


def test_verdicts_of_other_filters_are_said_to_be_unlike(tmp_path):
    made = make_clean(tmp_path, {"length": {"min_chars": 200}}, [PAGES[:20]])
    shelf = Shelf(made.artifact)
    sidecar = Sidecar(shelf)
    shelf.artifact.manifest.config["filters"]["length"]["min_chars"] = 0
    expected = sum(len(page["text"]) < 200 for page in PAGES[:20])
    assert sidecar.what_if(thresholds(sidecar)).unlike == expected > 0


def test_an_artifact_without_a_sidecar_has_no_limits(tmp_path, sidecar):
    plain = Sidecar(Shelf(make_artifact(tmp_path, "x", {"train/0.parquet": [document("text")]})))
    assert plain.limits == ()
    with pytest.raises(ConfigError, match="2 thresholds for 0 limits"):
        plain.what_if([1, 2])
