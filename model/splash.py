"""Attention by the splash kernels that JAX brings for TPUs (Pallas), with two things of our own around them.

The kernels read which blocks to visit from small integer arrays. JAX makes those from a mask known when the program is
traced; here they are computed from `first`, so that a device may hold any part of a row (context parallelism). And the
backward pass calls the fused kernel once per key block: JAX calls it once for all, has a [blocks, N, T, H] array of
partial query gradients written, zeros included, and adds it up by a reduction that XLA prices at 3.5 ms a layer (27B,
8,192 tokens). The functions used are private: tests run them in interpret mode and compile them.

Shape letters in this file: B batch, T query position, S key position, N query heads, K key/value heads, H head_dim,
I query blocks, J key blocks.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo

LANES = 128  # rows must be whole multiples of it
BLOCKS = 1024, 512, 256, 128  # the largest that divides the length
BACKWARD_KEY_BLOCKS = 2048, *BLOCKS


def fits(query_length: int, key_length: int) -> bool:
    """Whether the kernels can cut rows of these lengths."""
    return query_length % LANES == 0 and key_length % LANES == 0


def splash_attention(
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    segments_BT: jax.Array,
    segments_BS: jax.Array,
    first: int | jax.Array,
    window: int | None,
    softcap: float | None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """`model.attention.packed_attention` on a TPU; `interpret` runs the kernels anywhere, very slowly."""
    T, S = q_BNTH.shape[2], k_BKSH.shape[2]
    if not fits(T, S):
        raise ValueError(
            f"Rows of {T} queries and {S} keys cannot go through the splash kernels: both must be multiples of "
            f"{LANES}, the lanes of a TPU register. Use such a length, or attention='chunked'."
        )
    known = first if isinstance(first, int) else None
    options = Options(known, window, softcap, interpret)
    return _attention(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, jnp.asarray(first, jnp.int32), options)


class Options(NamedTuple):
    """Constants of the program."""

    first: int | None  # None where only the running program knows it
    window: int | None
    softcap: float | None
    interpret: bool

    def sees(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """The mask by places, as the kernels ask for it."""
        return query >= key if self.window is None else (query >= key) & (query - key < self.window)


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _attention(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, options: Options) -> jax.Array:
    return _forward(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, options)[0]


def _forward(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, options: Options) -> Any:
    T, S = q_BNTH.shape[2], k_BKSH.shape[2]
    block_q, block_kv = largest_block(BLOCKS, T), largest_block(BLOCKS, S)
    info = _visits_by_query(_known(first, options), T, S, block_q, block_kv, options.window)

    def one_row(q_NTH, k_KSH, v_KSH, segments_T, segments_S):
        out_NTH, (lse_NT,) = kernel._splash_attention_forward(
            info,
            q_NTH,
            k_KSH,
            v_KSH,
            kernel.SegmentIds(segments_T, segments_S),
            sinks=None,
            mask_value=kernel.DEFAULT_MASK_VALUE,
            is_mqa=False,
            block_sizes=kernel.BlockSizes(block_q, block_kv),
            residual_checkpoint_name=None,
            save_residuals=True,
            mask_function=options.sees,
            attn_logits_soft_cap=options.softcap,
            interpret=options.interpret,
        )
        return out_NTH, lse_NT

    out_BNTH, lse_BNT = jax.vmap(one_row)(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS)
    # The names let a remat policy keep what is dear to compute again.
    out_BNTH, lse_BNT = checkpoint_name(out_BNTH, "attn_res"), checkpoint_name(lse_BNT, "attn_res")
    return out_BNTH, (q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, out_BNTH, lse_BNT)


def _backward(options: Options, kept: Any, d_out_BNTH: jax.Array) -> Any:
    q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, out_BNTH, lse_BNT = kept
    first = _known(first, options)
    T, S = q_BNTH.shape[2], k_BKSH.shape[2]
    block_q, block_kv = largest_block(BLOCKS, T), largest_block(BACKWARD_KEY_BLOCKS, S)
    mean_BNT = jnp.sum(d_out_BNTH.astype(jnp.float32) * out_BNTH.astype(jnp.float32), axis=-1)

    def one_block(start: int, q_start: int, q_end: int) -> Any:
        """Gradients through keys start .. start + block_kv of queries q_start .. q_end."""
        info = _visits_of_one_key_block(first + q_start - start, q_end - q_start, block_q, block_kv, options.window)

        def one_row(q_NTH, k_KSH, v_KSH, segments_T, segments_S, lse_NT, d_out_NTH, mean_NT):
            return kernel._splash_attention_bwd_dkv(
                q_NTH,
                k_KSH,
                v_KSH,
                kernel.SegmentIds(segments_T, segments_S),
                None,
                lse_NT,
                d_out_NTH,
                mean_NT,
                bq=block_q,
                bkv=block_kv,
                bkv_compute=min(block_kv, BLOCKS[0]),
                is_mqa=False,
                mask_info=info,
                mask_value=kernel.DEFAULT_MASK_VALUE,
                attn_logits_soft_cap=options.softcap,
                use_fused_bwd_kernel=True,
                q_layout=kernel.QKVLayout.HEAD_DIM_MINOR,
                k_layout=kernel.QKVLayout.HEAD_DIM_MINOR,
                v_layout=kernel.QKVLayout.HEAD_DIM_MINOR,
                mask_function=options.sees,
                interpret=options.interpret,
            )

        queries, keys = slice(q_start, q_end), slice(start, start + block_kv)
        return jax.vmap(one_row)(
            q_BNTH[:, :, queries],
            k_BKSH[:, :, keys],
            v_BKSH[:, :, keys],
            segments_BT[:, queries],
            segments_BS[:, keys],
            lse_BNT[:, :, queries],
            d_out_BNTH[:, :, queries],
            mean_BNT[:, :, queries],
        )

    d_q_BNTH, d_k, d_v = 0.0, [], []
    for start in range(0, S, block_kv):
        q_start, q_end = _queries_that_see(start, first, T, block_q, block_kv, options.window)
        d_q_part, d_k_part, d_v_part = one_block(start, q_start, q_end)
        d_q_BNTH += jnp.pad(d_q_part.astype(jnp.float32), ((0, 0), (0, 0), (q_start, T - q_end), (0, 0)))
        d_k.append(d_k_part)
        d_v.append(d_v_part)
    d_k_BKSH, d_v_BKSH = jnp.concatenate(d_k, axis=2), jnp.concatenate(d_v, axis=2)
    return jnp.asarray(d_q_BNTH, q_BNTH.dtype), d_k_BKSH, d_v_BKSH, None, None, None


_attention.defvjp(_forward, _backward)


def _known(first: jax.Array, options: Options) -> int | jax.Array:
    return first if options.first is None else options.first


def largest_block(blocks: tuple[int, ...], length: int) -> int:
    """The first of the falling sizes that divides the length."""
    return next(block for block in blocks if length % block == 0)


def _visits_by_query(
    first: int | jax.Array, T: int, S: int, block_q: int, block_kv: int, window: int | None
) -> MaskInfo:
    """Which key blocks each query block visits, for the forward kernel: [1, I, J] arrays and the queries' places."""
    xp = np if isinstance(first, int) else jnp  # constants where they can be
    start_I = first + xp.arange(T // block_q) * block_q
    last_I = xp.minimum((start_I + block_q - 1) // block_kv, S // block_kv - 1)
    low_I = xp.zeros_like(last_I) if window is None else xp.maximum(start_I - window + 1, 0) // block_kv
    if isinstance(first, int):
        most = int(np.max(last_I - low_I)) + 1
    else:
        reach = S if window is None else min(S, window + block_q + block_kv)
        most = reach // block_kv  # no block of queries reaches more
    visited_IJ = low_I[:, None] + xp.arange(most)
    runs_IJ = visited_IJ <= last_I[:, None]
    # After its last block a row waits with the first of the next in hand, which is fetched ahead.
    ahead_IJ = xp.where(runs_IJ, visited_IJ, xp.roll(low_I, -1)[:, None])
    return MaskInfo(
        data_next=ahead_IJ[None].astype(np.int32),
        mask_next=None,
        block_mask=runs_IJ[None].astype(np.int32),
        partial_mask_blocks=None,
        q_sequence=jnp.asarray(first + xp.arange(T), jnp.int32),  # type: ignore[arg-type]  # the kernel takes both
    )


def _visits_of_one_key_block(
    first: int | jax.Array, T: int, block_q: int, block_kv: int, window: int | None
) -> MaskInfo:
    """Which query blocks visit the keys 0 .. block_kv - 1, for the backward kernel: [1, I, 1] arrays."""
    xp = np if isinstance(first, int) else jnp
    start_I = first + xp.arange(T // block_q) * block_q
    runs_I = start_I + block_q > 0
    if window is not None:
        runs_I &= start_I - window + 1 < block_kv
    # Blocks that don't run stand at both ends; there the nearest one that does is held, so nothing is fetched in vain.
    lowest, highest = xp.argmax(runs_I), T // block_q - 1 - xp.argmax(runs_I[::-1])
    held_I = xp.clip(xp.arange(T // block_q), lowest, highest)
    return MaskInfo(
        data_next=held_I[None, :, None].astype(np.int32),
        mask_next=None,
        block_mask=runs_I[None, :, None].astype(np.int32),
        partial_mask_blocks=None,
        q_sequence=jnp.asarray(first + xp.arange(T), jnp.int32),  # type: ignore[arg-type]  # the kernel takes both
    )


def _queries_that_see(
    start: int, first: int | jax.Array, T: int, block_q: int, block_kv: int, window: int | None
) -> tuple[int, int]:
    """Whole blocks of queries, at least one, that can see some of the keys start .. start + block_kv.

    All of them where only the running program knows which.
    """
    if not isinstance(first, int):
        return 0, T
    low = min(max(start - first, 0) // block_q * block_q, T - block_q)
    if window is None:
        return low, T
    last = start + block_kv - 1 + window - 1 - first  # the last query that sees the last key
    return low, max(min(last // block_q * block_q + block_q, T), low + block_q)
