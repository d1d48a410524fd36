"""What stands in for plain autodiff on a CPU: the same gradients, and less memory for it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import cpu

DEPTH = 6


def _plain_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * scale


def test_the_norm_has_the_gradients_of_plain_autodiff():
    rng = np.random.default_rng(0)
    x, scale, d_y = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 5, 16), (16,), (3, 5, 16)))

    def pulled(norm: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
        y, back = jax.vjp(lambda x, scale: norm(x, scale, 1e-6), x, scale)
        return y, *back(d_y)

    for got, want in zip(jax.jit(lambda: pulled(cpu.rms_norm))(), pulled(_plain_norm), strict=True):
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def _norms(x_MD: jax.Array) -> jax.Array:
    return cpu.rms_norm(x_MD, jnp.ones(x_MD.shape[-1]), 1e-6)


def _gates(x_MD: jax.Array) -> jax.Array:
    return cpu.GATED["gelu"](x_MD, x_MD[::-1])


def _attention(x_MD: jax.Array) -> jax.Array:
    q_BNTH = x_MD.reshape(1, 1, *x_MD.shape)
    segments_BT = jnp.ones((1, x_MD.shape[0]), jnp.int32)
    return cpu.attention(q_BNTH, q_BNTH, q_BNTH, segments_BT, None, 50.0).reshape(x_MD.shape)


@pytest.mark.parametrize(
    ("layer", "rows", "saves"),
    [
        pytest.param(_norms, 2048, True, id="norms"),
        pytest.param(_gates, 2048, True, id="gates"),
        pytest.param(_attention, cpu.LONGEST_KEPT + 256, True, id="attention over long rows", marks=pytest.mark.slow),
        pytest.param(
            _attention,
            cpu.LONGEST_KEPT,
            False,
            id="attention over the longest row whose weights are kept",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_the_backward_pass_computes_again_is_not_kept(monkeypatch, layer, rows, saves):
    x = jax.ShapeDtypeStruct((rows, 64), jnp.bfloat16)
    w = jax.ShapeDtypeStruct((64, 64), jnp.float32)

    def temporary_bytes() -> int:
        def loss(x: jax.Array, w: jax.Array) -> jax.Array:
            for _ in range(DEPTH):
                x = x + cpu.linear_columns(layer(x), w)
            return jnp.sum(x.astype(jnp.float32) ** 2)

        return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, w).compile().memory_analysis().temp_size_in_bytes

    ours = temporary_bytes()
    monkeypatch.setattr(cpu, "after", lambda y, x: x)
    kept = temporary_bytes()
    assert ours < 0.9 * kept if saves else ours == kept
