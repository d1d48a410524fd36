"""Generation with a cache against whole forward passes, and scores against their definition."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.generate import (
    Request,
    _complete,
    bits_per_byte,
    complete,
    generate,
    loglikelihood,
    next_words,
    sequence_nats,
)
from model.sampling import Sampling, stack
from tests.model.random_decoders import random_model, small_config


@pytest.fixture(scope="module")
def model():
    return random_model(small_config(num_layers=2))


@pytest.fixture(scope="module")
def log_probs(model):
    """log_probs(tokens) -> [len, vocab], by one forward pass of a row padded on the right."""

    @jax.jit
    def run(tokens_BT):
        positions = jnp.arange(96)[None]
        return jax.nn.log_softmax(model.logits(model(tokens_BT, positions, jnp.ones((1, 96), jnp.int32))))[0]

    return lambda tokens: np.asarray(run(jnp.asarray([list(tokens) + [0] * (96 - len(tokens))])))[: len(tokens)]


PROMPTS = [[2], [2, *range(40, 70)], [2, 9, 8, 7, 6], [2, *range(100, 113)]]


@pytest.fixture(scope="module")
def greedy(model):
    return generate(model, PROMPTS, max_new_tokens=20)


def test_greedy_with_a_cache_equals_the_argmax_of_whole_passes(greedy, log_probs):
    for prompt, answer in zip(PROMPTS, greedy, strict=True):
        tokens = list(prompt)
        for token in answer:
            assert token == int(np.argmax(log_probs(tokens)[-1]))
            tokens.append(token)
        assert len(answer) == 20


def test_the_answer_does_not_depend_on_the_neighbours(model, greedy):
    assert generate(model, PROMPTS[1:2], max_new_tokens=20) == greedy[1:2]
    assert generate(model, PROMPTS[::-1], max_new_tokens=20, batch_size=2) == greedy[::-1]


def test_an_answer_ends_before_the_first_stop_id(model, greedy):
    stop = greedy[3][4]
    answers = generate(model, PROMPTS, max_new_tokens=20, stop_ids=[stop, 159])
    for answer, whole in zip(answers, greedy, strict=True):
        cut = next((i for i, token in enumerate(whole) if token in (stop, 159)), len(whole))
        assert answer == whole[:cut]


def test_prompts_read_in_pieces_over_a_small_ring_give_the_same_tokens(model, greedy):
    """Pieces of 5 over a window of 12: a ring of 16 slots, past which the longest row goes three times."""
    assert generate(model, PROMPTS, max_new_tokens=20, prefill_tokens=5) == greedy


def test_each_request_has_its_own_limit_stop_and_controls(model, greedy, log_probs):
    stop = greedy[3][4]
    kinds = [
        {"max_new_tokens": 20},
        {"max_new_tokens": 3},
        {"max_new_tokens": 20, "stop_ids": [stop]},
        {"max_new_tokens": 0},
        {"max_new_tokens": 20, "sampling": Sampling(temperature=1.0, top_k=4, seed=3)},
        {"max_new_tokens": 20, "sampling": Sampling(repetition_penalty=1.5)},
    ]
    mixed = complete(model, [Request(prompt=PROMPTS[3], **kind) for kind in kinds])
    for kind, together in list(zip(kinds, mixed, strict=True))[4:]:
        (alone,) = complete(model, [Request(prompt=PROMPTS[3], **kind)])
        assert alone.tokens == together.tokens
        np.testing.assert_allclose(alone.log_probs, together.log_probs, atol=1e-4)
    cut = greedy[3].index(stop)
    assert [one.tokens for one in mixed[:4]] == [greedy[3], greedy[3][:3], greedy[3][:cut], []]
    assert [one.is_stopped for one in mixed] == [False, False, True, False, False, False]
    for one in mixed:
        rows = log_probs([*PROMPTS[3], *one.tokens])[len(PROMPTS[3]) - 1 :]
        np.testing.assert_allclose(one.log_probs, [rows[i, t] for i, t in enumerate(one.tokens)], atol=1e-4)
    for i, token in enumerate(mixed[4].tokens):
        assert token in np.argsort(log_probs([*PROMPTS[3], *mixed[4].tokens[:i]])[-1])[-4:]


def test_a_repetition_penalty_counts_the_prompt_and_the_answer_and_no_padding(model):
    """Against a loop in numpy, beside a longer prompt so that the row is padded (with token 0, if it were counted)."""
    requests = [
        Request(prompt=prompt, max_new_tokens=12, sampling=Sampling(repetition_penalty=3.0)) for prompt in PROMPTS[:3]
    ]
    run = jax.jit(lambda tokens: model.logits(model(tokens, jnp.arange(48)[None], jnp.ones((1, 48), jnp.int32)))[0])
    for prompt, completion in zip(PROMPTS[:3], complete(model, requests), strict=True):
        tokens = list(prompt)
        for _ in range(12):
            logits = np.array(run(jnp.asarray([tokens + [0] * (48 - len(tokens))])))[len(tokens) - 1]
            seen = sorted(set(tokens))
            logits[seen] = np.where(logits[seen] < 0, logits[seen] * 3.0, logits[seen] / 3.0)
            tokens.append(int(np.argmax(logits)))
        assert completion.tokens == tokens[len(prompt) :]


@pytest.mark.slow
def test_a_compiled_generation_needs_less_memory_with_windows():
    """Room for 2,048 tokens: what one local layer of the two does not keep, the program does not allocate."""
    wide = random_model(small_config(num_layers=2, max_seq_len=2048))
    every = random_model(small_config(num_layers=2, max_seq_len=2048, layer_pattern=("global",)))
    saved = 2 * 8 * (2048 - 12 - 31) * 2 * 16 * 4  # keys and values, rows, slots, heads, head_dim, bytes
    assert temporary_bytes(every) - temporary_bytes(wide) >= saved


def temporary_bytes(model) -> int:
    parts, controls = stack([Sampling()] * 8)
    lowered = _complete.lower(
        *nnx.split(model),
        jnp.zeros((8, 32), jnp.int32),
        jnp.zeros(8, jnp.int32),
        jnp.zeros((8, 32), jnp.int32),
        controls,
        parts=parts,
        piece=32,
        room=2016,
        length=2048,
    )
    return lowered.compile().memory_analysis().temp_size_in_bytes


def test_sampling_depends_on_the_seed_and_the_row_alone(model):
    same = [PROMPTS[2]] * 3
    first = generate(model, same, max_new_tokens=20, temperature=1.0, seed=5)
    assert first == generate(model, same, max_new_tokens=20, temperature=1.0, seed=5, batch_size=1)
    assert first != generate(model, same, max_new_tokens=20, temperature=1.0, seed=6)
    assert len({tuple(answer) for answer in first}) == 3


def test_sampled_tokens_follow_the_distribution(model, log_probs):
    """512 draws of one token at temperature 2 against the softmax they come from (chi-square, fixed seed)."""
    draws = generate(model, [PROMPTS[2]] * 512, max_new_tokens=1, temperature=2.0, batch_size=512)
    expected = 512 * np.asarray(jax.nn.softmax(log_probs(PROMPTS[2])[-1] / 2.0))
    found = np.bincount([answer[0] for answer in draws], minlength=160)
    assert np.sum((found - expected) ** 2 / expected) < 159 + 4 * math.sqrt(2 * 159)


def test_log_likelihood_equals_its_definition(model, log_probs, greedy):
    contexts, continuations = [PROMPTS[1], PROMPTS[2], PROMPTS[0]], [greedy[1][:5], [3, 4, 5], [11]]
    got = loglikelihood(model, contexts, continuations, batch_size=2)
    for (total, is_greedy), context, continuation in zip(got, contexts, continuations, strict=True):
        tokens = [*context, *continuation]
        rows = log_probs(tokens)[len(context) - 1 : -1]
        assert total == pytest.approx(sum(rows[i, t] for i, t in enumerate(continuation)), abs=1e-3)
        assert is_greedy == (continuation == np.argmax(rows, -1).tolist())
    assert got[0][1]
    assert not got[1][1]


def test_an_empty_continuation_is_certain(model):
    assert loglikelihood(model, [[2, 5]], [[]]) == [(0.0, True)]


def test_nats_of_a_sequence_count_every_token_but_the_first_once(model, log_probs):
    rng = np.random.default_rng(0)
    sequences = [[2, *rng.integers(4, 160, n).tolist()] for n in (40, 1, 96)] + [[2]]
    got = sequence_nats(model, sequences, batch_size=2)
    for sequence, nats in zip(sequences[:2], got, strict=False):
        want = -sum(log_probs(sequence)[i, token] for i, token in enumerate(sequence[1:]))
        assert nats == pytest.approx(want, abs=1e-3)
    assert got[3] == 0.0


def test_long_sequences_are_cut_into_windows_that_share_one_token(model, log_probs):
    sequence = [2, *np.random.default_rng(0).integers(4, 160, 50).tolist()]
    want = 0.0
    for start in (0, 20, 40):
        piece = sequence[start : start + 21]
        want -= sum(log_probs(piece)[i, token] for i, token in enumerate(piece[1:]))
    assert sequence_nats(model, [sequence], window=20) == pytest.approx([want], abs=1e-3)


def test_bits_per_byte_of_a_fair_coin_per_byte_is_one():
    assert bits_per_byte(8 * math.log(2), 8) == pytest.approx(1.0)


@pytest.mark.parametrize("length", [76, 77])
def test_a_prompt_must_leave_room_for_the_answer(model, length):
    prompts = [[2] * length]
    if length == 76:
        assert len(generate(model, prompts, max_new_tokens=20)[0]) == 20
    else:
        with pytest.raises(ValueError, match=r"77 tokens and max_new_tokens=20.*max_seq_len=96"):
            generate(model, prompts, max_new_tokens=20)


def test_empty_prompts_and_contexts_are_refused(model):
    with pytest.raises(ValueError, match="Start prompts with <bos>"):
        generate(model, [[2], []], max_new_tokens=1)
    with pytest.raises(ValueError, match="Start contexts with <bos>"):
        loglikelihood(model, [[]], [[5]])


def test_next_words_are_those_of_whole_passes_whatever_stands_beside(model, log_probs):
    texts = [PROMPTS[1], PROMPTS[2], [2], PROMPTS[3]]
    found = next_words(model, texts, 3)
    for text, (ids, shares) in zip(texts, found, strict=True):
        assert ids.shape == shares.shape == (len(text) - 1, 3)
        if len(text) == 1:
            continue
        want = np.exp(log_probs(text)[:-1])
        np.testing.assert_allclose(shares, -np.sort(-want, axis=1)[:, :3], rtol=1e-4)
        np.testing.assert_allclose(np.take_along_axis(want, ids, 1), shares, rtol=1e-4)
    seeds = [5, 6, 7, 8]
    drawn = next_words(model, texts, 4, seeds=seeds)
    alone = next_words(model, texts[:1], 4, seeds=seeds[:1], batch_size=1)
    np.testing.assert_array_equal(drawn[0][0], alone[0][0])
    assert not np.array_equal(drawn[0][0], next_words(model, texts[:1], 4, seeds=[6])[0][0])


def test_next_words_of_a_text_longer_than_the_window_are_those_of_its_pieces(model):
    text = [2, *range(40, 70)]
    (ids, shares) = next_words(model, [text], 3, window=12)[0]
    pieces = [next_words(model, [text[at : at + 13]], 3)[0] for at in (0, 12, 24)]
    np.testing.assert_array_equal(ids, np.concatenate([piece[0] for piece in pieces]))
    np.testing.assert_allclose(shares, np.concatenate([piece[1] for piece in pieces]), rtol=1e-5)
