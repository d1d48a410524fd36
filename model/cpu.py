"""What is done only on CPUs, where it was measured to pay; the mathematics is that of the modules it stands in for.

XLA's CPU backend multiplies matrices fast when the contracted axis is last on the left, and loops well over what fits
in the cache. Autodiff gives it neither, so the backward passes are written out here. One CPU device only.

Shape letters in this file: B batch, T position, C query positions of a chunk, S key positions that a chunk sees,
N query heads, K key/value heads, G = N // K, H head_dim, D embed_dim, V vocab_size; P = B * K, R = G * C rows.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from model.mask import packed_mask

GELU_SLOPE, GELU_CUBE = (2 / math.pi) ** 0.5, 0.044715
ATTENTION_CHUNK = 128  # query positions at a time; what lies wholly outside the mask is never computed
LARGEST_UNSHIFTED = 80.0  # exp of logits capped here stays far inside float32, even summed over 256,000 of them
MOST_CHUNKS = 16  # each is compiled on its own
LONGEST_KEPT = 1024  # positions of a row up to which attention weights are kept for the backward pass

# The scheduler that saves memory costs no time here; the default one takes 13 % more room for temporary arrays.
COMPILER_OPTIONS: dict[str, bool | str] = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def cpu_environment() -> dict[str, str]:
    """Variables that a launcher sets before Python starts, for training on Linux with glibc.

    XLA's CPU backend takes its buffers from malloc and gives them back every step: with huge pages, and without
    returning memory to the kernel between steps, page faults vanish. One arena, because those of other threads than the
    main one cannot keep a buffer over 64 MiB. Needs transparent huge pages at `madvise` or `always`.
    """
    return {
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "100000000000",
        "MALLOC_TOP_PAD_": "268435456",
        "JAX_PLATFORMS": "cpu",
    }


def transposed(x: jax.Array) -> jax.Array:
    """The last two axes swapped in memory, where a plain transpose would be folded into the slow kind of product."""
    y = jnp.swapaxes(x, -1, -2)
    return with_layout_constraint(y, Layout(tuple(range(y.ndim))))


def product(x: jax.Array, y: jax.Array, x_axis: int, y_axis: int) -> jax.Array:
    """Matrix product over one axis each, any leading axes shared; float32, row-major."""
    batch = tuple(range(x.ndim - 2))
    dims = (((x_axis % x.ndim,), (y_axis % y.ndim,)), (batch, batch))
    z = lax.dot_general(x, y, dims, preferred_element_type=jnp.float32)
    # Without the pin a later transpose makes the result column-major, for which there is no bfloat16 product.
    return with_layout_constraint(z, Layout(tuple(range(z.ndim))))


def after(y: jax.Array, x: jax.Array) -> jax.Array:
    """x, in such a way that what is computed from it cannot be computed before y.

    For backward passes that compute something again: XLA's CPU backend drops `optimization_barrier`, finds the forward
    pass to have computed the same, and keeps that in memory.
    """
    return jnp.where(jnp.isnan(y[(0,) * y.ndim]), jnp.nan, x)


@jax.custom_vjp
def linear_rows(x: jax.Array, w: jax.Array) -> jax.Array:
    """x[M, D] times w[F, D] transposed: [M, F] in the type of x."""
    return product(x, w.astype(x.dtype), -1, -1).astype(x.dtype)


def _linear_rows_fwd(x: jax.Array, w: jax.Array) -> Any:
    w_cast = w.astype(x.dtype)
    return product(x, w_cast, -1, -1).astype(x.dtype), (x, w_cast)


def _linear_rows_bwd(kept: Any, dy: jax.Array) -> Any:
    x, w = kept
    return product(dy, w, -1, -2).astype(x.dtype), weight_gradient(dy, x)


linear_rows.defvjp(_linear_rows_fwd, _linear_rows_bwd)


@jax.custom_vjp
def linear_columns(x: jax.Array, w: jax.Array) -> jax.Array:
    """x[M, F] times w[F, D]: [M, D] in the type of x."""
    return product(x, w.astype(x.dtype), -1, -2).astype(x.dtype)


def _linear_columns_fwd(x: jax.Array, w: jax.Array) -> Any:
    w_cast = w.astype(x.dtype)
    return product(x, w_cast, -1, -2).astype(x.dtype), (x, w_cast)


def _linear_columns_bwd(kept: Any, dy: jax.Array) -> Any:
    x, w = kept
    return product(dy, w, -1, -1).astype(x.dtype), weight_gradient(x, dy)


linear_columns.defvjp(_linear_columns_fwd, _linear_columns_bwd)


def weight_gradient(x: jax.Array, y: jax.Array) -> jax.Array:
    """x[M, I] transposed times y[M, J]: [I, J]; the narrower operand is the one that is transposed in memory."""
    if x.shape[-1] <= y.shape[-1]:
        return product(transposed(x), y, -1, -2)
    return transposed(product(transposed(y), x, -1, -2))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """x over its root mean square along the last axis, times scale; float32 inside. Kept for backward: x as it came."""
    return _rms_norm_fwd(x, scale, eps)[0]


def _rms_norm_fwd(x_in: jax.Array, scale: jax.Array, eps: float) -> Any:
    # Without a barrier XLA carries the float32 that x_in was rounded from to the backward pass.
    x_in = lax.optimization_barrier(x_in)
    x = x_in.astype(jnp.float32)
    inverse = lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)
    return (x * inverse * scale).astype(x_in.dtype), (x_in, inverse, scale)


def _rms_norm_bwd(eps: float, kept: Any, dy: jax.Array) -> Any:
    x_in, inverse, scale = kept
    x_in, inverse = after(dy, x_in), after(dy, inverse)
    x, d = x_in.astype(jnp.float32) * inverse, dy.astype(jnp.float32)
    d_scale = jnp.sum(d * x, axis=tuple(range(x.ndim - 1)))
    d *= scale
    return (inverse * (d - x * jnp.mean(d * x, axis=-1, keepdims=True))).astype(x_in.dtype), d_scale


rms_norm.defvjp(_rms_norm_fwd, _rms_norm_bwd)


def _gelu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The tanh approximation and its slope."""
    tanh = jnp.tanh(GELU_SLOPE * (x + GELU_CUBE * x * x * x))
    slope = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * GELU_SLOPE * (1 + 3 * GELU_CUBE * x * x)
    return 0.5 * x * (1 + tanh), slope


def _silu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    sigmoid = jax.nn.sigmoid(x)
    return x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))


def _gated(activation: Callable[[jax.Array], tuple[jax.Array, jax.Array]]) -> Callable[[jax.Array, jax.Array], Any]:
    """activation(gate) * up, in float32 inside; backward from its inputs in one pass."""

    @jax.custom_vjp
    def gated(gate: jax.Array, up: jax.Array) -> jax.Array:
        return (activation(gate.astype(jnp.float32))[0] * up.astype(jnp.float32)).astype(gate.dtype)

    def forward(gate: jax.Array, up: jax.Array) -> Any:
        return gated(gate, up), (gate, up)

    def backward(kept: Any, dy: jax.Array) -> Any:
        gate, up = kept
        value, slope = activation(after(dy, gate).astype(jnp.float32))
        d = dy.astype(jnp.float32)
        return (d * up.astype(jnp.float32) * slope).astype(gate.dtype), (d * value).astype(up.dtype)

    gated.defvjp(forward, backward)
    return gated


GATED = {"gelu": _gated(_gelu), "silu": _gated(_silu)}


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attention(
    q_BNTH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTH: jax.Array,
    segments_BT: jax.Array,
    window: int | None,
    softcap: float | None,
) -> jax.Array:
    """Causal attention within segments, chunk by chunk: [B, N, T, H].

    The backward pass computes the weights again from row sums; XLA still has those of rows up to LONGEST_KEPT.
    """
    return _attention_fwd(q_BNTH, k_BKTH, v_BKTH, segments_BT, window, softcap)[0]


def _attention_fwd(q_BNTH, k_BKTH, v_BKTH, segments_BT, window, softcap):
    B, N, T, H = q_BNTH.shape
    K = k_BKTH.shape[1]
    q, k, v = _grouped(q_BNTH, K), _grouped(k_BKTH, K), _grouped(v_BKTH, K)
    outs, sums = [], []
    for lo, at, hi in _spans(T, window):
        q_PRH = q[:, :, at:hi].reshape(B * K, -1, H)
        _, weights_PRS = _chunk_weights(q_PRH, k[:, 0, lo:hi], segments_BT, (lo, at, hi), window, softcap)
        sum_PR1 = jnp.sum(weights_PRS, axis=-1, keepdims=True)
        mixed_PRH = product(weights_PRS.astype(v.dtype), v[:, 0, lo:hi], -1, -2) / sum_PR1
        outs.append(mixed_PRH.astype(q.dtype).reshape(B * K, N // K, hi - at, H))
        sums.append(sum_PR1)
    out_BNTH = jnp.concatenate(outs, axis=2).reshape(B, N, T, H)
    return out_BNTH, (q_BNTH, k_BKTH, v_BKTH, segments_BT, out_BNTH, tuple(sums))


def _attention_bwd(window, softcap, kept, d_out_BNTH):
    q_BNTH, k_BKTH, v_BKTH, segments_BT, out_BNTH, sums = kept
    B, _, T, H = q_BNTH.shape
    if T > LONGEST_KEPT:
        q_BNTH = after(d_out_BNTH, q_BNTH)
    K = k_BKTH.shape[1]
    q, k, v = _grouped(q_BNTH, K), _grouped(k_BKTH, K), _grouped(v_BKTH, K)
    out, d_out = _grouped(out_BNTH, K), _grouped(d_out_BNTH, K)
    d_q = []
    d_k_PHT = jnp.zeros((B * K, H, T), jnp.float32)
    d_v_PHT = jnp.zeros((B * K, H, T), jnp.float32)
    for (lo, at, hi), sum_PR1 in zip(_spans(T, window), sums, strict=True):
        q_PRH, o_PRH, do_PRH = (x[:, :, at:hi].reshape(B * K, -1, H) for x in (q, out, d_out))
        k_PSH, v_PSH = k[:, 0, lo:hi], v[:, 0, lo:hi]
        slope_PRS, weights_PRS = _chunk_weights(q_PRH, k_PSH, segments_BT, (lo, at, hi), window, softcap)
        probs_PRS = weights_PRS / sum_PR1
        d_probs_PRS = product(do_PRH, v_PSH, -1, -1)
        mean_PR1 = jnp.sum(do_PRH.astype(jnp.float32) * o_PRH.astype(jnp.float32), axis=-1, keepdims=True)
        d_logits_PRS = (probs_PRS * (d_probs_PRS - mean_PR1) * slope_PRS).astype(q.dtype)
        d_q.append(product(d_logits_PRS, k_PSH, -1, -2).astype(q.dtype).reshape(B * K, -1, hi - at, H))
        d_k_PHT = d_k_PHT.at[:, :, lo:hi].add(product(transposed(q_PRH), d_logits_PRS, -1, -2))
        d_v_PHT = d_v_PHT.at[:, :, lo:hi].add(product(transposed(do_PRH), probs_PRS.astype(v.dtype), -1, -2))

    def narrow(x_PHT: jax.Array) -> jax.Array:
        return jnp.swapaxes(x_PHT, 1, 2).astype(k_BKTH.dtype).reshape(k_BKTH.shape)

    return jnp.concatenate(d_q, axis=2).reshape(q_BNTH.shape), narrow(d_k_PHT), narrow(d_v_PHT), None


attention.defvjp(_attention_fwd, _attention_bwd)


def _spans(length: int, window: int | None) -> list[tuple[int, int, int]]:
    """(first key, first query, end of both) of each chunk of queries; keys before it are out of every query's sight."""
    chunk = ATTENTION_CHUNK if window is None or window > ATTENTION_CHUNK else ATTENTION_CHUNK // 2
    chunk = max(chunk, -(-length // MOST_CHUNKS))
    starts = range(0, length, chunk)
    # First keys are rounded down to whole cache lines.
    return [(max(0, at - window + 1) // 32 * 32 if window else 0, at, min(length, at + chunk)) for at in starts]


def _grouped(x_BNTH: jax.Array, K: int) -> jax.Array:
    """[P, G, T, H]"""
    B, N, T, H = x_BNTH.shape
    return x_BNTH.reshape(B * K, N // K, T, H)


def _chunk_weights(q_PRH, k_PSH, segments_BT, span, window, softcap):
    """Slope of the soft cap and unnormalised attention weights [P, R, S] of one chunk, float32."""
    lo, at, hi = span
    P, R, _ = q_PRH.shape
    B = segments_BT.shape[0]
    C, S = hi - at, hi - lo
    places_C, places_S = at + jnp.arange(C), lo + jnp.arange(S)
    mask_BCS = packed_mask(segments_BT[:, at:hi], segments_BT[:, lo:hi], places_C, places_S, window)
    logits_PRS = product(q_PRH, k_PSH, -1, -1)
    shape = (B, P // B, R // C, C, S)
    mask_PRS = jnp.broadcast_to(mask_BCS[:, None, None], shape).reshape(P, R, S)
    slope, capped_PRS = 1.0, logits_PRS
    if softcap is not None:
        tanh_PRS = jnp.tanh(logits_PRS / softcap)
        slope, capped_PRS = 1 - jnp.square(tanh_PRS), softcap * tanh_PRS
    if softcap is None or softcap > LARGEST_UNSHIFTED:
        capped_PRS -= jnp.max(jnp.where(mask_PRS, capped_PRS, -jnp.inf), axis=-1, keepdims=True)
    return slope, jnp.where(mask_PRS, jnp.exp(capped_PRS), 0)
