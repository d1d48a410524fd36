"""Attention block by block in plain JAX: memory linear in the length, forward and backward, on any hardware.

The softmax runs online over key blocks; the backward pass keeps the output and one logsumexp per query, and computes
the rest again (FlashAttention-2, Dao 2023). Key blocks that no query of a block can see are never computed.

Shape letters in this file: B batch, T query position, S key position, N query heads, K key/value heads,
G = N // K query heads that share a key head, R = G * T rows of one key head, H head_dim, C block number.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from model.mask import NEGATIVE, packed_mask

QUERY_BLOCK = KEY_BLOCK = 256


class Operands(NamedTuple):
    """What both passes read, padded to whole blocks; segments of the padding meet no other."""

    q: jax.Array  # [B, K, G, T, H]
    k: jax.Array  # [B, K, S, H]
    v: jax.Array  # [B, K, S, H]
    query_segments: jax.Array  # [B, T]
    key_segments: jax.Array  # [B, S]
    first: jax.Array


class Shape(NamedTuple):
    """Constants of the program."""

    query_block: int
    key_block: int
    window: int | None
    softcap: float | None


@partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def chunked_attention(
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    segments_BT: jax.Array,
    segments_BS: jax.Array,
    first: int | jax.Array,
    window: int | None,
    softcap: float | None,
) -> jax.Array:
    """`model.attention.packed_attention` without a [T, S] array."""
    return _forward(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, window, softcap)[0]


def _forward(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, window, softcap) -> Any:
    shape, x = _operands(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, window, softcap)

    def query_block(c: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_BKRH, rows = _queries(x, shape, c)

        def add_key_block(j: jax.Array, running: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            max_BKR, sum_BKR, mixed_BKRH = running
            logits_BKRS, _, mask_BKRS, _, v_BKSH = _logits(x, shape, q_BKRH, rows, j)
            new_max_BKR = jnp.maximum(max_BKR, jnp.max(jnp.where(mask_BKRS, logits_BKRS, NEGATIVE), axis=-1))
            weights_BKRS = jnp.where(mask_BKRS, jnp.exp(logits_BKRS - new_max_BKR[..., None]), 0)
            shrink_BKR = jnp.exp(max_BKR - new_max_BKR)
            sum_BKR = sum_BKR * shrink_BKR + jnp.sum(weights_BKRS, axis=-1)
            mixed_BKRH = mixed_BKRH * shrink_BKR[..., None] + _product("BKRS,BKSH->BKRH", weights_BKRS, v_BKSH)
            return new_max_BKR, sum_BKR, mixed_BKRH

        start = jnp.full(q_BKRH.shape[:3], NEGATIVE), jnp.zeros(q_BKRH.shape[:3]), jnp.zeros(q_BKRH.shape)
        max_BKR, sum_BKR, mixed_BKRH = lax.fori_loop(*_key_blocks(x, shape, c), add_key_block, start)
        sum_BKR = jnp.where(sum_BKR > 0, sum_BKR, 1)  # padded queries see nothing
        return (mixed_BKRH / sum_BKR[..., None]).astype(q_BNTH.dtype), max_BKR + jnp.log(sum_BKR)

    out, lse = lax.map(query_block, jnp.arange(x.q.shape[3] // shape.query_block))
    T = q_BNTH.shape[2]
    out_BNTH, lse_BNT = _rows(out, x, T).reshape(q_BNTH.shape), _rows(lse[..., None], x, T).reshape(q_BNTH.shape[:3])
    # The names let a remat policy keep what is dear to compute again.
    out_BNTH, lse_BNT = checkpoint_name(out_BNTH, "attn_res"), checkpoint_name(lse_BNT, "attn_res")
    return out_BNTH, (q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, out_BNTH, lse_BNT)


def _backward(window, softcap, kept, d_out_BNTH) -> Any:
    q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, out_BNTH, lse_BNT = kept
    shape, x = _operands(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, window, softcap)
    mean_BNT = jnp.sum(d_out_BNTH.astype(jnp.float32) * out_BNTH.astype(jnp.float32), axis=-1)
    like_q = partial(_grouped, K=k_BKSH.shape[1], block=shape.query_block)
    d_out_BKGTH, lse_BKGT1, mean_BKGT1 = like_q(d_out_BNTH), like_q(lse_BNT[..., None]), like_q(mean_BNT[..., None])

    def query_block(sums: tuple[jax.Array, jax.Array], c: jax.Array) -> Any:
        q_BKRH, rows = _queries(x, shape, c)
        d_out_BKRH, lse_BKR1, mean_BKR1 = (_block(a, c, shape) for a in (d_out_BKGTH, lse_BKGT1, mean_BKGT1))

        def add_key_block(j: jax.Array, running: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            d_q_BKRH, d_k_BKSH, d_v_BKSH = running
            logits_BKRS, slope, mask_BKRS, k_block, v_block = _logits(x, shape, q_BKRH, rows, j)
            probs_BKRS = jnp.where(mask_BKRS, jnp.exp(logits_BKRS - lse_BKR1), 0)
            d_probs_BKRS = _product("BKRH,BKSH->BKRS", d_out_BKRH, v_block)
            d_logits_BKRS = probs_BKRS * (d_probs_BKRS - mean_BKR1) * slope
            d_q_BKRH += _product("BKRS,BKSH->BKRH", d_logits_BKRS, k_block)
            d_k_BKSH = _add_at(d_k_BKSH, j * shape.key_block, _product("BKRS,BKRH->BKSH", d_logits_BKRS, q_BKRH))
            d_v_BKSH = _add_at(d_v_BKSH, j * shape.key_block, _product("BKRS,BKRH->BKSH", probs_BKRS, d_out_BKRH))
            return d_q_BKRH, d_k_BKSH, d_v_BKSH

        start = (jnp.zeros(q_BKRH.shape), *sums)
        d_q_BKRH, *sums_after = lax.fori_loop(*_key_blocks(x, shape, c), add_key_block, start)
        return tuple(sums_after), d_q_BKRH.astype(q_BNTH.dtype)

    zeros_BKSH = jnp.zeros(x.k.shape)
    (d_k_BKSH, d_v_BKSH), d_q = lax.scan(
        query_block, (zeros_BKSH, zeros_BKSH), jnp.arange(x.q.shape[3] // shape.query_block)
    )
    S = k_BKSH.shape[2]
    d_q_BNTH = _rows(d_q, x, q_BNTH.shape[2]).reshape(q_BNTH.shape)
    return d_q_BNTH, d_k_BKSH[:, :, :S].astype(k_BKSH.dtype), d_v_BKSH[:, :, :S].astype(v_BKSH.dtype), None, None, None


chunked_attention.defvjp(_forward, _backward)


def _operands(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, window, softcap) -> tuple[Shape, Operands]:
    shape = Shape(min(QUERY_BLOCK, q_BNTH.shape[2]), min(KEY_BLOCK, k_BKSH.shape[2]), window, softcap)
    return shape, Operands(
        _grouped(q_BNTH, k_BKSH.shape[1], shape.query_block),
        _padded(k_BKSH, 2, shape.key_block, 0),
        _padded(v_BKSH, 2, shape.key_block, 0),
        _padded(segments_BT, 1, shape.query_block, -1),
        _padded(segments_BS, 1, shape.key_block, -2),
        jnp.asarray(first, jnp.int32),
    )


def _padded(x: jax.Array, axis: int, block: int, value: int) -> jax.Array:
    """x with its axis made longer, to whole blocks."""
    extra = -x.shape[axis] % block
    if not extra:
        return x
    return jnp.pad(x, [(0, extra if i == axis else 0) for i in range(x.ndim)], constant_values=value)


def _grouped(x_BNTH: jax.Array, K: int, block: int) -> jax.Array:
    B, N, T, H = x_BNTH.shape
    return _padded(x_BNTH.reshape(B, K, N // K, T, H), 3, block, 0)


def _block(x_BKGTH: jax.Array, c: jax.Array, shape: Shape) -> jax.Array:
    """Query block c of every head: [B, K, R, H]."""
    B, K, G, _, H = x_BKGTH.shape
    taken = lax.dynamic_slice_in_dim(x_BKGTH, c * shape.query_block, shape.query_block, axis=3)
    return taken.reshape(B, K, G * shape.query_block, H)


def _rows(x_CBKRH: jax.Array, x: Operands, T: int) -> jax.Array:
    """Query blocks back in their row, without the padding: [B, K, G, T, H]."""
    C, B, K, _, H = x_CBKRH.shape
    G = x.q.shape[2]
    rows = x_CBKRH.reshape(C, B, K, G, -1, H).transpose(1, 2, 3, 0, 4, 5)
    return rows.reshape(B, K, G, -1, H)[:, :, :, :T]


def _queries(x: Operands, shape: Shape, c: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Query block c [B, K, R, H], and segments [B, T] and places [T] of its queries."""
    at = c * shape.query_block
    segments_BT = lax.dynamic_slice_in_dim(x.query_segments, at, shape.query_block, axis=1)
    return _block(x.q, c, shape), (segments_BT, x.first + at + jnp.arange(shape.query_block))


def _key_blocks(x: Operands, shape: Shape, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First and last + 1 of the key blocks that some query of block c can see."""
    start = x.first + c * shape.query_block
    last = jnp.minimum((start + shape.query_block - 1) // shape.key_block + 1, x.k.shape[2] // shape.key_block)
    if shape.window is None:
        return jnp.zeros_like(last), last
    return jnp.maximum(start - shape.window + 1, 0) // shape.key_block, last


def _logits(x: Operands, shape: Shape, q_BKRH: jax.Array, rows: tuple[jax.Array, jax.Array], j: jax.Array) -> Any:
    """Capped logits of a query block and key block j, slope of the cap, mask, keys and values."""
    (segments_BT, places_T), at = rows, j * shape.key_block
    k_BKSH, v_BKSH = (lax.dynamic_slice_in_dim(a, at, shape.key_block, axis=2) for a in (x.k, x.v))
    segments_BS = lax.dynamic_slice_in_dim(x.key_segments, at, shape.key_block, axis=1)
    mask_BTS = packed_mask(segments_BT, segments_BS, places_T, at + jnp.arange(shape.key_block), shape.window)
    B, T, S = mask_BTS.shape
    G = q_BKRH.shape[2] // T
    mask_BKRS = jnp.broadcast_to(mask_BTS[:, None, None], (B, 1, G, T, S)).reshape(B, 1, G * T, S)
    logits_BKRS, slope = _product("BKRH,BKSH->BKRS", q_BKRH, k_BKSH), 1.0
    if shape.softcap is not None:
        tanh_BKRS = jnp.tanh(logits_BKRS / shape.softcap)
        logits_BKRS, slope = shape.softcap * tanh_BKRS, 1 - jnp.square(tanh_BKRS)
    return logits_BKRS, slope, mask_BKRS, k_BKSH, v_BKSH


def _product(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Operands in the type of y, added up in float32."""
    return jnp.einsum(equation, x.astype(y.dtype), y, preferred_element_type=jnp.float32)


def _add_at(total_BKSH: jax.Array, start: jax.Array, part_BKSH: jax.Array) -> jax.Array:
    before = lax.dynamic_slice_in_dim(total_BKSH, start, part_BKSH.shape[2], axis=2)
    return lax.dynamic_update_slice_in_dim(total_BKSH, before + part_BKSH, start, axis=2)
