"""Low-rank adaptation: frozen weights, each with a small trained product beside it (Hu et al., arXiv 2106.09685).

A layer multiplies with W + alpha / rank x rows x columns, put together where the layer begins: every kernel, every mesh
and every remat policy sees a plain weight. What is saved is memory: no moments and no gradient of W lasts beyond its
layer. The arithmetic is that of full fine-tuning.

Our weights have embed_dim last, so `rows` is peft's lora_B where the weight reads embed_dim, and the transpose of its
lora_A where it writes it (out, down).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from model.config import LORA_TARGETS, LoraConfig
from model.sharding import GATHERED, enter_tensor

Params = dict[str, Any]
SUFFIX = "_adapter"


class Adapter(nnx.Module):
    """The trained product of one weight [rows, D]; zero at first."""

    def __init__(self, cfg: LoraConfig, shape: tuple[int, ...], axes: tuple[str, ...], reads: bool, *, rngs: nnx.Rngs):
        R, (rows, D) = cfg.rank, shape
        # The side that the input meets is drawn as peft and the authors draw it, the other one is zero.
        bound = 1 / math.sqrt(D if reads else rows)

        def drawn(shape: tuple[int, int]) -> jax.Array:
            return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)

        self.rows = nnx.Param(jnp.zeros((rows, R)) if reads else drawn((rows, R)), axes=(axes[0], "rank"))
        self.columns = nnx.Param(drawn((R, D)) if reads else jnp.zeros((R, D)), axes=("rank", axes[1]))
        self.scale = cfg.alpha / R

    def __call__(self) -> jax.Array:
        """What is added to the weight: float32 [rows, D], of the rows on this device."""
        return self.scale * (self.rows[...] @ enter_tensor(self.columns[...]))


def adapt(module: nnx.Module, cfg: LoraConfig | None, *, rngs: nnx.Rngs) -> None:
    """Give the weights of a module that are targets their adapters."""
    if cfg is None:
        return
    for name in cfg.targets:
        weight = getattr(module, name, None)
        if isinstance(weight, nnx.Param):
            axes = weight.get_metadata()["axes"]
            setattr(module, name + SUFFIX, Adapter(cfg, weight.shape, axes, LORA_TARGETS[name], rngs=rngs))


def adapted(module: nnx.Module, name: str) -> jax.Array:
    """A weight with what its adapter adds, if it has one."""
    weight: jax.Array = getattr(module, name)[...]
    adapter: Adapter | None = getattr(module, name + SUFFIX, None)
    return weight if adapter is None else checkpoint_name(weight + adapter(), GATHERED)


def trainable(tree: Params) -> tuple[Params, Params]:
    """What is trained and what stays, of a tree of nested dicts: the adapters and the rest, or all and nothing."""
    adapters, rest = _cut(tree)
    return (adapters, rest) if adapters else (tree, {})


def joined(trained: Params, frozen: Params) -> Params:
    """The inverse of `trainable`."""
    if not frozen:
        return trained
    both = frozen | {name: node for name, node in trained.items() if name not in frozen}
    for name in trained.keys() & frozen.keys():
        both[name] = joined(trained[name], frozen[name])
    return both


def merged(params: Params, cfg: LoraConfig) -> Params:
    """Weights without adapters that compute the same: the product of each is added to its weight, in float32."""
    whole: Params = {}
    for name, node in params.items():
        if name.endswith(SUFFIX):
            continue
        adapter = params.get(name + SUFFIX)
        if adapter is not None:
            product = jnp.einsum("...FR,...RD->...FD", adapter["rows"], adapter["columns"])
            whole[name] = node + cfg.alpha / cfg.rank * product
        else:
            whole[name] = merged(node, cfg) if isinstance(node, dict) else node
    return whole


def _cut(tree: Params) -> tuple[Params, Params]:
    adapters, rest = {}, {}
    for name, node in tree.items():
        if name.endswith(SUFFIX):
            adapters[name] = node
        elif isinstance(node, dict):
            inner, others = _cut(node)
            adapters |= {name: inner} if inner else {}
            rest |= {name: others} if others else {}
        else:
            rest[name] = node
    return adapters, rest
