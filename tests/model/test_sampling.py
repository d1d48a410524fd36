"""The controls of sampling against transformers' own, and draws against the distribution they come from."""

import json
import math
import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.sampling import Sampling, choose, filtered, penalised, stack

PYTHON = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"
VOCAB = 97
SETTINGS = [
    {"temperature": 0.7},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 1.3, "top_k": 5},
    {"temperature": 1.0, "top_k": 96},
    {"temperature": 1.0, "top_k": 97},
    {"temperature": 1.0, "top_k": 500},
    {"temperature": 0.5, "top_p": 0.9},
    {"temperature": 2.0, "top_p": 0.5},
    {"temperature": 1.0, "top_p": 0.01},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 0.3, "min_p": 1.0},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
    {"temperature": 1.0, "top_k": 8, "top_p": 0.6},
    {"temperature": 1.0, "repetition_penalty": 1.3},
    {"temperature": 0.9, "repetition_penalty": 0.8, "top_p": 0.7},
    {"temperature": 1.1, "repetition_penalty": 2.0, "top_k": 10, "top_p": 0.95, "min_p": 0.02},
]


def as_row(setting) -> Sampling:
    return Sampling(**setting)


def after_controls(logits_BV, tokens_BT, rows):
    """Logits as they are drawn from, with each row's own setting."""
    parts, controls = stack(rows)
    seen_BV = np.zeros(logits_BV.shape, bool)
    np.put_along_axis(seen_BV, tokens_BT, True, axis=1)
    penalised_BV = penalised(jnp.asarray(logits_BV), jnp.asarray(seen_BV), controls.repetition_penalty)
    return np.asarray(filtered(penalised_BV / controls.temperature[:, None], controls, sorts=parts.sorts))


@pytest.mark.vllm
@pytest.mark.skipif(not PYTHON.exists(), reason="torch and transformers live in .venv-vllm: make vllm")
def test_controls_leave_the_logits_that_transformers_leaves(tmp_path):
    rng = np.random.default_rng(0)
    settings = [setting for setting in SETTINGS for _ in range(8)]
    logits_BV = rng.normal(0, 3, (len(settings), VOCAB)).astype(np.float32)
    tokens_BT = rng.integers(0, VOCAB, (len(settings), 12))
    np.savez(tmp_path / "in.npz", logits=logits_BV, tokens=tokens_BT)
    # transformers' own default of top_k is 50
    (tmp_path / "settings.json").write_text(json.dumps([{"top_k": 0} | setting for setting in settings]))
    files = [str(tmp_path / name) for name in ("in.npz", "settings.json", "out.npy")]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1"}
    command = [str(PYTHON), str(Path(__file__).with_name("hf_sampling.py")), *files]
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    want_BV = np.load(tmp_path / "out.npy")
    got_BV = after_controls(logits_BV, tokens_BT, [as_row(setting) for setting in settings])
    np.testing.assert_array_equal(np.isfinite(got_BV), np.isfinite(want_BV))
    kept_BV = np.isfinite(want_BV)
    assert 0.05 < kept_BV.mean() < 0.8
    np.testing.assert_allclose(got_BV[kept_BV], want_BV[kept_BV], rtol=1e-6)


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        pytest.param({}, [1, 1, 1, 1, 1], id="nothing is filtered"),
        pytest.param({"top_k": 2}, [1, 1, 0, 0, 0], id="two likeliest"),
        pytest.param({"top_k": 3}, [1, 1, 1, 1, 0], id="ties with the last stay"),
        pytest.param({"top_p": 0.49}, [1, 0, 0, 0, 0], id="half is enough"),
        pytest.param({"top_p": 0.51}, [1, 1, 0, 0, 0], id="half is not enough"),
        pytest.param({"min_p": 0.49}, [1, 1, 0, 0, 0], id="half as likely as the best stays"),
        pytest.param({"min_p": 0.51}, [1, 0, 0, 0, 0], id="half as likely as the best goes"),
        pytest.param({"top_k": 2, "top_p": 0.66}, [1, 0, 0, 0, 0], id="top_p counts what top_k left"),
        pytest.param({"top_k": 2, "top_p": 0.68}, [1, 1, 0, 0, 0], id="which is two thirds and one"),
    ],
)
def test_each_filter_keeps_what_its_threshold_says(setting, kept):
    logits_BV = np.log([[0.5, 0.25, 0.1, 0.1, 0.05]]).astype(np.float32)
    got = after_controls(logits_BV, np.zeros((1, 0), int), [Sampling(temperature=1.0, **setting)])
    assert np.isfinite(got[0]).tolist() == [bool(k) for k in kept]


@pytest.mark.parametrize("setting", [SETTINGS[0], SETTINGS[2], SETTINGS[7], SETTINGS[11]])
def test_draws_follow_what_the_controls_left(setting):
    """20,000 draws against the softmax of the kept logits (chi-square over tokens expected five times and more)."""
    logits_V = np.random.default_rng(1).normal(0, 2, VOCAB).astype(np.float32)
    count = 20_000
    logits_BV = jnp.broadcast_to(jnp.asarray(logits_V), (count, VOCAB))
    parts, controls = stack([Sampling(**setting, seed=seed) for seed in range(count)])
    drawn_B = np.asarray(choose(logits_BV, None, jnp.zeros(count, jnp.int32), controls, parts))
    left_V = after_controls(logits_V[None], np.zeros((1, 0), int), [as_row(setting)])[0].astype(np.float64)
    expected_V = count * np.asarray(jax.nn.softmax(left_V))
    found_V = np.bincount(drawn_B, minlength=VOCAB)
    assert found_V[expected_V == 0].sum() == 0
    often_V = expected_V >= 5
    freedom = often_V.sum() - 1
    assert freedom >= 4
    statistic = np.sum((found_V - expected_V)[often_V] ** 2 / expected_V[often_V])
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)
    assert statistic > freedom - 4 * math.sqrt(2 * freedom), "too even to be random"


def test_a_draw_depends_on_the_seed_and_the_position_and_on_no_neighbour():
    logits_BV = jnp.zeros((4, 1000))
    rows = [Sampling(temperature=1.0, seed=seed) for seed in (7, 8, 7, 7 + 2**32)]
    positions = jnp.asarray([3, 3, 3, 3])

    def draw(order):
        parts, controls = stack([rows[i] for i in order])
        return np.asarray(choose(logits_BV[: len(order)], None, positions[: len(order)], controls, parts)).tolist()

    together = draw([0, 1, 2, 3])
    assert together[0] == together[2]
    assert len(set(together)) == 3
    assert draw([1, 0]) == together[1::-1]
    parts, controls = stack(rows)
    later = np.asarray(choose(logits_BV, None, positions + 1, controls, parts)).tolist()
    assert not set(later) & set(together)


def test_rows_without_a_temperature_take_the_best_token_among_rows_that_draw():
    rng = np.random.default_rng(2)
    logits_BV = jnp.asarray(rng.normal(0, 0.1, (64, VOCAB)), jnp.float32)
    rows = [Sampling(temperature=float(i % 2), top_k=3 * (i % 4), seed=i) for i in range(64)]
    parts, controls = stack(rows)
    got = np.asarray(choose(logits_BV, None, jnp.zeros(64, jnp.int32), controls, parts))
    best = np.argmax(logits_BV, -1)
    np.testing.assert_array_equal(got[::2], best[::2])
    assert (got[1::2] != best[1::2]).sum() > 16


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"temperature": 0.0}, {"temperature": -0.1}),
        ({"top_k": 0}, {"top_k": -1}),
        ({"top_p": 1.0}, {"top_p": 1.01}),
        ({"top_p": 0.001}, {"top_p": 0.0}),
        ({"min_p": 1.0}, {"min_p": 1.01}),
        ({"min_p": 0.0}, {"min_p": -0.01}),
        ({"repetition_penalty": 0.01}, {"repetition_penalty": 0.0}),
        ({"seed": 2**64 - 1}, {"seed": 2**64}),
        ({"seed": 0}, {"seed": -1}),
    ],
)
def test_controls_that_mean_nothing_are_refused(good, bad):
    stack([Sampling(**good)])
    ((name, value),) = bad.items()
    with pytest.raises(ValueError, match=f"{name}={value}: .*Leave a control out"):
        Sampling(**bad)
