"""Attention behind one function: causal, packed segments, local windows, soft cap, grouped heads.

Shape letters in this file: B batch, T query position, S key position, N query heads, K key/value heads,
G = N // K query heads that share a key head, H head_dim. Heads stand before positions, as the kernels want them.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from model import splash
from model.chunked import chunked_attention
from model.mask import NEGATIVE, packed_mask

LONGEST_REFERENCE = 256  # up to one block both take the same time and memory (docs/decisions/0004)

Implementation = Literal["auto", "reference", "chunked", "splash"]


def packed_attention(
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    segments_BT: jax.Array,
    segments_BS: jax.Array,
    *,
    first: int | jax.Array = 0,
    window: int | None,
    softcap: float | None,
    implementation: Implementation,
) -> jax.Array:
    """Mixed values [B, N, T, H] in the type of q. Queries come scaled and rotated, keys rotated.

    Query t stands at place first + t of the row and key s at place s; S >= first + T. A query sees keys of its own
    segment that are not after it and fewer than `window` places back. Logits and softmax are float32. What comes out
    where the segment is 0 (padding) is finite and means nothing.
    """
    if implementation == "auto":
        implementation = choose_implementation(jax.default_backend(), q_BNTH.shape[2], k_BKSH.shape[2])
    if implementation == "splash":
        return splash.splash_attention(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, window, softcap)
    if implementation == "chunked":
        return chunked_attention(q_BNTH, k_BKSH, v_BKSH, segments_BT, segments_BS, first, window, softcap)
    T, S = q_BNTH.shape[2], k_BKSH.shape[2]
    mask_BTS = packed_mask(segments_BT, segments_BS, first + jnp.arange(T), jnp.arange(S), window)
    return attend_heads(q_BNTH, k_BKSH, v_BKSH, mask_BTS, softcap)


def choose_implementation(
    platform: str, query_length: int, key_length: int
) -> Literal["reference", "chunked", "splash"]:
    """What `auto` means: the hardware that the program is traced on decides, so name one to compile for another."""
    if platform == "tpu" and splash.fits(query_length, key_length):
        return "splash"
    return "chunked" if key_length > LONGEST_REFERENCE else "reference"


def attend_heads(
    q_BNTH: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array, mask_BTS: jax.Array, softcap: float | None
) -> jax.Array:
    """The reference, under any mask: mixed values [B, N, T, H] in the type of q. Holds [B, N, T, S]."""
    B, N, T, H = q_BNTH.shape
    K = k_BKSH.shape[1]
    q_BKGTH = q_BNTH.reshape(B, K, N // K, T, H)
    logits_BKGTS = jnp.einsum("BKGTH,BKSH->BKGTS", q_BKGTH, k_BKSH, preferred_element_type=jnp.float32)
    if softcap is not None:
        logits_BKGTS = softcap * jnp.tanh(logits_BKGTS / softcap)
    logits_BKGTS = jnp.where(mask_BTS[:, None, None], logits_BKGTS, NEGATIVE)
    # Softmax in float32: bfloat16 loses the tail of a wide distribution.
    probs_BKGTS = jax.nn.softmax(logits_BKGTS, axis=-1).astype(v_BKSH.dtype)
    mixed_BKGTH = jnp.einsum("BKGTS,BKSH->BKGTH", probs_BKGTS, v_BKSH, preferred_element_type=jnp.float32)
    return mixed_BKGTH.reshape(B, N, T, H).astype(q_BNTH.dtype)
