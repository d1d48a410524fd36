"""The training step: what it reports, that parts of a batch add up, that bits repeat."""

from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest

from model.config import ComputeConfig, OptimizerConfig
from model.loop import init_state, join_model, make_train_step, state_of_model
from tests.model.random_decoders import random_model, small_config

OPTIMIZER = OptimizerConfig(peak_lr=1e-2, total_steps=100, warmup_steps=2, z_loss=1e-3)


def four_rows(packed):
    """Rows of unequal weight, so that a mean of means would differ from the mean."""
    batch = {name: np.concatenate([array, array]) for name, array in packed.items()}
    batch["tokens_BT"][2:] = (batch["tokens_BT"][2:] * 3 + 1) % 160
    batch["weights_BT"][3] = 0
    return batch


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


CONFIG = small_config(num_layers=2)


@cache
def step_of(cfg, **options):
    return make_train_step(cfg, OPTIMIZER, **options)


def run(cfg, batch, steps, **options):
    step, state = step_of(cfg, **options), init_state(cfg, OPTIMIZER, seed=1)
    history = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        history.append({name: float(value) for name, value in metrics.items()})
    return state, history


@pytest.fixture(scope="module")
def three_steps(packed):
    return run(CONFIG, four_rows(packed), 3)


def test_metrics_say_what_happened(three_steps, packed):
    state, history = three_steps
    assert int(state.step) == 3
    assert [round(m["lr"], 6) for m in history] == [0.005, 0.01, 0.01]
    assert {m["tokens"] for m in history} == {float(2 * (packed["segments_BT"] > 0).sum())}
    assert history[0]["loss"] == pytest.approx(np.log(160), abs=1.5)
    assert history[2]["loss"] < history[0]["loss"]
    assert all(m["grad_norm"] > 0 and m["z_loss"] > 0 and 0 <= m["accuracy"] <= 1 for m in history)


def test_the_same_inputs_give_the_same_bits(three_steps, packed):
    again, history = run(CONFIG, four_rows(packed), 3)
    assert history == three_steps[1]
    assert all(np.array_equal(a, b) for a, b in zip(leaves(again), leaves(three_steps[0]), strict=True))


def test_a_batch_in_parts_trains_as_the_whole_batch(three_steps, packed):
    state, history = run(CONFIG, four_rows(packed), 3, accumulate=4)
    for ours, whole in zip(history, three_steps[1], strict=True):
        assert ours["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)
    for a, b in zip(leaves(state.params), leaves(three_steps[0].params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_rows_that_do_not_divide_into_parts_are_refused(packed):
    with pytest.raises(ValueError, match="4 rows in a batch cannot be taken in accumulate=3"):
        run(CONFIG, four_rows(packed), 1, accumulate=3)


def test_the_cpu_kernels_train_alike(three_steps, packed):
    compute = ComputeConfig(scan_layers=False, cpu_kernels=True, loss_chunk_tokens=64)
    _, history = run(replace(CONFIG, compute=compute), four_rows(packed), 3)
    assert [m["loss"] for m in history] == pytest.approx([m["loss"] for m in three_steps[1]], rel=1e-4)


def test_a_model_is_trained_on_from_its_weights(packed):
    model = random_model(CONFIG)
    before = np.asarray(model.embed[...]).copy()
    state = state_of_model(model, OPTIMIZER)
    assert np.array_equal(state.params["embed"], before)
    state, metrics = step_of(CONFIG)(state, four_rows(packed))
    assert np.isfinite(float(metrics["loss"]))
    assert not np.array_equal(join_model(CONFIG, state.params).embed[...], before)


def test_another_seed_is_another_model():
    a, b = (init_state(CONFIG, OPTIMIZER, seed=seed).params["embed"] for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_a_loss_may_be_given(packed):
    def twice(model, batch, *, z_loss):
        from model.losses import next_token_loss

        total, aux = next_token_loss(model, batch, z_loss=z_loss)
        return 2 * total, aux | {"loss_sum": 2 * aux["loss_sum"]}

    _, plain = run(CONFIG, four_rows(packed), 1)
    _, doubled = run(CONFIG, four_rows(packed), 1, loss=twice)
    assert doubled[0]["loss"] == pytest.approx(2 * plain[0]["loss"], rel=1e-6)
    assert doubled[0]["grad_norm"] == pytest.approx(2 * plain[0]["grad_norm"], rel=1e-5)


def test_cpu_kernels_on_several_devices_are_refused():
    class Mesh:
        size = 8

    compute = ComputeConfig(cpu_kernels=True)
    with pytest.raises(ValueError, match=r"cpu_kernels=True on a mesh of 8 devices.*Set cpu_kernels=False"):
        make_train_step(replace(CONFIG, compute=compute), OPTIMIZER, mesh=Mesh())  # type: ignore[arg-type]
