"""The depth cut into stages: the rows of a device follow one another through them (GPipe, arXiv 1811.06965).

Every device of a pipeline holds the same rows and its own run of layers. At each tick it takes the next part of the
rows from the stage before it, the first stage from the embeddings, and passes on what its layers made of them.

Shape letters in this file: B batch, T position, D embed_dim; M parts of the rows (microbatches).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from model.sharding import parts, place

Stage = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


def through_stages(run: Stage, x_BTD: jax.Array, rows: Any, microbatches: int) -> tuple[jax.Array, Any]:
    """run(x, rows) over all stages, and the sums that it returns besides (of the layers here).

    `rows` is a tree of arrays [B, …] that belong to the rows of x. With more than one stage the result holds 1 / stages
    of the rows, another part on each stage, so that what follows (the loss) is shared too: see `rows_here`.

    Raises:
        ValueError: the rows of a device cannot be cut into so many parts, or into one for each stage.
    """
    stages = parts("stage")
    if stages == 1:
        return run(x_BTD, rows)
    B, M = x_BTD.shape[0], microbatches
    if B % M or B % stages:
        raise ValueError(
            f"{B} rows on a device cannot be cut into microbatches={M} for stage={stages}: each part has as many rows, "
            f"and after the last stage the loss is shared by all. Use rows that are a multiple of {M} and of {stages}."
        )
    own = place("stage")
    x_MbTD, rows_M = _cut(x_BTD, M), jax.tree.map(lambda a: _cut(a, M), rows)
    onward = [(stage, stage + 1) for stage in range(stages - 1)]

    def tick(arrived_bTD: jax.Array, t: jax.Array) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        # Stage s has part t - s before it; outside of 0 … M - 1 it computes what nobody takes.
        part = jnp.clip(t - own, 0, M - 1)
        mine = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, part, keepdims=False), rows_M)
        first_bTD = jax.lax.dynamic_index_in_dim(x_MbTD, part, keepdims=False)
        y_bTD, sums = run(jnp.where(own == 0, first_bTD, arrived_bTD), mine)
        is_real = (t >= own) & (t - own < M)
        sums = jax.tree.map(lambda s: jnp.where(is_real, s, 0), sums)
        return jax.lax.ppermute(y_bTD, "stage", onward), (y_bTD, sums)

    ticks = jnp.arange(M + stages - 1)
    _, (out, sums) = jax.lax.scan(tick, jnp.zeros_like(x_MbTD[0]), ticks)
    last_BTD = out[stages - 1 :].reshape(x_BTD.shape)
    shared_BTD = jnp.where(own == stages - 1, last_BTD, 0)
    y_BTD = jax.lax.psum_scatter(shared_BTD, "stage", scatter_dimension=0, tiled=True)
    return y_BTD, jax.tree.map(lambda s: jnp.sum(s, axis=0), sums)


def rows_here(tree: Any) -> Any:
    """The rows of arrays [B, …] that `through_stages` leaves on this device."""
    stages = parts("stage")
    if stages == 1:
        return tree

    def own(a: jax.Array) -> jax.Array:
        rows = a.shape[0] // stages
        return jax.lax.dynamic_slice_in_dim(a, place("stage") * rows, rows)

    return jax.tree.map(own, tree)


def _cut(x: jax.Array, M: int) -> jax.Array:
    return x.reshape(M, x.shape[0] // M, *x.shape[1:])
