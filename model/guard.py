"""A step that would do harm is left out: one whose loss or gradient is not finite, or far above those before it.

The decision is made on the devices from what the state carries, so it is the same after a resume, and no host waits
for it. Skipping steps on spikes is PaLM's practice (arXiv 2204.02311, section 5.1, by hand); the rolling window over
loss and gradient norm is that of OLMo 2 (arXiv 2501.00656). Median and deviation are robust here, so that spikes in the
window do not hide the next one.

Shape letters in this file: W steps of the window.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from model.config import OptimizerConfig

FINE, NOT_FINITE, SPIKE = 0, 1, 2
SIGMA = 1.4826  # of a normal distribution, in median absolute deviations
LEAST_DEVIATION = 0.01  # of the median: below it a very quiet run would call its own noise a spike


class GuardState(NamedTuple):
    """What the guarded optimizer carries, and the guard's memory of the finite steps before."""

    inner: Any
    losses_W: jax.Array
    norms_W: jax.Array
    seen: jax.Array
    """Finite steps so far, int32; the window is full from W on."""
    verdict: jax.Array
    """Of the newest step: FINE, NOT_FINITE or SPIKE, int32."""


def guarded(inner: optax.GradientTransformation, cfg: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose state a harmful step leaves as it was; `update` wants the step's loss and grad_norm.

    The weights are the caller's to keep: see `keep_unless`.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> GuardState:
        window_W, zero = jnp.zeros(cfg.spike_window, jnp.float32), jnp.zeros((), jnp.int32)
        return GuardState(inner.init(params), window_W, jnp.copy(window_W), zero, jnp.copy(zero))

    def update(
        updates: Any, state: GuardState, params: Any = None, *, loss: jax.Array, grad_norm: jax.Array, **extra: Any
    ) -> tuple[Any, GuardState]:
        is_finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        is_spike = jnp.zeros((), bool)
        if cfg.spike_factor:
            is_full = state.seen >= cfg.spike_window
            above = (loss > bound(state.losses_W, cfg)) | (grad_norm > bound(state.norms_W, cfg))
            is_spike = is_full & above
        verdict = jnp.where(is_finite, jnp.where(is_spike, SPIKE, FINE), NOT_FINITE).astype(jnp.int32)
        # Spikes enter the window: a level that lasts for half of it is the new normal.
        at = state.seen % cfg.spike_window
        losses_W, norms_W = (
            jnp.where(is_finite, window_W.at[at].set(value), window_W)
            for window_W, value in ((state.losses_W, loss), (state.norms_W, grad_norm))
        )
        new_updates, new_inner = inner.update(updates, state.inner, params, **extra)
        kept = keep_unless(verdict == FINE, new_inner, state.inner)
        return new_updates, GuardState(kept, losses_W, norms_W, state.seen + is_finite, verdict)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def bound(window_W: jax.Array, cfg: OptimizerConfig) -> jax.Array:
    """What no step of a full window may exceed: median + spike_factor x a robust standard deviation."""
    middle = jnp.median(window_W)
    deviation = SIGMA * jnp.median(jnp.abs(window_W - middle))
    return middle + cfg.spike_factor * jnp.maximum(deviation, LEAST_DEVIATION * jnp.abs(middle))


def keep_unless(is_fine: jax.Array, new: Any, old: Any) -> Any:
    """The new tree where the step was fine, else the old one, bit for bit."""
    return jax.tree.map(lambda a, b: jnp.where(is_fine, a, b), new, old)
