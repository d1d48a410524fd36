"""Every implementation of attention against the definition, in numpy and float64."""

import re
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import topologies

from model import chunked, splash
from model.attention import choose_implementation, packed_attention

# Float32: sums of a few hundred terms of size one, made in another order; about a hundred roundings of 6e-8.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


def definition(q, k, v, segments_q, segments_k, first, window, softcap):
    """Query by query, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    (B, N, T, _), K, S = q.shape, k.shape[1], k.shape[2]
    out = np.zeros(q.shape)
    for b in range(B):
        for n in range(N):
            for t in range(T):
                place = first + t
                start = 0 if window is None else max(0, place - window + 1)
                seen = [s for s in range(start, min(place + 1, S)) if segments_k[b, s] == segments_q[b, t]]
                logits = k[b, n * K // N, seen] @ q[b, n, t]
                if softcap is not None:
                    logits = softcap * np.tanh(logits / softcap)
                weights = np.exp(logits - logits.max())
                out[b, n, t] = weights / weights.sum() @ v[b, n * K // N, seen]
    return out


def inputs(B=2, N=4, K=2, T=40, S=None, H=8, first=0, seed=0, dtype=jnp.float32, scale=2.0):
    """Rows of uneven segments that end in padding, and queries that make sharp weights, so that a soft cap matters."""
    S = first + T if S is None else S
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, max(2, S // 2), (B, S))
    segments = np.stack([np.repeat(np.arange(1, S + 1), row)[:S] for row in lengths]).astype(np.int32)
    segments[-1, S - S // 8 :] = 0
    q, d_out = (rng.normal(size=(B, N, T, H)) for _ in range(2))
    k, v = (rng.normal(size=(B, K, S, H)) for _ in range(2))
    arrays = [jnp.asarray(x, dtype) for x in (q * scale, k, v, d_out)]
    return *arrays, jnp.asarray(segments[:, first : first + T]), jnp.asarray(segments)


def run(implementation, x, first=0, window=None, softcap=None):
    """Values and gradients. The place of the first query is traced, as under shard_map, where it is not 0."""
    q, k, v, d_out, segments_q, segments_k = x
    d_out = jnp.where(segments_q[:, None, :, None] > 0, d_out, 0)  # padding carries no loss

    @jax.jit
    def both(place, q, k, v, d_out):
        options = {"first": place if first else 0, "window": window, "softcap": softcap}

        def attention(q, k, v):
            if implementation == "splash":
                return splash.splash_attention(q, k, v, segments_q, segments_k, *options.values(), interpret=True)
            return packed_attention(q, k, v, segments_q, segments_k, **options, implementation=implementation)

        out, pull = jax.vjp(attention, q, k, v)
        return out, *pull(d_out)

    out, *gradients = (np.asarray(x, np.float32) for x in both(first, q, k, v, d_out))
    assert np.isfinite(out).all()
    return [np.where(np.asarray(segments_q)[:, None, :, None] > 0, out, 0), *gradients]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 16 make many of them in short rows."""
    monkeypatch.setattr(chunked, "QUERY_BLOCK", 16)
    monkeypatch.setattr(chunked, "KEY_BLOCK", 16)


CASES = [
    pytest.param({}, {}, id="causal"),
    pytest.param({}, {"softcap": 3.0}, id="soft cap"),
    pytest.param({}, {"window": 7, "softcap": 3.0}, id="window below a block"),
    pytest.param({}, {"window": 16}, id="window of one block"),
    pytest.param({"T": 48}, {"window": 17}, id="window just above a block, whole blocks"),
    pytest.param({"T": 33}, {"window": 1}, id="each sees itself only"),
    pytest.param({"N": 6, "K": 1}, {"softcap": 3.0}, id="one key head"),
    pytest.param({"N": 3, "K": 3}, {}, id="as many key heads as query heads"),
    pytest.param(
        {"T": 16, "S": 64, "first": 32}, {"first": 32, "window": 20, "softcap": 3.0}, id="third of four parts"
    ),
    pytest.param({"T": 10, "S": 61, "first": 51}, {"first": 51}, id="last part, uneven lengths"),
    pytest.param({"T": 16, "S": 64, "first": 0}, {"first": 0}, id="first of four parts"),
    pytest.param({"T": 1, "S": 1, "B": 1}, {}, id="one token"),
]


@pytest.mark.parametrize(("shape", "options"), CASES)
def test_the_reference_is_the_definition(shape, options):
    q, k, v, _, segments_q, segments_k = x = inputs(**shape)
    expected = definition(q, k, v, *map(np.asarray, (segments_q, segments_k)), *_all(options))
    expected = np.where(np.asarray(segments_q)[:, None, :, None] > 0, expected, 0)
    np.testing.assert_allclose(run("reference", x, **options)[0], expected, **FLOAT32)


def _all(options):
    return options.get("first", 0), options.get("window"), options.get("softcap")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("shape", "options"), CASES)
def test_chunks_equal_the_reference_in_values_and_gradients(shape, options):
    x = inputs(**shape)
    for ours, reference in zip(run("chunked", x, **options), run("reference", x, **options), strict=True):
        np.testing.assert_allclose(ours, reference, **FLOAT32)


@pytest.mark.usefixtures("small_blocks")
@given(
    T=st.integers(1, 50),
    first=st.integers(0, 40),
    after=st.integers(0, 20),
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1)]),
    window=st.none() | st.integers(1, 60),
    softcap=st.sampled_from([None, 2.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=5)
def test_chunks_equal_the_reference_at_any_shape(T, first, after, heads, window, softcap, seed):
    x = inputs(B=1, N=heads[0], K=heads[1], T=T, S=first + T + after, first=first, H=4, seed=seed)
    options = {"first": first, "window": window, "softcap": softcap}
    for ours, reference in zip(run("chunked", x, **options), run("reference", x, **options), strict=True):
        np.testing.assert_allclose(ours, reference, **FLOAT32)


@pytest.mark.usefixtures("small_blocks")
def test_in_bfloat16_both_stay_within_a_few_roundings_of_the_definition():
    """One rounding is 2^-9. Chunks take the mean gradient of a query from its rounded output, as FlashAttention does:
    one rounding more than the reference in the gradients of queries and keys."""
    x16 = [a.astype(jnp.bfloat16) if a.dtype == jnp.float32 else a for a in inputs(T=48)]
    options = {"window": 20, "softcap": 3.0}
    exact = run("reference", [a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a for a in x16], **options)
    for implementation in ("chunked", "reference"):
        for ours, true in zip(run(implementation, x16, **options), exact, strict=True):
            assert np.linalg.norm(ours - true) < 2**-7 * np.linalg.norm(true)


@pytest.mark.parametrize("part", ["a later key", "a key before the window", "a key of another segment"])
@pytest.mark.parametrize("implementation", ["reference", "chunked"])
def test_a_masked_key_changes_nothing(implementation, part):
    q, k, v, d_out, *_ = inputs(B=1, T=32)
    segments = jnp.asarray([[1] * 20 + [2] * 12], jnp.int32)
    query, key = {"a later key": (12, 13), "a key before the window": (12, 4), "a key of another segment": (22, 19)}[
        part
    ]

    def out(k, v):
        return run(implementation, (q, k, v, d_out, segments, segments), window=8)[0][:, :, query]

    np.testing.assert_array_equal(out(k, v), out(k.at[:, :, key].set(9.0), v.at[:, :, key].set(9.0)))
    seen = 12 if query == 12 else 20
    assert (out(k, v) != out(k.at[:, :, seen].set(9.0), v.at[:, :, seen].set(9.0))).all()


def peak_bytes(implementation, T, window=None):
    """Of values and gradients of one head, from the compiled program."""
    row = jax.ShapeDtypeStruct((1, 1, T, 64), jnp.float32)
    segments = jax.ShapeDtypeStruct((1, T), jnp.int32)

    def both(q, k, v, d_out, segments):
        options = {"window": window, "softcap": 50.0, "implementation": implementation}
        out, pull = jax.vjp(lambda *qkv: packed_attention(*qkv, segments, segments, **options), q, k, v)
        return out, pull(d_out)

    return jax.jit(both).lower(row, row, row, row, segments).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("window", [None, 1024])
def test_memory_of_chunks_grows_with_the_length_and_not_with_its_square(window):
    """Twice the length adds as much as the length before did: a few arrays of [T, H], and never one of [T, T]."""
    lengths = 4096, 8192, 16384
    a, b, c = (peak_bytes("chunked", T, window) for T in lengths)
    assert c - b == pytest.approx(2 * (b - a), rel=0.1)
    assert c < 12 * 16384 * 64 * 4
    assert peak_bytes("reference", 4096) > 4096 * 4096 * 4  # the measure does see them


@pytest.mark.parametrize(
    ("platform", "query_length", "key_length", "choice"),
    [
        pytest.param("cpu", 256, 256, "reference", id="short"),
        pytest.param("cpu", 257, 257, "chunked", id="longer than a block"),
        pytest.param("cpu", 64, 512, "chunked", id="the row counts, not a device's part of it"),
        pytest.param("gpu", 8192, 8192, "chunked", id="no kept GPU kernel has a soft cap"),
        pytest.param("tpu", 8192, 8192, "splash", id="TPU"),
        pytest.param("tpu", 1024, 8192, "splash", id="TPU, part of a row"),
        pytest.param("tpu", 8200, 8200, "chunked", id="not in whole registers"),
        pytest.param("tpu", 100, 200, "reference", id="TPU, short and not in whole registers"),
    ],
)
def test_auto_chooses_by_hardware_and_length(platform, query_length, key_length, choice):
    assert choose_implementation(platform, query_length, key_length) == choice


def test_auto_computes_what_it_chose():
    short, long = inputs(B=1, T=32), inputs(B=1, T=300)
    for x, chosen in ((short, "reference"), (long, "chunked")):
        for auto, named in zip(run("auto", x), run(chosen, x), strict=True):
            np.testing.assert_array_equal(auto, named)


@pytest.mark.parametrize(
    ("shape", "options", "blocks"),
    [
        pytest.param({"T": 256}, {"softcap": 3.0}, (128, 256), id="causal, key blocks of two parts"),
        pytest.param({"T": 384}, {"window": 130, "softcap": 3.0}, (128, 128), id="window above a block"),
        pytest.param({"T": 256, "N": 3, "K": 1}, {"window": 1}, (128, 128), id="each sees itself only"),
        pytest.param(
            {"T": 128, "S": 512, "first": 256}, {"first": 256, "softcap": 3.0}, (128, 256), id="part of a row"
        ),
        pytest.param({"T": 256, "S": 512, "first": 256}, {"first": 256, "window": 100}, (128, 128), id="part, window"),
        pytest.param({"T": 128, "S": 256, "first": 0}, {}, (128, 128), id="first part: keys that nobody sees"),
    ],
)
def test_splash_kernels_equal_the_reference_in_values_and_gradients(monkeypatch, shape, options, blocks):
    monkeypatch.setattr(splash, "BLOCKS", blocks[:1])
    monkeypatch.setattr(splash, "BACKWARD_KEY_BLOCKS", blocks[1:])
    x = inputs(B=shape.pop("B", 1), **({"N": 2, "K": 1} | shape))
    for ours, reference in zip(run("splash", x, **options), run("reference", x, **options), strict=True):
        np.testing.assert_allclose(ours, reference, **FLOAT32)


def test_lengths_that_the_kernels_cannot_cut_are_refused():
    with pytest.raises(ValueError, match=r"200 queries and 200 keys .* multiples of 128.*attention='chunked'"):
        run("splash", inputs(B=1, T=200))


@pytest.mark.parametrize(
    ("start", "first", "window", "queries"),
    [
        pytest.param(0, 0, None, (0, 8), id="all see the first keys"),
        pytest.param(4, 0, None, (4, 8), id="none before its own place"),
        pytest.param(4, 0, 1, (4, 8), id="window of one: four keys, four queries"),
        pytest.param(0, 0, 1, (0, 4), id="window of one ends the block"),
        pytest.param(0, 0, 2, (0, 6), id="window of two needs one block more"),
        pytest.param(4, 8, None, (0, 8), id="a later part of the row"),
        pytest.param(0, 8, 2, (0, 2), id="nobody sees them, and one block is kept"),
        pytest.param(12, 0, None, (6, 8), id="keys after every query"),
    ],
)
def test_only_queries_that_can_see_a_key_block_are_given_to_its_kernel(start, first, window, queries):
    """Key blocks of 4, query blocks of 2, 8 queries."""
    assert splash._queries_that_see(start, first, 8, 2, 4, window) == queries


def libtpu() -> str:
    """Google's TPU compiler: this environment's, or that of `make tpu`."""
    here = find_spec("libtpu")
    places = [Path(place) for place in here.submodule_search_locations or []] if here else []
    made = Path(__file__).parents[2].glob(".venv-tpu/lib/python*/site-packages/libtpu")
    return next((str(place / "libtpu.so") for place in (*places, *made)), "")


@pytest.mark.skipif(not libtpu(), reason="the TPU compiler is not installed: make tpu")
@pytest.mark.parametrize(("parts", "head_dim"), [(1, 128), (2, 256)])
def test_splash_compiles_for_a_tpu_that_is_not_there(monkeypatch, parts, head_dim):
    for name, value in {
        "TPU_LIBRARY_PATH": libtpu(),
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
    }.items():
        monkeypatch.setenv(name, value)
    device = topologies.get_topology_desc(platform="tpu", topology_name="v6e:2x2").devices[0]
    on_it = jax.sharding.SingleDeviceSharding(device)
    S = 4096
    T = S // parts

    def on_tpu(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=on_it)

    def gradients(q, k, v, d_out, segments_q, segments_k, first):
        options = {"window": 1024, "softcap": 50.0, "implementation": "splash", "first": first if parts > 1 else 0}
        out, pull = jax.vjp(lambda *qkv: packed_attention(*qkv, segments_q, segments_k, **options), q, k, v)
        return out, pull(d_out)

    q, k = on_tpu(2, 4, T, head_dim), on_tpu(2, 2, S, head_dim)
    segments_q, segments_k = on_tpu(2, T, dtype=jnp.int32), on_tpu(2, S, dtype=jnp.int32)
    lowered = jax.jit(gradients).lower(q, k, k, q, segments_q, segments_k, on_tpu(dtype=jnp.int32))
    program = lowered.compile().as_text()
    assert len(re.findall(r"%splash_mha_fwd_segmented\S* = ", program)) == 1
    assert len(re.findall(r"%splash_mha_dkv_segmented\S* = ", program)) == S // 2048
