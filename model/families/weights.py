"""One row of a family's weight-name table, and how its numbers are laid out on both sides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.sharding import on_host


@dataclass(frozen=True)
class Weight:
    """Where one of our parameters lies in a Hugging Face checkpoint.

    Both sides keep vectors and matrices. Ours have embed_dim last: with `transpose` theirs is [embed_dim, rows].
    """

    path: str
    """Path of our parameter; below `layers/` one array stacks all layers, and one of experts those of each layer."""
    hf_name: str
    """Name in the checkpoint; `{layer}` stands for the layer's index and `{expert}` for the expert's."""
    transpose: bool = False

    @property
    def num_stacked(self) -> int:
        """How many leading axes of our array are indices in their names."""
        return self.hf_name.count("{")

    def tensors(self, bounds: Sequence[slice]) -> Iterator[tuple[tuple[int, ...], str]]:
        """The name of each tensor of theirs that meets `bounds` of our array, and its place in the stack."""
        for index in product(*(range(bound.start, bound.stop) for bound in bounds[: self.num_stacked])):
            yield index, self.hf_name.format(**dict(zip(("layer", "expert"), index, strict=False)))

    def hf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one tensor of theirs, from the shape of our (stacked) array."""
        own = shape[self.num_stacked :]
        return own[::-1] if self.transpose else own

    def read(self, tensor: Any, bounds: Sequence[slice]) -> np.ndarray:
        """The part within `bounds` of one layer's array of ours, from a sliceable tensor of theirs."""
        part = tensor[tuple(bounds[::-1])].T if self.transpose else tensor[tuple(bounds)]
        return np.asarray(part, np.float32)

    def write(self, array: jax.Array, index: tuple[int, ...], dtype: str) -> np.ndarray:
        """One tensor of theirs from its place in our (stacked) array, rounded to `dtype`."""
        own = on_host(array[index]).astype(jnp.dtype(dtype))
        return own.T if self.transpose else own


# What Llama named first and nearly every family kept.
COMMON: tuple[Weight, ...] = (
    Weight("embed", "model.embed_tokens.weight"),
    Weight("layers/attention_norm/scale", "model.layers.{layer}.input_layernorm.weight"),
    Weight("layers/attention/query", "model.layers.{layer}.self_attn.q_proj.weight"),
    Weight("layers/attention/key", "model.layers.{layer}.self_attn.k_proj.weight"),
    Weight("layers/attention/value", "model.layers.{layer}.self_attn.v_proj.weight"),
    Weight("layers/attention/out", "model.layers.{layer}.self_attn.o_proj.weight", transpose=True),
    Weight("layers/mlp/gate", "model.layers.{layer}.mlp.gate_proj.weight"),
    Weight("layers/mlp/up", "model.layers.{layer}.mlp.up_proj.weight"),
    Weight("layers/mlp/down", "model.layers.{layer}.mlp.down_proj.weight", transpose=True),
    Weight("final_norm/scale", "model.norm.weight"),
)
