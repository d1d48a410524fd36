"""The windowed cache: as small as it says, and the numbers of a whole pass however a text is cut and padded."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.cache import empty_cache
from model.config import ComputeConfig
from model.families import decoder_config
from tests.model.random_decoders import random_model, small_config


def cache_bytes(cfg, batch, length, piece):
    cache = jax.eval_shape(partial(empty_cache, cfg, batch, length, piece))
    return sum(2 * slots.keys.size * slots.keys.dtype.itemsize for slots in cache)


@pytest.mark.parametrize(
    ("length", "piece", "slots"),
    [
        pytest.param(96, 1, 12, id="a window"),
        pytest.param(96, 8, 19, id="a window and the rest of a piece"),
        pytest.param(19, 8, 19, id="just as long as that"),
        pytest.param(18, 8, 18, id="shorter than that"),
    ],
)
def test_local_layers_keep_their_window_and_global_ones_everything(length, piece, slots):
    local, whole = empty_cache(small_config(num_layers=3), 2, length, piece)
    assert local.keys.shape == local.values.shape == (2, 2, 2, slots, 16)  # layers 0 and 2 of three
    assert whole.keys.shape == whole.values.shape == (1, 2, 2, length, 16)


def test_the_cache_of_gemma_3_is_a_sixth_and_a_window():
    """27b, a row of 131,072 tokens: 52 of 62 layers keep 1,024 tokens and a piece."""
    cfg = decoder_config("gemma3/27b", compute=ComputeConfig(dtype="bfloat16"))
    a_token = 2 * 16 * 128 * 2  # keys and values, heads, head_dim, bytes
    assert cache_bytes(cfg, 1, 131_072, 256) == a_token * (10 * 131_072 + 52 * (1024 + 255))
    every = decoder_config("gemma3/27b", layer_pattern=("global",), compute=cfg.compute)
    assert cache_bytes(every, 1, 131_072, 256) / cache_bytes(cfg, 1, 131_072, 256) > 5.8


@pytest.fixture(
    scope="module",
    params=[
        pytest.param({"num_layers": 5}, id="two periods and a layer over, in a loop"),
        pytest.param({"num_layers": 3, "compute": ComputeConfig(scan_layers=False)}, id="written out"),
        pytest.param(
            {"num_layers": 4, "layer_pattern": ("local", "local", "global"), "qk_norms": True, "local_rope_base": 50.0},
            id="two local layers to a global one",
        ),
        pytest.param({"num_layers": 1, "layer_pattern": ("local", "global")}, id="less than a period"),
    ],
)
def model(request):
    return random_model(small_config(**request.param))


@partial(jax.jit, static_argnums=0)
def _whole(graph, state, tokens_BT):
    positions = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    return nnx.merge(graph, state)(tokens_BT, positions, jnp.ones_like(tokens_BT))


@partial(jax.jit, static_argnums=0)
def _extend(graph, state, tokens_BT, positions_BT, cache):
    return nnx.merge(graph, state).extend(tokens_BT, positions_BT, cache)


def test_hidden_states_are_those_of_a_whole_pass_past_the_ring_and_beside_padding(model):
    """Two rows grow by 0 to 7 tokens at a time, to 70 and less, over a ring of 12 + 7 - 1 slots."""
    rng = np.random.default_rng(0)
    graph, state = nnx.split(model)
    tokens = rng.integers(4, 160, (2, 70)).astype(np.int32)
    want = np.asarray(_whole(graph, state, tokens))
    cache, done = empty_cache(model.cfg, 2, 70, 7), np.zeros(2, int)
    for _ in range(24):
        counts = np.minimum(rng.integers(0, 8, 2), 70 - done)
        given, positions = rng.integers(0, 160, (2, 7)).astype(np.int32), np.full((2, 7), -1, np.int32)
        for row, count in enumerate(counts):
            given[row, :count] = tokens[row, done[row] : done[row] + count]
            positions[row, :count] = np.arange(done[row], done[row] + count)
        hidden, cache = _extend(graph, state, given, positions, cache)
        for row, count in enumerate(counts):
            at = slice(done[row], done[row] + count)
            np.testing.assert_allclose(np.asarray(hidden)[row, :count], want[row, at], atol=5e-5)
        done += counts
    assert min(done) > 3 * 18


def test_a_ring_without_the_rest_of_a_piece_would_be_noticed(model):
    """The same, read 7 at a time into a ring that has room for pieces of 1: the window is cut short."""
    graph, state = nnx.split(model)
    tokens = np.random.default_rng(0).integers(4, 160, (1, 70)).astype(np.int32)
    want = np.asarray(_whole(graph, state, tokens))
    worst = 0.0
    cache = empty_cache(model.cfg, 1, 70, 1)
    for at in range(0, 70, 7):
        positions = np.arange(at, at + 7, dtype=np.int32)[None]
        hidden, cache = _extend(graph, state, tokens[:, at : at + 7], positions, cache)
        worst = max(worst, np.abs(np.asarray(hidden)[0] - want[0, at : at + 7]).max())
    assert worst > 1e-2
