"""One row of a family's weight-name table, and how its numbers are laid out on both sides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Weight:
    """Where one of our parameters lies in a Hugging Face checkpoint.

    Hugging Face keeps matrices as [rows, columns]. Ours may split an axis in two (heads x head_dim), which keeps the
    order of the numbers, and keep embed_dim last: with `transpose` theirs is [embed_dim, rest].
    """

    path: str
    """Path of our parameter; below `layers/` one array stacks all layers."""
    hf_name: str
    """Name in the checkpoint; `{layer}` stands for the layer's index."""
    transpose: bool = False

    @property
    def is_stacked(self) -> bool:
        return "{layer}" in self.hf_name

    def hf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one tensor of theirs, from the shape of our (stacked) array."""
        own = shape[1:] if self.is_stacked else shape
        flat = own if len(own) == 1 else (int(np.prod(own[:-1])), own[-1])
        return flat[::-1] if self.transpose else flat

    def read(self, tensor: Any, shape: tuple[int, ...], bounds: Sequence[tuple[int, int]]) -> np.ndarray:
        """The part within `bounds` of one layer's array of ours, from a sliceable tensor of theirs."""
        if len(shape) == 1:
            return np.asarray(tensor[slice(*bounds[0])], np.float32)
        inner = int(np.prod(shape[1:-1]))
        whole_rows = all(
            (start, stop) == (0, size) for (start, stop), size in zip(bounds[1:-1], shape[1:-1], strict=True)
        )
        # Heads are cut as wholes, so rows are one run; a cut inside a head would need a run per head.
        assert whole_rows, f"{self.path} is cut inside an axis that is part of a row"
        rows, columns = slice(bounds[0][0] * inner, bounds[0][1] * inner), slice(*bounds[-1])
        part = tensor[columns, rows].T if self.transpose else tensor[rows, columns]
        return np.asarray(part, np.float32).reshape([stop - start for start, stop in bounds])

    def write(self, array: jax.Array, layer: int, dtype: str) -> np.ndarray:
        """One tensor of theirs from our (stacked) array, rounded to `dtype`."""
        own = np.asarray(array[layer] if self.is_stacked else array).astype(jnp.dtype(dtype))
        flat = own.reshape(-1, own.shape[-1]) if own.ndim > 1 else own
        return flat.T if self.transpose else flat


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
