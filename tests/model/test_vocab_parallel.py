"""The loss in blocks of the vocabulary is the loss. Many devices: see test_sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.vocab_parallel import cross_entropy, num_blocks


def plain(hidden_MD, table_VD, targets_M, weights_M, softcap, z_loss):
    logits_MV = hidden_MD @ table_VD.T
    if softcap is not None:
        logits_MV = softcap * jnp.tanh(logits_MV / softcap)
    lse_M = jax.nn.logsumexp(logits_MV, axis=-1)
    target_M = jnp.take_along_axis(logits_MV, targets_M[:, None], 1)[:, 0]
    right_M = jnp.argmax(logits_MV, axis=-1) == targets_M
    return [jnp.sum(weights_M * x) for x in (lse_M - target_M, z_loss * lse_M**2, jnp.ones_like(lse_M), right_M)]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("chunk_tokens", [1, 5, 24])
def test_sums_and_gradients_are_those_of_all_logits_at_once(softcap, chunk_tokens):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(24, 8)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(96, 8)), jnp.float32)
    targets = jnp.asarray(rng.integers(0, 96, 24))
    weights = jnp.asarray(rng.choice([0.0, 0.5, 1.0], 24), jnp.float32)

    def ours(h, t):
        *sums, losses = cross_entropy(h, t, targets, weights, None, softcap, 1e-2, chunk_tokens)
        assert losses.shape == targets.shape
        return 3 * sums[0] + sums[1], sums

    def theirs(h, t):
        sums = plain(h, t, targets, weights, softcap, 1e-2)
        return 3 * sums[0] + sums[1], sums

    d_ours, sums = jax.grad(ours, argnums=(0, 1), has_aux=True)(hidden, table)
    d_theirs, expected = jax.grad(theirs, argnums=(0, 1), has_aux=True)(hidden, table)
    np.testing.assert_allclose(sums, expected, rtol=1e-5)
    for a, b in zip(d_ours, d_theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk_tokens", [1, 5, 24])
def test_with_a_teacher_they_are_too(chunk_tokens):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(24, 8)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(96, 8)), jnp.float32)
    targets, weights = jnp.asarray(rng.integers(0, 96, 24)), jnp.asarray(rng.choice([0.0, 1.0], 24), jnp.float32)
    soft = jnp.asarray(rng.integers(0, 96, (24, 3))), jnp.asarray(rng.dirichlet(np.ones(3), 24), jnp.float32)

    def ours(h, t):
        return cross_entropy(h, t, targets, weights, soft, 2.0, 1e-2, chunk_tokens)[0]

    def theirs(h, t):
        log_probs_MV = jax.nn.log_softmax(2.0 * jnp.tanh(h @ t.T / 2.0))
        return -jnp.sum(weights[:, None] * soft[1] * jnp.take_along_axis(log_probs_MV, soft[0], axis=1))

    value, grads = jax.value_and_grad(ours, argnums=(0, 1))(hidden, table)
    expected, expected_grads = jax.value_and_grad(theirs, argnums=(0, 1))(hidden, table)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for a, b in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@given(tokens=st.integers(1, 9000), rows=st.integers(1, 1200), chunk_tokens=st.integers(1, 9000))
def test_blocks_are_equal_and_hold_no_more_logits_than_the_chunk(tokens, rows, chunk_tokens):
    n = num_blocks(tokens, rows, chunk_tokens)
    assert rows % n == 0
    assert tokens <= n * chunk_tokens or n == rows


@pytest.mark.parametrize(
    ("rows", "blocks"),
    [
        pytest.param(1008, 21, id="18 would do; 21 makes 48 rows, whole tiles of 16"),
        pytest.param(1000, 20, id="no divisor makes whole tiles"),
        pytest.param(1024, 16, id="just enough"),
    ],
)
def test_blocks_are_whole_tiles_where_they_can_be(rows, blocks):
    assert num_blocks(tokens=8192, rows=rows, chunk_tokens=512) == blocks
