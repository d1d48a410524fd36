"""A curriculum in the feed: shares of each phase, nothing out of its phase, and a resume across the boundary."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.pack.config import Phase
from tasks.train.feed.batches import prefetched
from tasks.train.feed.ledger import token_ledger
from tasks.train.feed.phases import lagging_source, unreached
from tests.tasks.train.feed.sample import CHATS, DOCUMENTS, open_feed, same, take
from tests.tasks.training_data import make_pack

TOTAL = 2000
NAMES = list(DOCUMENTS)


@pytest.fixture(scope="module")
def packs(tmp_path_factory, tokenizer_artifact):
    store = tmp_path_factory.mktemp("phases")
    text = (
        Phase(name="first", share=5, weights={"ja": 2, "en": 1}),
        Phase(name="second", share=3, weights={"en": 1, "ja": 1}),
        Phase(name="last", share=2, weights={"code": 1}),
    )
    chat = (Phase(name="first", share=1, weights={"a": 1, "b": 1}), Phase(name="last", share=1, weights={"b": 1}))
    return {
        "text": make_pack(store, tokenizer_artifact, DOCUMENTS, total_tokens=TOTAL, phases=text),
        "chat": make_pack(store, tokenizer_artifact, CHATS, kind="chat", total_tokens=4000, phases=chat),
    }


def test_mixture_says_what_each_phase_plans_and_gets(packs):
    mixture = packs["text"].read_json("mixture.json")
    plan = [(p["name"], p["total_tokens"], p["missing_tokens"], p["sources"]) for p in mixture["phases"]]
    assert [(name, total, missing) for name, total, missing, _ in plan] == [
        ("first", 1000, 0),
        ("second", 600, 0),
        ("last", 400, 0),
    ]
    assert [[part[3][name]["budget_tokens"] for name in NAMES] for part in plan] == [
        [667, 333, 0],
        [300, 300, 0],
        [0, 0, 400],
    ]
    assert [s["budget_tokens"] for s in mixture["sources"]] == [967, 633, 400]
    assert unreached(mixture, 1600) == ["last"]
    assert unreached(mixture, 1601) == []


@pytest.mark.parametrize("streams", [1, 2, 4])
def test_a_phase_takes_only_its_sources_in_its_shares(packs, tokenizer, streams):
    _, sources, batches = open_feed(packs, tokenizer, streams=streams)
    longest = max(len(tokenizer.document(row["text"])) for rows in DOCUMENTS.values() for row in rows)
    plan = packs["text"].read_json("mixture.json")["phases"]
    iterator, ends, before = iter(batches), [1000, 1600, 2000], ()
    while True:
        next(iterator)
        ledger = token_ledger(sources, tokenizer, batches.cfg, iterator.get_state())
        tokens = {source["name"]: source["tokens"] for source in ledger["sources"]}
        total = sum(tokens.values())
        if total > 1600 + longest * streams:
            assert before in ((), (tokens["ja"], tokens["en"])), "the last part is of one source alone"
            before = tokens["ja"], tokens["en"]
            if total > TOTAL + 600:
                break
        phase = next((n for n, end in enumerate(ends) if total <= end), 2)
        planned = dict.fromkeys(NAMES, Fraction(0))
        for number in range(phase + 1):
            size = plan[number]["total_tokens"]
            part = Fraction(total - (ends[number] - size), size) if number == phase else 1
            for name in NAMES:
                planned[name] += part * plan[number]["sources"][name]["budget_tokens"]
        for name in NAMES:
            assert abs(tokens[name] - planned[name]) <= 2 * longest * streams, (phase, name)
        if phase == 0:
            assert tokens["code"] == 0


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 12), st.sampled_from([1, 2, 4]), st.sampled_from(["text", "chat"]))
def test_resume_at_any_place_gives_the_very_next_batches(packs, tokenizer, position, streams, kind):
    _, _, batches = open_feed(packs, tokenizer, kind, streams=streams)
    undisturbed = iter(batches)
    take(undisturbed, position)
    state = json.loads(json.dumps(undisturbed.get_state()))
    expected = take(undisturbed, 5)
    resumed = iter(open_feed(packs, tokenizer, kind, streams=streams)[2])
    resumed.set_state(state)
    assert all(same(a, b) for a, b in zip(expected, take(resumed, 5), strict=True))
    assert resumed.get_state() == undisturbed.get_state()


def test_hosts_go_through_the_phases_together(packs, tokenizer):
    whole = iter(open_feed(packs, tokenizer, streams=4)[2])
    parts = [iter(open_feed(packs, tokenizer, streams=4, host=host, hosts=2)[2]) for host in range(2)]
    for batch in take(whole, 10):
        rows = [next(part) for part in parts]
        assert same(batch, {name: np.concatenate([part[name] for part in rows]) for name in batch})


def test_worker_processes_change_phase_where_one_process_does(packs, tokenizer):
    """10 batches of 256 tokens go through all three phases."""
    _, _, batches = open_feed(packs, tokenizer)
    plain, workers = iter(batches), prefetched(open_feed(packs, tokenizer)[2], 1)
    seen = set()
    for _ in range(10):
        expected = next(plain)
        assert same(expected, next(workers))
        seen |= set(expected["sources_BT"].ravel().tolist())
    workers.close()
    assert seen == {0, 1, 2}


def test_no_document_is_seen_twice_before_its_source_was_seen_once(packs, tokenizer):
    """A later phase goes on in the order of a source where the phase before stopped."""
    _, sources, batches = open_feed(packs, tokenizer, streams=1)
    iterator = iter(batches)
    for _ in range(7):
        next(iterator)
    for source in token_ledger(sources, tokenizer, batches.cfg, iterator.get_state())["sources"]:
        times = [int(n) for n in source["seen"]]
        assert max(times) - min(times) <= 1


def test_a_document_longer_than_a_phase_does_not_bring_back_its_sources():
    phases = [[10, 0, 10], [0, 30, 0], [0, 10, 10]]
    assert lagging_source(phases, [0, 0, 0], 1) == 0
    assert lagging_source(phases, [45, 0, 0], 1) == 1, "source 2 never came in the first phase, and is not in this one"
    assert lagging_source(phases, [20, 30, 0], 1) == 2, "the last phase has it, and it lags most"
    assert lagging_source(phases, [20, 30, 1000], 1) == 1, "behind the end its shares go on"
    assert lagging_source(phases, [9, 0, 0], 2) == 2
