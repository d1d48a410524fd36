"""The chunked loss against the plain one, and what it keeps in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.losses import Shares, cross_entropy, next_token_loss, packed_batch, token_log_probs, word_shares
from tests.model.random_decoders import random_model, small_config


def plain(hidden, table, targets, weights, softcap, z_loss):
    """The definition, with all logits at once."""
    logits = jnp.einsum("btd,vd->btv", hidden, table)
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    lse = jax.nn.logsumexp(logits, axis=-1)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    return jnp.sum(weights * (nll + z_loss * lse**2))


def plain_with_teacher(hidden, table, ids, shares, weights, softcap, z_loss):
    """-sum over the whole vocabulary of P log Q, P written out."""
    logits = jnp.einsum("btd,vd->btv", hidden, table)
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    taught = jnp.einsum("btk,btkv->btv", shares, jax.nn.one_hot(ids, table.shape[0]))
    entropy = -jnp.sum(taught * jax.nn.log_softmax(logits), axis=-1)
    return jnp.sum(weights * (entropy + z_loss * jax.nn.logsumexp(logits, axis=-1) ** 2))


def a_teacher(B=2, T=13, K=4, V=50):
    rng = np.random.default_rng(1)
    ids = rng.integers(0, V, (B, T, K))
    ids[0, 0] = 7  # the same word several times
    return Shares(jnp.asarray(ids), jnp.asarray(rng.dirichlet(np.ones(K), (B, T)), jnp.float32))


def inputs(B=2, T=13, D=8, V=50, seed=0):
    rng = np.random.default_rng(seed)
    return (
        jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32),
        jnp.asarray(rng.normal(size=(V, D)), jnp.float32),
        jnp.asarray(rng.integers(0, V, (B, T))),
        jnp.asarray(rng.choice([0.0, 0.5, 1.0], (B, T)), jnp.float32),
    )


@pytest.mark.parametrize(
    ("chunk_tokens", "softcap", "z_loss", "cpu_kernels"),
    [
        pytest.param(1, 2.0, 1e-2, False, id="one position at a time"),
        pytest.param(6, 30.0, 0.0, True, id="chunks that do not divide the length, CPU"),
        pytest.param(10, None, 1e-2, False, id="no cap"),
        pytest.param(1000, None, 1e-2, True, id="one chunk, no cap, CPU"),
        pytest.param(26, 2.0, 0.0, False, id="exactly one chunk"),
    ],
)
def test_loss_and_gradients_equal_the_plain_ones(chunk_tokens, softcap, z_loss, cpu_kernels):
    hidden, table, targets, weights = inputs()

    def chunked(hidden, table):
        options = {"softcap": softcap, "z_loss": z_loss, "chunk_tokens": chunk_tokens, "cpu_kernels": cpu_kernels}
        return 3.0 * cross_entropy(hidden, table, targets, weights, **options)[0]

    def whole(hidden, table):
        return 3.0 * plain(hidden, table, targets, weights, softcap, z_loss)

    value, grads = jax.jit(jax.value_and_grad(chunked, argnums=(0, 1)))(hidden, table)
    expected, expected_grads = jax.jit(jax.value_and_grad(whole, argnums=(0, 1)))(hidden, table)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    # Without a gradient it is another program.
    assert float(jax.jit(chunked)(hidden, table)) == pytest.approx(float(expected), rel=1e-5)
    for got, want in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("chunk_tokens", "softcap", "z_loss", "cpu_kernels"), [(6, 2.0, 1e-2, False), (26, None, 0.0, True)]
)
def test_with_a_teacher_loss_and_gradients_equal_the_plain_ones(chunk_tokens, softcap, z_loss, cpu_kernels):
    (hidden, table, targets, weights), soft = inputs(), a_teacher()

    def chunked(hidden, table):
        options = {"softcap": softcap, "z_loss": z_loss, "chunk_tokens": chunk_tokens, "cpu_kernels": cpu_kernels}
        return cross_entropy(hidden, table, targets, weights, None, soft, **options)[0]

    def whole(hidden, table):
        return plain_with_teacher(hidden, table, *soft, weights, softcap, z_loss)

    value, grads = jax.jit(jax.value_and_grad(chunked, argnums=(0, 1)))(hidden, table)
    expected, expected_grads = jax.jit(jax.value_and_grad(whole, argnums=(0, 1)))(hidden, table)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert float(jax.jit(chunked)(hidden, table)) == pytest.approx(float(expected), rel=1e-5)
    for got, want in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_teacher_is_mixed_with_the_text_by_its_weight(packed):
    """Between the loss of the text and that of the teacher, in a straight line; what counts as correct stays."""
    model, soft = random_model(small_config(num_layers=2)), a_teacher(*packed["tokens_BT"].shape, V=160)
    batch = packed | {"teacher_ids_BTK": soft.ids_BTK, "teacher_shares_BTK": soft.shares_BTK}

    @jax.jit
    def losses(batch):
        found = [next_token_loss(model, batch, teacher_weight=weight)[1] for weight in (0.0, 0.25, 1.0)]
        return [aux["loss_sum"] for aux in found], [aux["correct_sum"] for aux in found]

    (text, mixed, taught), correct = losses(batch)
    assert float(mixed) == pytest.approx(0.75 * float(text) + 0.25 * float(taught), rel=1e-5)
    assert abs(float(text) - float(taught)) > 1
    assert len({float(c) for c in correct}) == 1
    sure = {"teacher_ids_BTK": packed["targets_BT"][..., None], "teacher_shares_BTK": np.ones((2, 48, 1), np.float32)}
    assert float(losses(packed | sure)[0][2]) == pytest.approx(float(text), rel=1e-6), "a teacher that is the text"


def test_the_parts_of_the_loss_are_told_apart():
    hidden, table, targets, weights = inputs()
    best = jnp.argmax(jnp.einsum("btd,vd->btv", hidden, table), -1)
    targets = targets.at[0].set(best[0])
    total, aux = cross_entropy(hidden, table, targets, weights, softcap=None, z_loss=0.1)
    assert float(aux["loss_sum"]) == pytest.approx(float(plain(hidden, table, targets, weights, None, 0.0)), rel=1e-5)
    assert float(total) == pytest.approx(float(aux["loss_sum"] + aux["z_loss_sum"]))
    assert float(aux["weight_sum"]) == float(weights.sum())
    assert float(aux["correct_sum"]) == float(jnp.sum(weights * (best == targets))) >= float(weights[0].sum()) > 0


@pytest.mark.parametrize("is_differentiated", [False, True], ids=["loss alone", "with its gradient"])
def test_each_source_has_its_part_of_the_loss(is_differentiated):
    hidden, table, targets, weights = inputs()
    sources = jnp.arange(targets.size).reshape(targets.shape) % 3

    def loss(hidden):
        return cross_entropy(
            hidden, table, targets, weights, sources, softcap=5.0, z_loss=0.1, chunk_tokens=6, num_sources=4
        )

    _, aux = jax.grad(loss, has_aux=True)(hidden) if is_differentiated else loss(hidden)
    for source in range(3):
        own = jnp.where(sources == source, weights, 0)
        assert float(aux["source_weight_sum"][source]) == pytest.approx(float(own.sum()))
        expected = float(plain(hidden, table, targets, own, 5.0, 0.0))
        assert float(aux["source_loss_sum"][source]) == pytest.approx(expected, rel=1e-5)
    assert (aux["source_loss_sum"][3], aux["source_weight_sum"][3]) == (0, 0), "a source that is not in the batch"
    assert float(aux["source_loss_sum"].sum()) == pytest.approx(float(aux["loss_sum"]), rel=1e-6)


def test_a_target_without_weight_changes_nothing():
    hidden, table, targets, weights = inputs()
    elsewhere = jnp.where(weights == 0, (targets + 1) % 50, targets)

    def grads(targets):
        return jax.grad(lambda h: cross_entropy(h, table, targets, weights, softcap=5.0)[0])(hidden)

    assert bool((weights == 0).any())
    assert np.array_equal(grads(targets), grads(elsewhere))


def test_log_probs_of_tokens_equal_the_plain_ones():
    hidden, table, targets, _ = inputs()
    got, is_best = token_log_probs(hidden, table, targets, softcap=2.0, chunk_tokens=6)
    logits = 2.0 * jnp.tanh(jnp.einsum("btd,vd->btv", hidden, table) / 2.0)
    want = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.array_equal(is_best, jnp.argmax(logits, -1) == targets)


def test_the_most_likely_words_have_their_probabilities():
    hidden, table, *_ = inputs()
    got = word_shares(hidden, table, 5, softcap=2.0, chunk_tokens=6)
    probs = np.asarray(jax.nn.softmax(2.0 * jnp.tanh(jnp.einsum("btd,vd->btv", hidden, table) / 2.0)))
    order = np.argsort(-probs, axis=-1)[..., :5]
    np.testing.assert_array_equal(got.ids_BTK, order)
    np.testing.assert_allclose(got.shares_BTK, np.take_along_axis(probs, order, -1), rtol=1e-5)


def test_drawn_words_are_an_estimate_of_the_distribution_without_bias():
    """Each word between the whole numbers next to p K times; over many points on average p K times."""
    (hidden, table, *_), K = inputs(B=1, T=2), 8
    probs = np.asarray(jax.nn.softmax(jnp.einsum("btd,vd->btv", hidden, table)))
    draw = jax.jit(lambda points: word_shares(hidden, table, K, points, softcap=None))
    total, rounds = np.zeros((1, 2, 50)), 400
    for number in range(rounds):
        got = draw(jnp.full((1, 2), (number + 0.5) / rounds))
        assert np.all(np.asarray(got.shares_BTK) == 1 / K)
        counts = np.stack([np.bincount(ids, minlength=50) for ids in np.asarray(got.ids_BTK)[0]])[None]
        assert np.all(np.abs(counts - probs * K) < 1 + 1e-4)
        total += counts
    np.testing.assert_allclose(total / rounds, probs * K, atol=2 / rounds + 1e-4)


def _temporary_bytes(function, T, V, D):
    """What the compiled gradient allocates beside its arguments and results: bfloat16 hidden states, float32 table."""
    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in [
            ((1, T, D), jnp.bfloat16),
            ((V, D), jnp.float32),
            ((1, T), jnp.int32),
            ((1, T), jnp.float32),
        ]
    ]
    compiled = jax.jit(jax.grad(function, argnums=(0, 1))).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def _chunked(cpu_kernels):
    options = {"softcap": 30.0, "chunk_tokens": 256, "cpu_kernels": cpu_kernels}
    return lambda *arrays: cross_entropy(*arrays, **options)[0]


def _all_at_once(hidden, table, targets, weights):
    return plain(hidden, table.astype(hidden.dtype), targets, weights, 30.0, 0.0)


@pytest.mark.parametrize("cpu_kernels", [False, True])
def test_logits_of_all_tokens_are_never_in_memory(cpu_kernels):
    """Gemma's vocabulary at its sequence length, in bfloat16: all logits would be 4.2 GB, one chunk of 256 is 0.26 GB.

    So narrow that the table and its gradient (33 MB) do not count.
    """
    T, V, D = 8192, 256_000, 16
    assert _temporary_bytes(_chunked(cpu_kernels), T, V, D) < 6 * 256 * V * 4 < T * V * 2 / 2
    assert _temporary_bytes(_all_at_once, T, V, D) > T * V * 2  # the measure does see them


@pytest.mark.parametrize("cpu_kernels", [False, True])
def test_more_tokens_need_no_more_memory_for_logits(cpu_kernels):
    """As wide as Gemma 2 2B, where the table alone takes gigabytes: 28 chunks more take what hidden states take."""
    T, V, D = 8192, 256_000, 2304
    few, many = (_temporary_bytes(_chunked(cpu_kernels), tokens, V, D) for tokens in (1024, T))
    assert many - few < 6 * T * D * 2 < T * V * 2 / 10


def test_a_packed_batch_predicts_each_next_token():
    batch = packed_batch(np.arange(12).reshape(2, 6))
    assert batch["tokens_BT"].tolist() == [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10]]
    assert batch["targets_BT"].tolist() == [[1, 2, 3, 4, 5], [7, 8, 9, 10, 11]]
    assert batch["positions_BT"].tolist() == [[0, 1, 2, 3, 4]] * 2
    assert batch["weights_BT"].sum() == 10
