"""Tables of the vocabulary: words looked up, and the next-token loss where their rows lie on many devices.

For the loss the table is gathered a block of rows at a time, forward and backward, so that no device ever holds all of
it, nor logits of more than one block; the gradient of each block is scattered back at once. Devices of a tensor group
have other rows of the vocabulary and put their sums together.

Shape letters in this file: B batch, T position, M tokens, D embed_dim, R rows of the table on this device, C rows of a
block on all devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from model.mask import NEGATIVE
from model.sharding import TILE, max_over, parts, place, scattered_rows, sum_over, whole_rows, whole_tiles


def num_blocks(tokens: int, rows: int, chunk_tokens: int) -> int:
    """Blocks that `rows` of this device are taken in, such that a block's logits of all tokens take no more room than
    all logits of `chunk_tokens` tokens would; whole tiles where `rows` has such a divisor.

    >>> num_blocks(tokens=8192, rows=1008, chunk_tokens=512)
    21
    """
    divisors = [n for n in range(1, rows + 1) if rows % n == 0 and tokens <= n * chunk_tokens]
    tiled = [n for n in divisors if rows // n % TILE == 0]
    return min(tiled or divisors, default=rows)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def cross_entropy(
    hidden_MD: jax.Array,
    table_RD: jax.Array,
    targets_M: jax.Array,
    weights_M: jax.Array,
    soft: tuple[jax.Array, jax.Array] | None,
    softcap: float | None,
    z_loss: float,
    chunk_tokens: int,
) -> tuple[jax.Array, ...]:
    """Sums over the tokens here: cross entropy, z-loss, weights, and weights of targets that are the most likely; and
    the cross entropy of each token [M], which has no gradient.

    `soft` has words and their shares [M, K], which sum to one and stand in place of the target in the cross entropy.
    """
    return _forward(hidden_MD, table_RD, targets_M, weights_M, soft, softcap, z_loss, chunk_tokens)[0]


def _forward(hidden_MD, table_RD, targets_M, weights_M, soft, softcap, z_loss, chunk_tokens):
    blocks_BrD = _blocks(hidden_MD, table_RD, chunk_tokens)

    def step(sums, w_CD, number):
        max_M, sum_M, target_M, wanted_M = sums
        capped_MC, _, hit_MC = _block_logits(hidden_MD, targets_M, w_CD, number, table_RD.shape[0], softcap)
        new_M = jnp.maximum(max_M, jnp.max(capped_MC, axis=-1))
        sum_M = sum_M * jnp.exp(max_M - new_M) + jnp.sum(jnp.exp(capped_MC - new_M[:, None]), axis=-1)
        target_M += jnp.sum(jnp.where(hit_MC, capped_MC, 0), axis=-1)
        if soft is not None:
            wanted_M += jnp.sum(_spread(soft, w_CD.shape[0], number, table_RD.shape[0]) * capped_MC, axis=-1)
        return (new_M, sum_M, target_M, wanted_M), None

    zeros_M = jnp.zeros(targets_M.shape, jnp.float32)
    start = (zeros_M + NEGATIVE, zeros_M, zeros_M, zeros_M)
    (own_M, sum_M, target_M, wanted_M), _ = _over_blocks(step, start, blocks_BrD, hidden_MD.dtype)
    max_M = max_over(own_M, "tensor")
    sum_M, target_M, wanted_M = sum_over((sum_M * jnp.exp(own_M - max_M), target_M, wanted_M), "tensor")
    lse_M = max_M + jnp.log(sum_M)
    wanted_M = target_M if soft is None else wanted_M
    sums = (
        jnp.sum(weights_M * (lse_M - wanted_M)),
        jnp.sum(weights_M * z_loss * jnp.square(lse_M)),
        jnp.sum(weights_M),
        jnp.sum(weights_M * (target_M >= max_M)),
        lse_M - wanted_M,
    )
    return sums, (hidden_MD, table_RD, targets_M, weights_M, soft, lse_M)


def _backward(softcap, z_loss, chunk_tokens, kept, cotangents):
    hidden_MD, table_RD, targets_M, weights_M, soft, lse_M = kept
    blocks_BrD = _blocks(hidden_MD, table_RD, chunk_tokens)
    d_loss, d_z, *_ = cotangents
    d_target_M = weights_M * d_loss
    d_lse_M = d_target_M + weights_M * d_z * 2 * z_loss * lse_M

    def step(d_hidden_MD, w_CD, number):
        capped_MC, slope, hit_MC = _block_logits(hidden_MD, targets_M, w_CD, number, table_RD.shape[0], softcap)
        probs_MC = jnp.exp(capped_MC - lse_M[:, None])
        if soft is None:
            wanted_MC = jnp.where(hit_MC, d_target_M[:, None], 0)
        else:
            wanted_MC = d_target_M[:, None] * _spread(soft, w_CD.shape[0], number, table_RD.shape[0])
        d_MC = (probs_MC * d_lse_M[:, None] - wanted_MC) * slope
        d_MC = d_MC.astype(hidden_MD.dtype)
        d_hidden_MD += jnp.einsum("MC,CD->MD", d_MC, w_CD, preferred_element_type=jnp.float32)
        d_w_CD = jnp.einsum("MC,MD->CD", d_MC, hidden_MD, preferred_element_type=jnp.float32)
        return d_hidden_MD, scattered_rows(d_w_CD, hidden_MD.dtype)

    d_hidden_MD = jnp.zeros(hidden_MD.shape, jnp.float32)
    d_hidden_MD, d_blocks = _over_blocks(step, d_hidden_MD, blocks_BrD, hidden_MD.dtype)
    d_hidden_MD = sum_over(d_hidden_MD, "tensor").astype(hidden_MD.dtype)
    return d_hidden_MD, d_blocks.reshape(-1, table_RD.shape[1])[: table_RD.shape[0]], None, None, None


cross_entropy.defvjp(_forward, _backward)


def _blocks(hidden_MD: jax.Array, table_RD: jax.Array, chunk_tokens: int) -> jax.Array:
    table_RD = whole_tiles(table_RD)
    R, D = table_RD.shape
    return table_RD.reshape(num_blocks(hidden_MD.shape[0], R, chunk_tokens), -1, D)


def _over_blocks(step: Callable[..., Any], start: Any, blocks_BrD: jax.Array, dtype: Any) -> Any:
    """Scan step(carry, gathered block, its number); the next block is on its way while a step computes."""

    def one(carry: Any, scanned: Any) -> Any:
        own, w_CD = carry
        next_rD, number = scanned
        next_CD = whole_rows(next_rD, dtype)
        own, out = step(own, w_CD, number)
        return (own, next_CD), out

    following = (jnp.roll(blocks_BrD, -1, axis=0), jnp.arange(blocks_BrD.shape[0]))
    (own, _), out = jax.lax.scan(one, (start, whole_rows(blocks_BrD[0], dtype)), following)
    return own, out


def _block_logits(
    hidden_MD: jax.Array, targets_M: jax.Array, w_CD: jax.Array, number: jax.Array, R: int, softcap: float | None
) -> Any:
    """Soft-capped logits [M, C] of one block, their slope, and where the target is.

    Rows beyond the R of a device fill its last tile: no token, no probability, no gradient.
    """
    r = w_CD.shape[0] // parts("fsdp")
    logits_MC = jnp.einsum("MD,CD->MC", hidden_MD, w_CD, preferred_element_type=jnp.float32)
    # Column c came from place c // r of the ZeRO-3 group, where it is row number * r + c % r of R.
    column_C = jnp.arange(w_CD.shape[0])
    row_C = number * r + column_C % r
    token_C = place("tensor") * R * parts("fsdp") + column_C // r * R + row_C
    hit_MC = (token_C == targets_M[:, None]) & (row_C < R)
    slope = jnp.float32(1)
    if softcap is not None:
        tanh_MC = jnp.tanh(logits_MC / softcap)
        logits_MC, slope = softcap * tanh_MC, 1 - jnp.square(tanh_MC)
    return jnp.where(row_C < R, logits_MC, NEGATIVE), slope, hit_MC


def _spread(soft: tuple[jax.Array, jax.Array], C: int, number: jax.Array, R: int) -> jax.Array:
    """Shares [M, C] where their words are in one block, the inverse of the columns of `_block_logits`."""
    ids_MK, shares_MK = soft
    r = C // parts("fsdp")
    here_MK = ids_MK - place("tensor") * R * parts("fsdp")
    row_MK = here_MK % R
    is_here_MK = (here_MK >= 0) & (here_MK < R * parts("fsdp")) & (row_MK // r == number)
    column_MK = jnp.where(is_here_MK, here_MK // R * r + row_MK % r, C)
    spread_MC = jnp.zeros((ids_MK.shape[0], C), jnp.float32)
    return spread_MC.at[jnp.arange(ids_MK.shape[0])[:, None], column_MK].add(shares_MK, mode="drop")


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def looked_up(table_RD: jax.Array, tokens_BT: jax.Array, dtype: str) -> jax.Array:
    """The table's rows of these tokens in `dtype` [B, T, D]. Their gradients are added up in float32, row by row."""
    if parts("fsdp", "tensor") == 1:
        return table_RD[tokens_BT].astype(dtype)
    tiled_RD = whole_tiles(table_RD)
    w_VD = whole_rows(tiled_RD, dtype)
    row_BT, is_here_BT = _table_rows(tokens_BT, table_RD.shape[0], tiled_RD.shape[0])
    return sum_over(jnp.where(is_here_BT[..., None], w_VD[row_BT], 0), "tensor")


def _table_rows(tokens_BT: jax.Array, R: int, tiled: int) -> tuple[jax.Array, jax.Array]:
    """Where tokens stand in the gathered table, and if they do. Each device gave R rows, filled up to `tiled` rows."""
    here_BT = tokens_BT - place("tensor") * R * parts("fsdp")
    is_here_BT = (here_BT >= 0) & (here_BT < R * parts("fsdp"))
    here_BT = jnp.where(is_here_BT, here_BT, 0)
    return here_BT // R * tiled + here_BT % R, is_here_BT


def _looked_up_fwd(table_RD: jax.Array, tokens_BT: jax.Array, dtype: str) -> Any:
    return looked_up(table_RD, tokens_BT, dtype), (table_RD, tokens_BT)


def _looked_up_bwd(dtype: str, kept: Any, d_BTD: jax.Array) -> Any:
    table_RD, tokens_BT = kept
    R, D = table_RD.shape
    tiled = whole_tiles(table_RD).shape[0]
    row_BT, is_here_BT = _table_rows(tokens_BT, R, tiled)
    d_BTD = jnp.where(is_here_BT[..., None], d_BTD.astype(jnp.float32), 0)
    d_w_VD = jnp.zeros((tiled * parts("fsdp"), D), jnp.float32).at[row_BT].add(d_BTD)
    return scattered_rows(d_w_VD, dtype)[:R], None


looked_up.defvjp(_looked_up_fwd, _looked_up_bwd)
