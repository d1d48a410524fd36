"""What a gated unit is made of, alone or as one of several experts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

GATED: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "gelu": lambda gate, up: jax.nn.gelu(gate, approximate=True) * up,
    "silu": lambda gate, up: jax.nn.silu(gate) * up,
}


def new_weight(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int) -> nnx.Param:
    """Normal numbers of variance 1 / fan_in, float32, with the logical axes that say where they lie on a mesh."""
    return nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) * fan_in**-0.5, axes=axes)
