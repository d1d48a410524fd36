"""8-bit products against those of numpy, and a small model that learns with them."""

import re
import sys
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import ComputeConfig, OptimizerConfig
from model.loop import init_state, make_train_step
from model.quantized import quantized_einsum
from tests.model.random_decoders import small_config

needs_qwix = pytest.mark.skipif(find_spec("qwix") is None, reason="qwix is in requirements/dev.txt: make install")

# Bounds of the relative error of a product and of its two gradients: two operands each, errors uniform within a step
# and added in squares. A step of int8 is a 127th of the largest number of a row, here less than 4 standard deviations;
# of e4m3 at most 2^-3 of the number and of e5m2, which gradients have, 2^-2.
INT8, E4M3, E5M2 = (step / 12**0.5 for step in (4 / 127, 2**-3, 2**-2))
ROUNDING = {"int8": (2**0.5 * INT8,) * 3, "fp8": (2**0.5 * E4M3, *(((E4M3**2 + E5M2**2) ** 0.5,) * 2))}
# Of the loss at any of 30 steps, relative: noise of the size of bfloat16's own, and of the few bits of fp8.
SAME_LOSS = {"int8": 0.01, "fp8": 0.05}


@needs_qwix
@pytest.mark.parametrize("quantization", ["int8", "fp8"])
@pytest.mark.parametrize("equation", ["BTD,FD->BTF", "BTF,FD->BTD", "BTD,NHD->BNTH", "BNTH,NHD->BTD"])
def test_products_and_their_gradients_are_those_of_numpy_but_for_the_rounding(equation, quantization):
    sizes = {"B": 2, "T": 24, "D": 64, "F": 48, "N": 4, "H": 16}
    (x_letters, w_letters), y_letters = equation.split("->")[0].split(","), equation.split("->")[1]
    rng = np.random.default_rng(0)
    x, w, d_y = (rng.normal(size=[sizes[a] for a in letters]) for letters in (x_letters, w_letters, y_letters))
    y, pull = jax.vjp(
        lambda x, w: quantized_einsum(equation, x, w, quantization), *(jnp.asarray(a, jnp.float32) for a in (x, w))
    )
    d_x, d_w = pull(jnp.asarray(d_y, jnp.float32))
    expected = (
        np.einsum(equation, x, w),
        np.einsum(f"{y_letters},{w_letters}->{x_letters}", d_y, w),
        np.einsum(f"{y_letters},{x_letters}->{w_letters}", d_y, x),
    )
    for ours, true, bound in zip((y, d_x, d_w), expected, ROUNDING[quantization], strict=True):
        assert bound / 3 < np.linalg.norm(ours - true) / np.linalg.norm(true) < bound


BATCH = {
    "tokens_BT": np.random.default_rng(0).integers(4, 160, (4, 32)).astype(np.int32),
    "positions_BT": np.arange(32, dtype=np.int32)[None].repeat(4, 0),
    "segments_BT": np.ones((4, 32), np.int32),
    "weights_BT": np.ones((4, 32), np.float32),
}
BATCH["targets_BT"] = np.roll(BATCH["tokens_BT"], -1, axis=1)
OPTIMIZER = OptimizerConfig(peak_lr=1e-2, total_steps=30, schedule="constant")


def config(quantization):
    return small_config(num_layers=2, compute=ComputeConfig(dtype="bfloat16", quantization=quantization))


def losses(quantization):
    state, history = init_state(config(quantization), OPTIMIZER), []
    step = make_train_step(config(quantization), OPTIMIZER).lower(state, BATCH)
    # Optimised as users have it, whatever `make test` says: 30 steps would show the difference.
    step = step.compile(compiler_options={"xla_backend_optimization_level": 3})
    for _ in range(30):
        state, metrics = step(state, BATCH)
        history.append(float(metrics["loss"]))
    return history


@pytest.fixture(scope="module")
def bfloat16():
    return losses("none")


@pytest.mark.slow
@needs_qwix
@pytest.mark.parametrize("quantization", ["int8", "fp8"])
def test_a_model_learns_with_8_bits_nearly_what_it_learns_with_bfloat16(bfloat16, quantization):
    assert bfloat16[-1] < bfloat16[0] / 3
    np.testing.assert_allclose(losses(quantization), bfloat16, rtol=SAME_LOSS[quantization])


def dots(quantization):
    """Types of the operands of all products in the training step's program."""
    state = init_state(config(quantization), OPTIMIZER)
    program = make_train_step(config(quantization), OPTIMIZER).lower(state, BATCH).as_text()
    return re.findall(r"dot_general .*: \(tensor<[\dx]*x(\w+)>, tensor<[\dx]*x(\w+)>\)", program)


@needs_qwix
@pytest.mark.parametrize(
    ("quantization", "types"),
    [("int8", {("i8", "i8")}), ("fp8", {("f8E4M3FN", "f8E4M3FN"), ("f8E4M3FN", "f8E5M2")})],
)
def test_the_program_multiplies_weights_in_8_bits_and_nothing_else(quantization, types):
    """A layer has seven weights, each with one product forward and two backward; the loop body has two layers."""
    plain, ours = dots("none"), dots(quantization)
    narrow = [pair for pair in ours if pair in types]
    assert set(narrow) == types
    assert len(narrow) == 2 * 7 * 3
    assert len(ours) == len(plain) > len(narrow)
    assert not set(plain) & types


def test_without_qwix_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(ModuleNotFoundError, match=r"need qwix.*pip install -e '.\[quant\]'"):
        quantized_einsum("BTD,FD->BTF", jnp.ones((1, 2, 4)), jnp.ones((3, 4)), "int8")
