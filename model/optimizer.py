"""The optimizer: clip, AdamW, and a learning rate over steps; optionally a running mean of the weights and a guard."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from model.config import OptimizerConfig
from model.guard import GuardState, guarded


def learning_rate(cfg: OptimizerConfig) -> optax.Schedule:
    """Learning rate of step 0, 1, …: linear warm-up, then the chosen shape; it never falls below its last value."""
    final = cfg.peak_lr * cfg.final_lr_fraction
    after = max(1, cfg.total_steps - cfg.warmup_steps)
    if cfg.schedule == "cosine":
        main = optax.cosine_decay_schedule(cfg.peak_lr, after, alpha=cfg.final_lr_fraction)
    elif cfg.schedule == "wsd":
        decay = max(1, round(cfg.total_steps * cfg.decay_fraction))
        main = optax.linear_schedule(cfg.peak_lr, final, decay, transition_begin=max(0, after - decay))
    else:
        main = optax.constant_schedule(cfg.peak_lr)
    if not cfg.warmup_steps:
        return main
    # Step 0 already learns: its rate is peak / warmup_steps, not 0.
    warmup = optax.linear_schedule(cfg.peak_lr / cfg.warmup_steps, cfg.peak_lr, max(1, cfg.warmup_steps - 1))
    return optax.join_schedules([warmup, main], [cfg.warmup_steps])


class AverageState(NamedTuple):
    """What the optimizer within carries, and the running mean of the weights."""

    inner: Any
    mean: Any


def make_optimizer(cfg: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Clip by global norm, then AdamW. Weight decay leaves out norm weights, as Megatron-LM and MaxText's users do.

    With cfg.guard `update` wants loss and grad_norm too (model/guard.py).
    """
    transform = optax.chain(
        optax.clip_by_global_norm(cfg.clip_norm) if cfg.clip_norm else optax.identity(),
        optax.scale_by_adam(b1=cfg.beta1, b2=cfg.beta2, eps=cfg.eps),
        optax.add_decayed_weights(cfg.weight_decay, mask=_is_decayed),
        optax.scale_by_learning_rate(learning_rate(cfg)),
    )
    if cfg.ema_decay:
        transform = _averaged(transform, cfg.ema_decay)
    if cfg.guard:
        transform = guarded(transform, cfg)
    return optax.with_extra_args_support(transform)


def trained_weights(params: Any, opt_state: Any) -> Any:
    """The weights to use after training: their running mean if there is one, else themselves."""
    if isinstance(opt_state, GuardState):
        opt_state = opt_state.inner
    return opt_state.mean if isinstance(opt_state, AverageState) else params


def _averaged(inner: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """An optimizer that also carries mean = decay x mean + (1 - decay) x weights, from the first weights on."""

    def init(params: Any) -> AverageState:
        return AverageState(inner.init(params), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        updates, inner_state = inner.update(updates, state.inner, params)
        weights = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda m, w: decay * m + (1 - decay) * w, state.mean, weights)
        return updates, AverageState(inner_state, mean)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _is_decayed(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "scale", params)
