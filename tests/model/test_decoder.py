"""What a token may see, and that every way to compute gives the same numbers."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.config import REMAT, ComputeConfig
from model.loop import join_model, split_model
from model.losses import next_token_loss
from tests.model.random_decoders import random_model, small_config


@partial(jax.jit, static_argnums=0)
def _run(graph, state, tokens_BT, positions_BT, segments_BT):
    return nnx.merge(graph, state)(tokens_BT, positions_BT, segments_BT)


def hidden(model, batch):
    return np.asarray(_run(*nnx.split(model), batch["tokens_BT"], batch["positions_BT"], batch["segments_BT"]))


def changed(batch, row, at):
    tokens = batch["tokens_BT"].copy()
    tokens[row, at] = (tokens[row, at] + 1) % 160
    return batch | {"tokens_BT": tokens}


@pytest.mark.parametrize("cpu_kernels", [False, True])
@pytest.mark.parametrize(
    ("row", "at", "reader", "sees"),
    [
        pytest.param(0, 10, 29, True, id="same segment, earlier"),
        pytest.param(0, 10, 9, False, id="later token"),
        pytest.param(0, 29, 30, False, id="other segment, next to it"),
        pytest.param(1, 4, 5, False, id="first segment from the second"),
        pytest.param(1, 44, 41, False, id="padding"),
    ],
)
def test_a_token_sees_only_earlier_tokens_of_its_segment(packed, cpu_kernels, row, at, reader, sees):
    model = random_model(small_config(num_layers=2, compute=ComputeConfig(cpu_kernels=cpu_kernels)))
    before, after = hidden(model, packed), hidden(model, changed(packed, row, at))
    assert np.array_equal(before[row, reader], after[row, reader]) != sees


@pytest.mark.parametrize("cpu_kernels", [False, True])
@pytest.mark.parametrize(("reader", "sees"), [(21, True), (22, False)])
def test_a_local_layer_sees_its_window_and_not_one_token_more(packed, cpu_kernels, reader, sees):
    cfg = small_config(num_layers=1, layer_pattern=("local",), compute=ComputeConfig(cpu_kernels=cpu_kernels))
    model = random_model(cfg)
    before, after = hidden(model, packed), hidden(model, changed(packed, 0, 10))
    assert np.array_equal(before[0, reader], after[0, reader]) != sees


def test_a_segment_gives_the_same_numbers_wherever_it_is_packed(packed):
    model = random_model(small_config(num_layers=2))
    together = hidden(model, packed)
    tokens = packed["tokens_BT"][1:, 5:32]
    alone = hidden(
        model,
        {"tokens_BT": tokens, "positions_BT": np.arange(27)[None], "segments_BT": np.ones((1, 27), np.int32)},
    )
    np.testing.assert_allclose(together[1, 5:32], alone[0], atol=2e-5)


def _loss_and_grads(cfg, params, batch):
    def loss(params):
        return next_token_loss(join_model(cfg, params), batch, z_loss=1e-2)[0]

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    return float(value), grads


def _relative(a, b):
    """Largest difference of two trees, each array's measured against its own largest entry."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.max(jnp.abs(x - y)) / jnp.max(jnp.abs(y))) for x, y in pairs)


WAYS = [
    pytest.param({"scan_layers": False}, id="unrolled"),
    pytest.param({"remat": "full"}, id="scan with remat"),
    pytest.param({"remat": "full", "scan_layers": False}, id="unrolled with remat", marks=pytest.mark.slow),
    pytest.param({"loss_chunk_tokens": 2}, id="loss one position at a time"),
    pytest.param({"cpu_kernels": True}, id="CPU kernels in a scan"),
    pytest.param({"cpu_kernels": True, "scan_layers": False, "loss_chunk_tokens": 32}, id="CPU kernels unrolled"),
]


@pytest.fixture(scope="module", params=[(5.0, 3.0), (None, 100.0)], ids=["low caps", "none and a high one"])
def plain(request, packed):
    """Config, weights, loss and gradients by plain autodiff; 3 layers are one period and one left over."""
    cfg = small_config(num_layers=3, attn_softcap=request.param[0], final_softcap=request.param[1])
    _, params = split_model(random_model(cfg))
    return cfg, params, *_loss_and_grads(cfg, params, packed)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_compute_gives_the_same_loss_and_gradients(plain, packed, way):
    cfg, params, value, grads = plain
    if cfg.attn_softcap is None and not way.get("cpu_kernels"):
        pytest.skip("caps change only the CPU kernels")
    other = replace(cfg, compute=ComputeConfig(**way))
    other_value, other_grads = _loss_and_grads(other, params, packed)
    assert other_value == pytest.approx(value, rel=1e-6)
    assert _relative(other_grads, grads) <= 1e-5


@pytest.mark.parametrize(
    "way",
    [
        pytest.param({}, id="plain", marks=pytest.mark.slow),
        pytest.param({"cpu_kernels": True, "scan_layers": False}, id="CPU kernels"),
    ],
)
def test_bfloat16_stays_near_float32(packed, way):
    cfg = small_config(num_layers=2)
    _, params = split_model(random_model(cfg))
    value, grads = _loss_and_grads(cfg, params, packed)
    half = replace(cfg, compute=ComputeConfig(dtype="bfloat16", **way))
    half_value, half_grads = _loss_and_grads(half, params, packed)
    assert half_value == pytest.approx(value, rel=5e-3)
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(half_grads))
    flat, half_flat = (jnp.concatenate([g.ravel() for g in jax.tree.leaves(t)]) for t in (grads, half_grads))
    cosine = jnp.vdot(flat, half_flat) / jnp.linalg.norm(flat) / jnp.linalg.norm(half_flat)
    assert cosine > 0.998


@pytest.mark.slow
def test_long_rows_use_the_chunks_of_the_cpu_attention():
    """Past ATTENTION_CHUNK queries there are several chunks, with keys that begin in the middle of the row."""
    rng = np.random.default_rng(0)
    batch = {
        "tokens_BT": rng.integers(0, 160, (1, 300)),
        "targets_BT": rng.integers(0, 160, (1, 300)),
        "positions_BT": np.arange(300)[None],
        "segments_BT": np.where(np.arange(300) < 170, 1, 2)[None],
        "weights_BT": np.ones((1, 300), np.float32),
    }
    cfg = small_config(num_layers=2, max_seq_len=300, local_window=70)
    _, params = split_model(random_model(cfg))
    value, grads = _loss_and_grads(cfg, params, batch)
    other = replace(cfg, compute=ComputeConfig(cpu_kernels=True))
    other_value, other_grads = _loss_and_grads(other, params, batch)
    assert other_value == pytest.approx(value, rel=1e-6)
    assert _relative(other_grads, grads) <= 1e-5


def test_remat_policies_keep_only_what_exists():
    """A misspelt name would keep nothing, in silence."""
    cfg = small_config(compute=ComputeConfig(attention="chunked"))
    rows = np.ones((1, 24), np.int32)
    graph, state = nnx.split(random_model(cfg))
    # The gradient, since kernels name what their own backward pass keeps.
    loss = jax.grad(lambda state: nnx.merge(graph, state)(rows, rows, rows).sum())
    text = str(jax.make_jaxpr(loss)(state))
    for name in {name for names in REMAT.values() for name in names}:
        assert f"name={name}\n" in text or f"name={name}]" in text, name
