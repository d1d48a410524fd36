"""The guard: what it lets through, and that a step left out leaves nothing behind."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import OptimizerConfig
from model.guard import FINE, NOT_FINITE, SPIKE, GuardState, guarded, keep_unless

WINDOW, FACTOR = 5, 4.0
CONFIG = OptimizerConfig(
    peak_lr=0.1, total_steps=10, guard=True, spike_factor=FACTOR, spike_window=WINDOW, ema_decay=0.9
)
OPTIMIZER = guarded(optax.adam(0.1), CONFIG)


@jax.jit
def step(params, state: GuardState, loss, grad_norm):
    grads = jax.tree.map(lambda p: p * loss, params)
    updates, state = OPTIMIZER.update(grads, state, params, loss=loss, grad_norm=grad_norm)
    return keep_unless(state.verdict == FINE, optax.apply_updates(params, updates), params), state


def fresh():
    params = {"w": jnp.asarray([1.0, -0.0, 3.0])}
    return params, OPTIMIZER.init(params)


def bits(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def after(losses, norms=None):
    params, state = fresh()
    for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True):
        params, state = step(params, state, jnp.float32(loss), jnp.float32(norm))
    return params, state


QUIET = [2.0, 2.1, 1.9, 2.2, 1.8]  # median 2, median deviation 0.1
LIMIT = 2.0 + FACTOR * 1.4826 * 0.1


@pytest.mark.parametrize(
    ("loss", "norm", "verdict"),
    [
        pytest.param(2.0, 1.0, FINE, id="like the others"),
        pytest.param(LIMIT - 1e-3, 1.0, FINE, id="just below the bound"),
        pytest.param(LIMIT + 1e-3, 1.0, SPIKE, id="just above the bound"),
        pytest.param(0.1, 0.0, FINE, id="far below is good news"),
        pytest.param(2.0, 1.0 + FACTOR * 0.01 - 1e-3, FINE, id="equal norms: 1 % is the least deviation"),
        pytest.param(2.0, 1.0 + FACTOR * 0.01 + 1e-3, SPIKE, id="a norm above that"),
        pytest.param(np.nan, 1.0, NOT_FINITE, id="loss is NaN"),
        pytest.param(2.0, np.inf, NOT_FINITE, id="norm is infinite"),
    ],
)
def test_a_harmful_step_leaves_weights_and_moments_as_they_were(loss, norm, verdict):
    params, state = after(QUIET)
    new_params, new_state = step(params, state, jnp.float32(loss), jnp.float32(norm))
    assert int(new_state.verdict) == verdict
    is_kept = bits((new_params, new_state.inner)) == bits((params, state.inner))
    assert is_kept == (verdict != FINE)


def test_nothing_is_a_spike_before_the_window_is_full():
    assert int(after([*QUIET[:4], 100.0])[1].verdict) == FINE
    assert int(after([*QUIET, 100.0])[1].verdict) == SPIKE


def test_a_level_that_lasts_becomes_normal():
    verdicts = [int(after([*QUIET, *[9.0] * n])[1].verdict) for n in range(1, 5)]
    assert verdicts == [SPIKE, SPIKE, SPIKE, FINE], "after half of the window"


def oracle(losses, norms) -> list[int]:
    seen: list[tuple[float, float]] = []
    found = []
    for pair in zip(losses, norms, strict=True):
        if not np.isfinite(pair).all():
            found.append(NOT_FINITE)
            continue
        window = np.asarray(seen[-WINDOW:])
        is_spike = False
        if len(window) == WINDOW:
            middle = np.median(window, axis=0)
            deviation = np.maximum(1.4826 * np.median(np.abs(window - middle), axis=0), 0.01 * np.abs(middle))
            is_spike = bool((np.asarray(pair) > middle + FACTOR * deviation).any())
        found.append(SPIKE if is_spike else FINE)
        seen.append(pair)
    return found


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from([1.0, 1.25, 1.5, 8.0, np.nan]), st.sampled_from([1.0, 1.125, 7.0])), max_size=20)
)
def test_verdicts_are_those_of_a_plain_reading_of_the_rule(pairs):
    params, state = fresh()
    found = []
    for loss, norm in pairs:
        params, state = step(params, state, jnp.float32(loss), jnp.float32(norm))
        found.append(int(state.verdict))
    assert found == oracle([loss for loss, _ in pairs], [norm for _, norm in pairs])
