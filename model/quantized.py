"""Matrix products of training in 8 bits, forward and backward, by qwix (Google, Apache-2.0; the [quant] extra).

Every product, also the two of its backward pass, has its operands rounded to 8 bits, scaled by the largest magnitude of
each row that is not summed over, and is added up in 32 bits. Gradients pass straight through the rounding. Masters,
norms, the softmax and the loss stay as they are.
"""

from functools import partial
from importlib import import_module
from typing import Any, Literal

import jax
import jax.numpy as jnp

# Of activations and weights, and of gradients, which need more range than precision (Micikevicius et al. 2022).
TYPES = {"int8": (jnp.int8, jnp.int8), "fp8": (jnp.float8_e4m3fn, jnp.float8_e5m2)}


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def quantized_einsum(equation: str, x: jax.Array, w: jax.Array, quantization: Literal["int8", "fp8"]) -> jax.Array:
    """Nearly `jnp.einsum(equation, x, w)`, in the type of x. Every letter stands in two of the three arrays."""
    forward, _ = TYPES[quantization]
    return _product(equation, x, w, forward, forward).astype(x.dtype)


def _forward(equation: str, x: jax.Array, w: jax.Array, quantization: Literal["int8", "fp8"]) -> Any:
    return quantized_einsum(equation, x, w, quantization), (x, w)


def _backward(equation: str, quantization: Literal["int8", "fp8"], kept: Any, d_y: jax.Array) -> Any:
    x, w = kept
    forward, gradient = TYPES[quantization]
    (x_letters, w_letters), y_letters = _letters(equation)
    d_x = _product(f"{y_letters},{w_letters}->{x_letters}", d_y, w, gradient, forward)
    d_w = _product(f"{y_letters},{x_letters}->{w_letters}", d_y, x, gradient, forward)
    return d_x.astype(x.dtype), d_w.astype(w.dtype)


quantized_einsum.defvjp(_forward, _backward)


def _product(equation: str, x: jax.Array, y: jax.Array, x_type: Any, y_type: Any) -> jax.Array:
    """In float32, of operands rounded to the two types."""
    qwix = _qwix()
    inputs, output = _letters(equation)

    def rounded(a: jax.Array, letters: str, to: Any) -> Any:
        own_scale = [axis for axis, letter in enumerate(letters) if letter in output]
        return qwix.quantize(a, to, channelwise_axes=own_scale, scale_dtype=jnp.float32)

    return qwix.einsum(equation, rounded(x, inputs[0], x_type), rounded(y, inputs[1], y_type))


def _letters(equation: str) -> tuple[list[str], str]:
    inputs, output = equation.split("->")
    return inputs.split(","), output


def _qwix() -> Any:
    try:
        return import_module("qwix")
    except ModuleNotFoundError as error:
        if error.name != "qwix":
            raise  # it is there but broken: hide nothing
        raise ModuleNotFoundError(
            "quantization='int8' and 'fp8' need qwix, which is not installed: it is no part of the plain environment. "
            "Install it with: pip install -e '.[quant]', or set quantization='none'.",
            name="qwix",
        ) from error
