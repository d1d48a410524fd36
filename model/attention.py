"""Attention behind one function: causal, packed segments, local windows, soft cap.

Shape letters in this file: B batch, T query position, S key position, N query heads, K key/value heads,
G = N // K query heads that share a key head, H head_dim.
"""

import jax
import jax.numpy as jnp

NEGATIVE = -2.0e38  # like minus infinity in float32, but its exponential has no NaN when a whole row is masked


def causal_mask(segments_BT: jax.Array, window: int | None) -> jax.Array:
    """True where query t may see key s: not later, same segment, and fewer than `window` tokens back."""
    T = segments_BT.shape[1]
    distance_TS = jnp.arange(T)[:, None] - jnp.arange(T)[None, :]
    near_TS = distance_TS >= 0
    if window is not None:
        near_TS &= distance_TS < window
    return near_TS & (segments_BT[:, :, None] == segments_BT[:, None, :])


def attend(
    q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask_BTS: jax.Array, softcap: float | None
) -> jax.Array:
    """The reference: mixed values [B, T, N, H] in the type of q. Queries come scaled and rotated."""
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    logits_BKGTS = jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32)
    if softcap is not None:
        logits_BKGTS = softcap * jnp.tanh(logits_BKGTS / softcap)
    logits_BKGTS = jnp.where(mask_BTS[:, None, None], logits_BKGTS, NEGATIVE)
    # Softmax in float32: bfloat16 loses the tail of a wide distribution.
    probs_BKGTS = jax.nn.softmax(logits_BKGTS, axis=-1).astype(v_BSKH.dtype)
    mixed_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", probs_BKGTS, v_BSKH, preferred_element_type=jnp.float32)
    return mixed_BTKGH.reshape(B, T, N, H).astype(q_BTNH.dtype)
