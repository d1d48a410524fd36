"""Adapters: what is trained and what stays, the same as peft, and less memory."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from model.checkpoint import Checkpoints
from model.config import ComputeConfig, LoraConfig, MoEConfig, OptimizerConfig
from model.convert import save_hf
from model.loop import abstract_state, init_state, join_model, make_train_step, state_of_model
from model.lora import joined, merged, trainable
from model.losses import next_token_loss, packed_batch
from model.peft import save_adapters
from tests.model.random_decoders import random_model, small_config
from tests.model.test_parity import PYTHON

LORA = LoraConfig(rank=4, alpha=8.0)
OPTIMIZER = OptimizerConfig(peak_lr=1e-2, total_steps=10, schedule="constant", clip_norm=0)
BASE = small_config(num_layers=2)
CONFIG = replace(BASE, lora=LORA)


def leaves(tree):
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def loss_of(cfg, weights, batch):
    total, aux = jax.jit(lambda w: next_token_loss(join_model(cfg, w), batch))(weights)
    return float(total / aux["weight_sum"])


def away_from_zero(params):
    """Adapters after some training: neither side is zero."""
    keys = iter(jax.random.split(jax.random.key(5), len(jax.tree.leaves(params))))
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), params)


@pytest.fixture(scope="module")
def started():
    return state_of_model(random_model(BASE), OPTIMIZER, lora=LORA, seed=3)


@pytest.fixture(scope="module")
def three_steps(packed):
    state, step = state_of_model(random_model(BASE), OPTIMIZER, lora=LORA, seed=3), make_train_step(CONFIG, OPTIMIZER)
    losses = []
    for _ in range(3):
        state, metrics = step(state, packed)
        losses.append(float(metrics["loss"]))
    return state, losses


def test_fresh_adapters_add_nothing(started, packed, three_steps):
    weights, base = leaves(merged(started.weights, LORA)), leaves(started.frozen)
    assert weights.keys() == base.keys()
    assert all(np.array_equal(array, base[name]) for name, array in weights.items())
    assert three_steps[1][0] == pytest.approx(loss_of(BASE, started.frozen, packed), rel=1e-6)


def test_only_adapters_are_trained_and_have_moments(started, three_steps):
    state, losses = three_steps
    assert losses[2] < losses[0]
    for name, array in leaves(state.frozen).items():
        np.testing.assert_array_equal(array, leaves(started.frozen)[name])
    assert all("_adapter" in name for name in leaves(state.params))
    assert len(leaves(state.params)) == 2 * 7
    assert not any(np.array_equal(array, leaves(started.params)[name]) for name, array in leaves(state.params).items())
    trained = sum(array.size for array in leaves(state.params).values())
    assert sum(array.size for array in leaves(state.opt_state).values()) <= 2 * trained + 4


def test_only_the_targets_have_adapters():
    state = init_state(replace(BASE, lora=LoraConfig(rank=2, alpha=2.0, targets=("query", "down"))), OPTIMIZER)
    layers = state.params["layers"]
    assert {name: list(node) for name, node in layers.items()} == {
        "attention": ["query_adapter"],
        "mlp": ["down_adapter"],
    }


@pytest.mark.parametrize("compute", [ComputeConfig(), ComputeConfig(cpu_kernels=True, scan_layers=False)])
def test_weights_with_their_adapters_added_compute_the_same(three_steps, packed, compute):
    state, _ = three_steps
    params = away_from_zero(state.params)
    apart = loss_of(replace(CONFIG, compute=compute), joined(params, state.frozen), packed)
    together = loss_of(replace(BASE, compute=compute), merged(joined(params, state.frozen), LORA), packed)
    assert apart == pytest.approx(together, rel=2e-6)
    assert apart != pytest.approx(loss_of(BASE, state.frozen, packed), rel=1e-2)


def test_gradients_are_those_of_the_weights_through_the_product(started, packed):
    """Chain rule by hand, from the gradient of the merged weights."""
    params = away_from_zero(started.params)

    def mean(cfg, weights):
        total, aux = next_token_loss(join_model(cfg, weights), packed)
        return total / aux["weight_sum"]

    got = jax.jit(jax.grad(lambda p: mean(CONFIG, joined(p, started.frozen))))(params)
    weights = merged(joined(params, started.frozen), LORA)
    whole = jax.jit(jax.grad(lambda w: mean(BASE, w)))(weights)
    for part, name in (("attention", "query"), ("attention", "out"), ("mlp", "gate"), ("mlp", "down")):
        adapter, d_weight = params["layers"][part][f"{name}_adapter"], np.asarray(whole["layers"][part][name])
        rows, columns = np.asarray(adapter["rows"]), np.asarray(adapter["columns"])
        mine = got["layers"][part][f"{name}_adapter"]
        np.testing.assert_allclose(mine["rows"], 2 * d_weight @ columns.swapaxes(1, 2), rtol=2e-4, atol=2e-6)
        np.testing.assert_allclose(mine["columns"], 2 * rows.swapaxes(1, 2) @ d_weight, rtol=2e-4, atol=2e-6)


def test_a_tree_is_cut_and_joined_again(started):
    again = trainable(joined(started.params, started.frozen))
    assert leaves(again[0]).keys() == leaves(started.params).keys()
    assert leaves(again[1]).keys() == leaves(started.frozen).keys()
    assert trainable(started.frozen) == (started.frozen, {}), "without adapters everything is trained"


def test_a_checkpoint_holds_adapters_and_not_the_base(three_steps, tmp_path):
    state, _ = three_steps
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state, {})
        checkpoints.wait()
        like = replace(abstract_state(CONFIG, OPTIMIZER), frozen=state.frozen)
        restored = checkpoints.restore(like).state
    arrays = json.loads((tmp_path / "3/record/metadata").read_text())["arrays"]
    assert {name for name in arrays if name.startswith("params.")} == {
        f"params.layers.{part}.{name}_adapter.{side}"
        for part, names in (("attention", ("query", "key", "value", "out")), ("mlp", ("gate", "up", "down")))
        for name in names
        for side in ("rows", "columns")
    }
    assert all("_adapter" in name or size == [] for name, (size, _) in arrays.items())
    assert restored.frozen is state.frozen
    assert all(np.array_equal(a, b) for a, b in zip(leaves(restored).values(), leaves(state).values(), strict=True))


@pytest.mark.slow
def test_no_gradient_or_moment_of_the_weights_is_held():
    """Of a model whose layers are most of it: the compiler's own account of the step's memory."""
    compute = ComputeConfig(remat="full", loss_chunk_tokens=16)
    cfg = small_config(num_layers=16, embed_dim=64, mlp_dim=512, compute=compute)
    batch = packed_batch(np.arange(2 * 17, dtype=np.int32).reshape(2, 17))
    batch = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in batch.items()}
    layers = 4 * (cfg.num_params - cfg.vocab_size * cfg.embed_dim)

    def held(cfg):
        step = make_train_step(cfg, OPTIMIZER).lower(abstract_state(cfg, OPTIMIZER), batch)
        memory = step.compile().memory_analysis()
        return memory.temp_size_in_bytes, memory.argument_size_in_bytes

    temporary, arguments = held(replace(cfg, lora=LoraConfig(rank=2, alpha=2.0)))
    temporary_of_all, arguments_of_all = held(cfg)
    assert temporary_of_all - temporary > 0.9 * layers, "the gradient of all layers"
    assert arguments_of_all - arguments > 2 * 0.9 * layers, "both moments"


def test_experts_have_no_adapters():
    moe = {"moe": MoEConfig(num_experts=4, experts_per_token=2)}
    with pytest.raises(ValueError, match="names down, gate, up of a mixture of experts"):
        small_config(**moe, lora=LORA)
    only_attention = LoraConfig(rank=2, alpha=2.0, targets=("query", "key", "value", "out"))
    state = init_state(small_config(**moe, lora=only_attention, num_layers=2), OPTIMIZER)
    assert list(state.params["layers"]) == ["attention"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 0}, "rank=0"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"targets": ("embed",)}, "targets"),
        ({"targets": ()}, "targets"),
    ],
)
def test_adapters_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**({"rank": 4, "alpha": 8.0} | wrong))


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(not PYTHON.exists(), reason="torch and peft live in .venv-vllm, which is absent: make vllm")
def test_peft_reads_our_adapters_and_trains_them_as_we_do(tmp_path):
    model, lr, steps = random_model(BASE), 1e-3, 4
    save_hf(model, tmp_path / "base", dtype="float32")
    optimizer = replace(OPTIMIZER, peak_lr=lr)
    state = state_of_model(model, optimizer, lora=LORA, seed=3)
    state = replace(state, params=away_from_zero(state.params))
    save_adapters(state.params, CONFIG, tmp_path / "adapter")
    rng = np.random.default_rng(0)
    batch = packed_batch(rng.integers(4, 160, (2, 25)).astype(np.int32))
    spec = {"lr": lr, "steps": steps} | {name: batch[f"{name}_BT"].tolist() for name in ("tokens", "targets")}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1"}
    command = [str(PYTHON), str(Path(__file__).with_name("peft_oracle.py")), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]

    ours = join_model(CONFIG, state.weights)
    logits = jax.jit(lambda b: ours.logits(ours(b["tokens_BT"], b["positions_BT"], b["segments_BT"])))(batch)
    np.testing.assert_allclose(logits, np.load(tmp_path / "logits.npy"), atol=1e-4)
    step, losses = make_train_step(CONFIG, optimizer), []
    for _ in range(steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses == pytest.approx(json.loads((tmp_path / "losses.json").read_text()), rel=2e-5)
    save_adapters(state.params, CONFIG, tmp_path / "trained")
    got, want = load_file(tmp_path / "trained/adapter_model.safetensors"), load_file(tmp_path / "after.safetensors")
    assert {name.replace(".weight", ".default.weight") for name in got} == want.keys()
    for name, array in got.items():
        np.testing.assert_allclose(array, want[name.replace(".weight", ".default.weight")], atol=2e-4)
