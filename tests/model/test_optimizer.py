"""The schedule by its formula, and AdamW against one written out in numpy."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from model.config import OptimizerConfig
from model.optimizer import learning_rate, make_optimizer, trained_weights


def rates(**changes):
    cfg = OptimizerConfig(**({"peak_lr": 1.0, "total_steps": 100, "warmup_steps": 10} | changes))
    return [float(learning_rate(cfg)(step)) for step in range(cfg.total_steps + 1)]


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_warmup_rises_in_equal_steps_and_the_first_step_learns(schedule):
    np.testing.assert_allclose(rates(schedule=schedule)[:10], np.arange(1, 11) / 10, rtol=1e-5)


def test_cosine_falls_to_its_last_fraction():
    got = rates(schedule="cosine")
    want = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 10) / 90)) for step in range(10, 101)]
    np.testing.assert_allclose(got[10:], want, rtol=1e-4)


def test_wsd_stays_at_its_peak_and_falls_over_the_last_fifth():
    got = rates(schedule="wsd", decay_fraction=0.2)
    assert got[10:81] == [1.0] * 71
    np.testing.assert_allclose(got[80:], np.linspace(1.0, 0.1, 21), rtol=1e-5)


def test_constant_stays_and_without_warmup_the_peak_comes_first():
    assert rates(schedule="constant", warmup_steps=0) == [1.0] * 101
    assert rates(schedule="cosine", warmup_steps=0)[0] == 1.0


def test_the_rate_never_falls_below_its_last_value():
    assert float(learning_rate(OptimizerConfig(peak_lr=1.0, total_steps=10))(10_000)) == pytest.approx(0.1)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 100.0])
def test_three_steps_equal_adamw_written_out(clip_norm):
    cfg = OptimizerConfig(
        peak_lr=0.1, total_steps=10, schedule="constant", weight_decay=0.3, clip_norm=clip_norm, eps=1e-3
    )
    rng = np.random.default_rng(0)
    weights = {"matrix": rng.normal(size=(3, 2)), "scale": rng.normal(size=4)}
    ours = {name: jnp.asarray(w, jnp.float32) for name, w in weights.items()}
    optimizer = make_optimizer(cfg)
    state = optimizer.init(ours)
    moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in weights.items()}
    for step in range(1, 4):
        grads = {name: rng.normal(size=w.shape) for name, w in weights.items()}
        updates, state = optimizer.update({n: jnp.asarray(g, jnp.float32) for n, g in grads.items()}, state, ours)
        ours = {name: ours[name] + updates[name] for name in ours}
        norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
        clip = min(1.0, clip_norm / norm) if clip_norm else 1.0
        for name, grad in grads.items():
            first, second = moments[name]
            first, second = 0.9 * first + 0.1 * grad * clip, 0.95 * second + 0.05 * (grad * clip) ** 2
            moments[name] = first, second
            direction = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.95**step)) + 1e-3)
            decay = 0.3 if name == "matrix" else 0.0  # norms are not decayed
            weights[name] = weights[name] - 0.1 * (direction + decay * weights[name])
    for name, want in weights.items():
        np.testing.assert_allclose(ours[name], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guard", [False, True])
def test_the_running_mean_follows_the_weights_and_is_what_is_kept(guard):
    optimizer = make_optimizer(OptimizerConfig(peak_lr=0.1, total_steps=9, ema_decay=0.75, guard=guard))
    params = {"w": jnp.asarray([[1.0, -2.0]])}
    state = optimizer.init(params)
    mean = np.asarray(params["w"])
    for step in range(4):
        loss = jnp.float32(jnp.nan if guard and step == 2 else 1.0)
        updates, state = optimizer.update({"w": params["w"] * 0.5}, state, params, loss=loss, grad_norm=loss)
        if jnp.isfinite(loss):  # a step that is left out does not move the mean either
            params = {"w": params["w"] + updates["w"]}
            mean = 0.75 * mean + 0.25 * np.asarray(params["w"])
    np.testing.assert_allclose(trained_weights(params, state)["w"], mean, rtol=1e-6)
    assert not np.allclose(mean, params["w"])


def test_without_a_mean_the_weights_themselves_are_kept():
    params = {"w": jnp.ones((1, 2))}
    for guard in (False, True):
        state = make_optimizer(OptimizerConfig(peak_lr=0.1, total_steps=9, guard=guard)).init(params)
        assert trained_weights(params, state) is params
