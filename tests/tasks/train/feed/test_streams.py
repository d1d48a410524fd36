"""The feed against a plain re-reading of the data: exact content, exact shares, exact resume, dense rows."""

import gzip
import json

import grain.experimental
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import DataFault
from tasks.tokens import TextTokenizer
from tasks.train.feed.batches import prefetched
from tasks.train.feed.ledger import token_ledger
from tasks.train.feed.sources import open_sources, permuted
from tests.tasks.train.feed.sample import CHATS, DOCUMENTS, WORDS, open_feed, same, take
from tests.tasks.training_data import SHARED, chat, document, make_pack, make_tokenizer, turns


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.sampled_from([1, 2, 4]), st.sampled_from(["text", "chat"]))
def test_resume_gives_the_very_next_batches(packs, tokenizer, position, streams, kind):
    _, _, batches = open_feed(packs, tokenizer, kind, streams=streams)
    undisturbed = iter(batches)
    take(undisturbed, position)
    state = json.loads(json.dumps(undisturbed.get_state()))
    expected = take(undisturbed, 5)
    resumed = iter(open_feed(packs, tokenizer, kind, streams=streams)[2])
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert all(same(a, b) for a, b in zip(expected, take(resumed, 5), strict=True))
    assert resumed.get_state() == undisturbed.get_state()


def test_prefetching_changes_neither_batches_nor_states(packs, tokenizer):
    plain, ahead = iter(open_feed(packs, tokenizer)[2]), prefetched(open_feed(packs, tokenizer)[2])
    for _ in range(20):
        assert same(next(plain), next(ahead))
        assert plain.get_state() == ahead.get_state()
    ahead.close()


def test_grain_agrees_that_it_can_be_checkpointed_anywhere(packs, tokenizer):
    for kind in ("text", "chat"):
        batches = open_feed(packs, tokenizer, kind)[2]
        limited = grain.experimental.LimitIterDataset(batches, count=15)
        grain.experimental.assert_equal_output_after_checkpoint(limited)


def streams_of(batches, cfg):
    """Rows of each stream, in order."""
    per = cfg.rows // cfg.streams
    rows = [[] for _ in range(cfg.streams)]
    for batch in batches:
        for row in range(cfg.rows):
            rows[row // per].append({name: array[row] for name, array in batch.items()})
    return rows


def test_text_rows_are_the_documents_end_to_end(packs, tokenizer):
    cfg, sources, batches = open_feed(packs, tokenizer)
    iterator = iter(batches)
    rows = streams_of(take(iterator, 40), cfg)
    for number in range(cfg.streams):
        read = np.concatenate([row["tokens_BT"] for row in rows[number]]).tolist()
        # Read the same documents again, source by source, and cut the stream at its document ends.
        assert read[0] == tokenizer.bos_id
        starts = [i for i, token in enumerate(read) if token == tokenizer.bos_id]
        found = [read[a:b] for a, b in zip(starts, [*starts[1:], len(read)], strict=True)]
        waiting = [
            [tokenizer.document(s.read(number + cfg.streams * i)["text"]).tolist() for i in range(200)] for s in sources
        ]
        origin: list[int] = []
        for ids in found[:-1]:
            source = next(i for i, docs in enumerate(waiting) if docs[0] == ids)
            origin += [source] * len(waiting[source].pop(0))
        named = np.concatenate([row["sources_BT"] for row in rows[number]]).tolist()
        assert named[: len(origin)] == origin
        assert any(docs[0][: len(found[-1])] == found[-1] for docs in waiting)
    for row in rows[0]:
        inside = row["segments_BT"][1:] == row["segments_BT"][:-1]
        assert np.array_equal(row["positions_BT"][1:], np.where(inside, row["positions_BT"][:-1] + 1, 0))
        assert np.array_equal(row["tokens_BT"][1:], row["targets_BT"][:-1])
        assert np.array_equal(inside, row["tokens_BT"][1:] != tokenizer.bos_id)
        assert np.array_equal(row["weights_BT"] == 1, row["targets_BT"] != tokenizer.bos_id)


def test_every_epoch_has_every_record_once_in_another_order(packs, tokenizer):
    _, sources, _ = open_feed(packs, tokenizer)
    for source in sources:
        epochs = [[source.place(e * source.records + i) for i in range(source.records)] for e in range(3)]
        for e, places in enumerate(epochs):
            assert {epoch for epoch, _ in places} == {e}
            assert sorted(record for _, record in places) == list(range(source.records))
        assert len({tuple(record for _, record in places) for places in epochs}) == 3


@pytest.mark.parametrize("streams", [1, 4])
def test_shares_are_kept_in_tokens_within_a_document(packs, tokenizer, streams):
    _, sources, batches = open_feed(packs, tokenizer, streams=streams)
    iterator = iter(batches)
    longest = max(len(tokenizer.document(row["text"])) for rows in DOCUMENTS.values() for row in rows)
    for _ in range(60):
        next(iterator)
        ledger = token_ledger(sources, tokenizer, batches.cfg, iterator.get_state())
        total = sum(source["tokens"] for source in ledger["sources"])
        for source, row in zip(sources, ledger["sources"], strict=True):
            assert abs(row["tokens"] - source.weight * total) <= longest * streams


def test_ledger_counts_each_document_as_often_as_it_was_read(packs, tokenizer):
    for kind in ("text", "chat"):
        _, sources, batches = open_feed(packs, tokenizer, kind)
        iterator = iter(batches)
        rows = take(iterator, 30)
        ledger = token_ledger(sources, tokenizer, batches.cfg, json.loads(json.dumps(iterator.get_state())))
        starts = sum(int(((b["tokens_BT"] == tokenizer.bos_id) & (b["segments_BT"] > 0)).sum()) for b in rows)
        assert sum(source["drawn"] for source in ledger["sources"]) == starts
        assert sum(source["inputs"] for source in ledger["sources"]) == sum((b["segments_BT"] > 0).sum() for b in rows)
        assert sum(source["learned"] for source in ledger["sources"]) == sum((b["weights_BT"] > 0).sum() for b in rows)
        for source in ledger["sources"]:
            assert sum(int(n) * count for n, count in source["seen"].items()) == source["drawn"]
            assert sum(source["seen"].values()) == source["records"]


def test_chat_rows_hold_whole_conversations_and_learn_only_answers(packs, tokenizer):
    cfg, _, batches = open_feed(packs, tokenizer, "chat", seq_len=128, streams=1)
    known = {}
    for rows in CHATS.values():
        for row in rows:
            ids, turns_ = tokenizer.chat(json.loads(row["messages"]))
            known[tuple(ids)] = [float(turn > 0) for turn in turns_]
    used = slots = 0
    for batch in take(iter(batches), 25):
        for b in range(cfg.rows):
            row = {name: array[b] for name, array in batch.items()}
            for segment in range(1, row["segments_BT"].max() + 1):
                here = row["segments_BT"] == segment
                ids = [*row["tokens_BT"][here].tolist(), int(row["targets_BT"][here][-1])]
                if tuple(ids) in known:
                    assert row["weights_BT"][here].tolist() == known[tuple(ids)][1:]
                else:  # the only other thing a segment may be: a conversation too long for a row
                    assert len(ids) == 129
                    assert any(key[:129] == tuple(ids) for key in known)
                assert row["positions_BT"][here].tolist() == list(range(here.sum()))
                used += here.sum()
            slots += cfg.seq_len
            assert not row["weights_BT"][row["segments_BT"] == 0].any()
    assert used / slots > 0.95


def test_last_turn_mask_leaves_earlier_answers_out(packs, tokenizer):
    batch = next(iter(open_feed(packs, tokenizer, "chat", seq_len=256, loss_turns="last")[2]))
    ends = (batch["targets_BT"] == tokenizer.end_of_turn_id) & (batch["weights_BT"] == 1)
    for b in range(4):
        for segment in range(1, batch["segments_BT"][b].max() + 1):
            assert ends[b][batch["segments_BT"][b] == segment].sum() <= 1


@given(st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_a_permutation_has_every_place_once(size, seed):
    assert sorted(permuted(i, size, seed) for i in range(size)) == list(range(size))


def test_permutations_are_fair():
    firsts = np.bincount([permuted(0, 10, seed) for seed in range(10_000)])
    assert abs(firsts - 1000).max() < 150, "each place is first about as often: 5 standard deviations are 150"
    fixed = [sum(permuted(i, 1000, seed) == i for i in range(1000)) for seed in range(100)]
    assert 0.6 < np.mean(fixed) < 1.4, "a fair permutation has one fixed point on average"


def test_another_seed_is_another_order(packs, tokenizer):
    first, second = (next(iter(open_feed(packs, tokenizer, seed=seed)[2])) for seed in (1, 2))
    assert not same(first, second)


def test_a_pack_with_other_records_than_it_says_is_refused(packs):
    mixture = packs["text"].read_json("mixture.json")
    mixture["sources"][1]["records"] += 1
    with pytest.raises(DataFault, match=r"mixture\.json says"):
        open_sources(packs["text"].local_dir(), mixture, 0)


def test_conversations_without_room_for_an_answer_are_an_error(tmp_path, tokenizer_artifact, tokenizer):
    long = {"a": [chat(turns("word " * 200, "yes"))]}
    packs = {"chat": make_pack(tmp_path, tokenizer_artifact, long, kind="chat")}
    with pytest.raises(DataFault, match="hold no answer within seq_len=64"):
        next(iter(open_feed(packs, tokenizer, "chat")[2]))


def density(batches, count):
    taken = take(iter(batches), count)
    return np.mean([batch["segments_BT"] > 0 for batch in taken])


def test_rows_of_documents_have_no_padding_at_all(tmp_path, tokenizer_artifact, tokenizer):
    """Lengths as of web pages: log-normal, some far longer than a row, many far shorter."""
    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(WORDS, n)) for n in rng.lognormal(3.0, 1.4, 150).astype(int) + 1]
    packs = {"text": make_pack(tmp_path, tokenizer_artifact, {"web": [document(text) for text in texts]})}
    assert density(open_feed(packs, tokenizer, seq_len=256)[2], 40) == 1


def real_chats():
    """Japanese dialogues and preferred answers."""
    folder = SHARED / "instruct"
    if not folder.is_dir():
        pytest.skip(f"real conversations are not at {folder}")
    for name in ("instruction_ja", "realpersonachat-400", "preference-ja-vicuna"):
        with gzip.open(folder / f"{name}.jsonl.gz", "rt") as file:
            for row in map(json.loads, file):
                said = [turn["text"] for turn in row.get("utterances", ())] or [row["prompt"], row["chosen"]]
                yield chat(turns(*said[: len(said) // 2 * 2]))


def drawn_chats():
    """Lengths as of instruction data: log-normal, one to four turns."""
    rng = np.random.default_rng(6)
    for _ in range(600):
        lengths = rng.lognormal(2.3, 0.9, 2 * rng.integers(1, 5)).astype(int) + 1
        yield chat(turns(*(" ".join(rng.choice(WORDS, n)) for n in lengths)))


@pytest.mark.parametrize(
    ("chats", "pieces"), [(drawn_chats, 400), pytest.param(real_chats, 4000, marks=pytest.mark.slow)]
)
def test_rows_of_conversations_are_dense(tmp_path, chats, pieces):
    rows = list(chats())
    artifact = make_tokenizer(tmp_path, pieces, [row["messages"] for row in rows] if pieces > 400 else ())
    tokenizer = TextTokenizer(artifact.local_dir())
    packs = {"chat": make_pack(tmp_path, artifact, {"chat": rows}, kind="chat")}
    cfg, sources, batches = open_feed(packs, tokenizer, "chat", seq_len=2048, streams=1)
    iterator = iter(batches)
    whole = [next(iterator)]
    while (sum(iterator.get_state()["streams"][0]["draws"])) < sources[0].records:  # all of it, to the last bin
        whole.append(next(iterator))
    assert np.mean([batch["segments_BT"] > 0 for batch in whole]) >= 0.95
    ledger = token_ledger(sources, tokenizer, cfg, iterator.get_state())
    assert ledger["truncated"] + ledger["skipped"] < 0.1 * sources[0].records, "else the rows are dense by cutting"
