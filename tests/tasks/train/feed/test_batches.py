"""Hosts share the streams: whoever makes a row, it is the same row, before and after their number changes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError
from tasks.train.feed.batches import global_state, host_state, host_streams, prefetched
from tasks.train.feed.ledger import token_ledger
from tests.tasks.train.feed.sample import CHATS, open_feed, same, take
from tests.tasks.training_data import chat, make_pack, turns

STREAMS, BATCHES, MORE = 4, 24, 2
SIZE = {"streams": STREAMS, "seq_len": 48}


def side_by_side(parts):
    """The batch that the devices see when host after host gives its rows."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.fixture(scope="module")
def packs(packs, tmp_path_factory, tokenizer_artifact):
    """With conversations that have no room for an answer."""
    long = [chat(turns(f"{number} {'again ' * 90}", "yes")) for number in range(3)]
    rows = CHATS | {"b": CHATS["b"] + long}
    return packs | {"chat": make_pack(tmp_path_factory.mktemp("long"), tokenizer_artifact, rows, kind="chat")}


@pytest.fixture(scope="module")
def one_host(packs, tokenizer):
    """What a single host reads: for each kind the batches, and the position before each of them."""
    found = {}
    for kind in ("text", "chat"):
        cfg, sources, batches = open_feed(packs, tokenizer, kind, **SIZE)
        iterator = iter(batches)
        states = [json.loads(json.dumps(iterator.get_state()))]
        rows = []
        for _ in range(BATCHES):
            rows.append(next(iterator))
            states.append(json.loads(json.dumps(iterator.get_state())))
        found[kind] = rows, states, token_ledger(sources, tokenizer, cfg, states[-1])
    return found


def test_the_data_mixes_cuts_and_skips_and_the_ledger_says_so(one_host, tokenizer):
    """Otherwise what follows would prove less than it says."""
    rows, _, ledger = one_host["chat"]
    assert ledger["truncated"] > 0
    assert ledger["skipped"] > 0
    begun = sum(((row["tokens_BT"] == tokenizer.bos_id) & (row["segments_BT"] > 0)).sum() for row in rows)
    waiting = sum(source["drawn"] for source in ledger["sources"]) - begun
    assert 0 < waiting <= ledger["skipped"], "those left out were taken up, and none of those that wait for a row"
    for kind, sources in (("text", 3), ("chat", 2)):
        assert sum(source["learned"] > 0 for source in one_host[kind][2]["sources"]) == sources
    assert max(row["segments_BT"].max() for row in one_host["text"][0]) > 1


@settings(max_examples=6, deadline=None)
@given(
    kind=st.sampled_from(["text", "chat"]),
    hosts=st.sampled_from([1, 2, 4]),
    then=st.sampled_from([1, 2, 4]),
    at=st.integers(0, BATCHES - 2 * MORE),
)
def test_hosts_make_their_rows_and_others_go_on_from_their_positions(packs, tokenizer, one_host, kind, hosts, then, at):
    rows, states, _ = one_host[kind]
    state = states[at]
    for number, first in ((hosts, at), (then, at + MORE)):
        feeds = [iter(open_feed(packs, tokenizer, kind, h, number, **SIZE)[2]) for h in range(number)]
        for host, feed in enumerate(feeds):
            feed.set_state(host_state(state, host, number))
        for want in rows[first : first + MORE]:
            assert same(want, side_by_side([next(feed) for feed in feeds]))
        state = json.loads(json.dumps(global_state([feed.get_state() for feed in feeds])))
        assert state == states[first + MORE]


@pytest.mark.parametrize(
    ("kind", "runs"),
    [
        pytest.param("text", [(1, 3), (2, 1), (4, 0)], id="documents"),
        pytest.param("chat", [(2, 1), (1, 2), (2, 0)], id="conversations"),
    ],
)
def test_the_numbers_of_hosts_and_workers_may_change_at_every_save(packs, tokenizer, one_host, kind, runs):
    rows, states, _ = one_host[kind]
    state, at = states[0], 0
    for hosts, workers in runs:
        made = [open_feed(packs, tokenizer, kind, h, hosts, **SIZE)[2] for h in range(hosts)]
        feeds = [prefetched(batches, workers) for batches in made]
        try:
            for host, feed in enumerate(feeds):
                feed.set_state(host_state(state, host, hosts))
            for _ in range(5):
                assert global_state([feed.get_state() for feed in feeds]) == states[at]
                assert same(rows[at], side_by_side([next(feed) for feed in feeds]))
                at += 1
            state = json.loads(json.dumps(global_state([feed.get_state() for feed in feeds])))
        finally:
            for feed in feeds:
                feed.close()
    assert state == states[at]


@given(st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(1, 6))
def test_a_position_split_for_hosts_and_put_together_is_the_same(hosts, more):
    state = {"streams": [{"draws": [i]} for i in range(hosts * more)]}
    parts = [host_state(state, host, hosts) for host in range(hosts)]
    assert {len(part["streams"]) for part in parts} == {more}
    assert global_state(parts) == state


def test_hosts_that_cannot_have_equal_shares_are_refused(packs, tokenizer):
    assert [list(host_streams(6, host, 3)) for host in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ConfigError, match="4 hosts cannot share streams=6"):
        host_streams(6, 0, 4)
    with pytest.raises(ConfigError, match="3 hosts cannot share streams=2"):
        open_feed(packs, tokenizer, host=0, hosts=3)
    with pytest.raises(ConfigError, match="streams=3 does not divide the 4 rows"):
        open_feed(packs, tokenizer, streams=3)


def test_the_number_of_workers_is_chosen_by_cores_and_bounded_by_streams(packs, tokenizer, monkeypatch):
    batches = open_feed(packs, tokenizer, streams=2)[2]
    chosen = {}
    for cores in (1, 3, 4, 8, 64):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        feed = prefetched(batches, None)
        chosen[cores] = getattr(feed, "_number", 0)  # no process is started before the first batch
        feed.close()
    assert chosen == {1: 0, 3: 0, 4: 1, 8: 2, 64: 2}


def test_another_position_may_be_set_while_batches_are_made_ahead(packs, tokenizer, one_host):
    rows, states, _ = one_host["text"]
    for workers in (0, 2):
        feed = prefetched(open_feed(packs, tokenizer, **SIZE)[2], workers)
        take(feed, 2)
        feed.set_state(states[7])
        assert same(next(feed), rows[7])
        assert feed.get_state() == states[8]
        feed.close()
