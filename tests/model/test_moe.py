"""A mixture of experts against loops over tokens in numpy, and the losses of its router against their definition."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas import tpu as pltpu

from model import moe
from model.config import ComputeConfig, MoEConfig
from model.loop import join_model, split_model
from model.losses import next_token_loss
from model.moe import MoE, grouped, permuted, standardised
from tests.model.random_decoders import random_model, small_config

EXPERTS = MoEConfig(num_experts=4, experts_per_token=2)


def config(experts=EXPERTS, **compute):
    return small_config(embed_dim=16, mlp_dim=24, activation="silu", moe=experts, compute=ComputeConfig(**compute))


def weights(cfg):
    return nnx.to_pure_dict(nnx.state(MoE(cfg, rngs=nnx.Rngs(0))))


def run(cfg, weights, x, is_token=None):
    module = nnx.merge(nnx.graphdef(MoE(cfg, rngs=nnx.Rngs(0))), weights)
    return module(x, jnp.ones(x.shape[:2], bool) if is_token is None else is_token)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(1), (2, 13, 16))


def token_by_token(w, x, experts):
    """What each token gets, one at a time, in float64; and for each its logits, probabilities and experts."""
    w = {name: np.asarray(a, np.float64) for name, a in w.items()}
    outs, facts = [], []
    for token in np.asarray(x, np.float64).reshape(-1, x.shape[-1]):
        logits = w["router"] @ token
        scores = (logits - logits.mean()) / logits.std() if experts.normalise_router_logits else logits
        probs = np.exp(scores) / np.exp(scores).sum()
        chosen = np.argsort(-probs)[: experts.experts_per_token]
        out = np.zeros_like(token)
        for e in chosen:
            gate, up = w["gate"][e] @ token, w["up"][e] @ token
            out += probs[e] / probs[chosen].sum() * ((gate / (1 + np.exp(-gate)) * up) @ w["down"][e])
        outs.append(out)
        facts.append((logits, probs, chosen))
    return np.stack(outs).reshape(x.shape), facts


def every_expert(w, x, experts):
    """The same for all tokens at once and for every expert, for autodiff to differentiate."""
    logits = x @ w["router"].T
    probs = jax.nn.softmax(standardised(logits) if experts.normalise_router_logits else logits)
    kept = jnp.where(probs >= jnp.sort(probs)[..., -experts.experts_per_token, None], probs, 0)
    h = jax.nn.silu(jnp.einsum("btd,efd->btef", x, w["gate"])) * jnp.einsum("btd,efd->btef", x, w["up"])
    return jnp.einsum("bte,btef,efd->btd", kept / kept.sum(-1, keepdims=True), h, w["down"])


@pytest.mark.parametrize("cpu_kernels", [False, True])
@pytest.mark.parametrize(
    "experts",
    [
        pytest.param(EXPERTS, id="two of four"),
        pytest.param(replace(EXPERTS, experts_per_token=1), id="one: its weight is 1, whatever its probability"),
        pytest.param(replace(EXPERTS, experts_per_token=4), id="all of them"),
        pytest.param(replace(EXPERTS, num_experts=32, experts_per_token=3), id="some get no token"),
        pytest.param(replace(EXPERTS, normalise_router_logits=True), id="normalised logits"),
    ],
)
def test_every_token_gets_what_its_experts_make_of_it(experts, cpu_kernels, x):
    cfg = config(experts, cpu_kernels=cpu_kernels)
    w, d_y = weights(cfg), jax.random.normal(jax.random.key(2), x.shape)
    y, grads = jax.jit(lambda w, x: (run(cfg, w, x)[0], jax.grad(_dot(cfg, d_y), (0, 1))(w, x)))(w, x)
    want, facts = token_by_token(w, x, experts)
    np.testing.assert_allclose(y, want, atol=2e-5)
    wanted = jax.jit(jax.grad(lambda w, x: jnp.sum(every_expert(w, x, experts) * d_y), (0, 1)))(w, x)
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * max(1, np.abs(want).max()), rtol=1e-4)
    idle = set(range(experts.num_experts)) - {int(e) for *_, chosen in facts for e in chosen}
    assert bool(idle) == (experts.num_experts == 32)
    for expert in idle:
        assert not np.any(grads[0]["down"][expert])


def _dot(cfg, d_y):
    return lambda w, x: jnp.sum(run(cfg, w, x)[0] * d_y)


@pytest.mark.parametrize("cpu_kernels", [False, True])
def test_in_bfloat16_tokens_go_where_float32_sends_them(cpu_kernels, x):
    cfg, d_y = config(cpu_kernels=cpu_kernels), jnp.ones(x.shape, jnp.bfloat16)
    w, x = weights(cfg), x.astype(jnp.bfloat16)

    def both(w, x):
        return run(cfg, w, x)[0], jax.grad(lambda w: jnp.sum(run(cfg, w, x)[0].astype(jnp.float32) * d_y))(w)

    (y, grads), (want, wanted) = jax.jit(both)(w, x), jax.jit(both)(w, x.astype(jnp.float32))
    assert y.dtype == jnp.bfloat16
    assert np.abs(np.asarray(y, np.float32) - want).max() <= 2e-2 * np.abs(want).max()
    for name, grad in grads.items():
        assert grad.dtype == jnp.float32
        assert np.abs(grad - wanted[name]).max() <= 3e-2 * np.abs(wanted[name]).max(), name


@pytest.mark.parametrize("experts", [EXPERTS, replace(EXPERTS, normalise_router_logits=True)])
def test_the_sums_of_the_router_are_those_of_their_definition(experts, x):
    cfg, w = config(experts), weights(config(experts))
    is_token = np.arange(26).reshape(2, 13) % 5 != 0
    _, sums = run(cfg, w, x, jnp.asarray(is_token))
    facts = [fact for fact, counts in zip(token_by_token(w, x, experts)[1], is_token.ravel(), strict=True) if counts]
    load = np.bincount(np.concatenate([chosen for *_, chosen in facts]), minlength=4) / len(facts)
    mean = np.mean([probs for _, probs, _ in facts], axis=0)
    assert float(sums.balance) == pytest.approx(len(facts) * 4 * load @ mean, rel=1e-5)
    assert float(sums.z) == pytest.approx(sum(np.log(np.exp(logits).sum()) ** 2 for logits, *_ in facts), rel=1e-5)


def test_padding_counts_for_nothing(x):
    cfg, is_token = config(), jnp.arange(26).reshape(2, 13) % 5 != 0
    w, other = weights(cfg), jnp.where(is_token[..., None], x, 7.0)
    (y, sums), (y_other, sums_other) = run(cfg, w, x, is_token), run(cfg, w, other, is_token)
    assert np.array_equal(y[is_token], y_other[is_token])
    assert sums == sums_other
    nothing = run(cfg, w, x, jnp.zeros((2, 13), bool))[1]
    assert (float(nothing.balance), float(nothing.z)) == (0.0, 0.0)


def test_an_even_load_has_the_balance_of_the_experts_of_a_token_and_an_uneven_one_more(x):
    cfg = config(replace(EXPERTS, num_experts=16))
    w = weights(cfg) | {"router": jnp.eye(16) * 20}
    even = run(cfg, w, jnp.eye(16)[None] + jnp.roll(jnp.eye(16), 1, axis=1))[1].balance / 16
    uneven = run(cfg, w, jnp.broadcast_to(jnp.eye(16)[0] + jnp.eye(16)[1], (1, 16, 16)))[1].balance / 16
    assert float(even) == pytest.approx(2, rel=1e-4)
    assert float(uneven) == pytest.approx(16, rel=1e-4)


def test_the_z_sums_of_two_parts_add_up_and_balances_do_not(x):
    cfg, w = config(), weights(config())
    whole, *parts = (run(cfg, w, rows)[1] for rows in (x, x[:1], x[1:]))
    assert float(whole.z) == pytest.approx(sum(float(part.z) for part in parts), rel=1e-6)
    assert abs(float(whole.balance) - sum(float(part.balance) for part in parts)) > 1e-3


def test_normalised_logits_do_not_feel_the_size_of_the_router(x):
    logits = jax.random.normal(jax.random.key(0), (5, 8)) * 3 + 2
    got = standardised(logits)
    np.testing.assert_allclose(np.mean(got, -1), 0, atol=1e-6)
    np.testing.assert_allclose(np.std(got, -1), 1, atol=1e-5)
    np.testing.assert_allclose(standardised(jnp.full((1, 4), 3.0)), 0)
    for experts, feels in ((EXPERTS, True), (replace(EXPERTS, normalise_router_logits=True), False)):
        cfg, w = config(experts), weights(config(experts))
        change = np.abs(run(cfg, w | {"router": w["router"] * 4}, x)[0] - run(cfg, w, x)[0]).max()
        assert (change > 1e-2) == feels


def test_the_gradient_of_a_permutation_is_the_way_back():
    x, order = jnp.arange(12.0).reshape(6, 2), jnp.array([3, 1, 5, 0, 2, 4])
    d = jnp.arange(12.0).reshape(6, 2) ** 2
    y, pull = jax.vjp(lambda x: permuted(x, order, jnp.argsort(order)), x)
    want, plain = jax.vjp(lambda x: x[order], x)
    assert np.array_equal(y, want)
    assert np.array_equal(pull(d)[0], plain(d)[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "sizes", [[100, 0, 28, 128], [256, 0, 0, 0], pytest.param([60, 50, 0, 40], id="rows beyond the last group")]
)
def test_the_kernel_for_tpus_makes_the_same_weight_gradient(sizes, dtype):
    """In the interpreter, which is JAX's own stand-in for a TPU."""
    rng, sizes = np.random.default_rng(0), jnp.asarray(sizes, jnp.int32)
    rows_MF, rows_MD = (jnp.asarray(rng.normal(size=(256, n)), dtype) for n in (24, 16))
    want = moe._weight_gradient(rows_MF, rows_MD, sizes)
    with pltpu.force_tpu_interpret_mode():
        got = moe._tpu_weight_gradient(rows_MF, rows_MD, sizes)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("axis", [1, 2])
def test_products_by_group_equal_one_product_per_group(axis):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 8, 5)).astype(np.float32)
    x = rng.normal(size=(10, 5 if axis == 2 else 8)).astype(np.float32)
    sizes, starts = [4, 0, 5], [0, 4, 4, 9]
    got = grouped(jnp.asarray(x), jnp.asarray(w), jnp.asarray(sizes, jnp.int32), axis)
    for group in range(3):
        rows = slice(starts[group], starts[group + 1])
        want = x[rows] @ (w[group].T if axis == 2 else w[group])
        np.testing.assert_allclose(got[rows], want, atol=1e-5)
    assert not np.any(got[9:])


def test_the_router_adds_its_losses_times_their_weights(packed):
    """Means over layers and tokens, times the weight of all targets, which divides the sums of a batch later."""
    experts = replace(EXPERTS, load_balance_weight=0.5, z_loss_weight=0.25)
    model = random_model(small_config(num_layers=2, moe=experts))
    inputs = [jnp.asarray(packed[f"{name}_BT"]) for name in ("tokens", "positions", "segments")]
    _, sums = model.with_router_sums(*inputs)
    share = packed["weights_BT"].sum() / (packed["segments_BT"] > 0).sum() / 2
    total, aux = next_token_loss(model, packed)
    assert float(aux["router_balance_sum"]) == pytest.approx(float(sums.balance) * share, rel=1e-5)
    assert float(aux["router_z_sum"]) == pytest.approx(float(sums.z) * share, rel=1e-5)
    extra = 0.5 * aux["router_balance_sum"] + 0.25 * aux["router_z_sum"]
    assert float(total) == pytest.approx(float(aux["loss_sum"] + extra), rel=1e-6)
    silent = join_model(replace(model.cfg, moe=EXPERTS), split_model(model)[1])
    assert float(next_token_loss(silent, packed)[0]) == pytest.approx(float(aux["loss_sum"]), rel=1e-6)


def test_a_dense_model_has_no_router_to_pay_for(packed):
    model = random_model(small_config(num_layers=2))
    _, router = model.with_router_sums(*(packed[f"{name}_BT"] for name in ("tokens", "positions", "segments")))
    assert router is None
    assert not [name for name in next_token_loss(model, packed)[1] if name.startswith("router")]
