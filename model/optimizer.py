"""The optimizer: clip, AdamW, and a learning rate over steps."""

from typing import Any

import jax
import optax

from model.config import OptimizerConfig


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


def make_optimizer(cfg: OptimizerConfig) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW. Weight decay leaves out norm weights, as Megatron-LM and MaxText's users do."""
    return optax.chain(
        optax.clip_by_global_norm(cfg.clip_norm) if cfg.clip_norm else optax.identity(),
        optax.scale_by_adam(b1=cfg.beta1, b2=cfg.beta2, eps=cfg.eps),
        optax.add_decayed_weights(cfg.weight_decay, mask=_is_decayed),
        optax.scale_by_learning_rate(learning_rate(cfg)),
    )


def _is_decayed(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "scale", params)
