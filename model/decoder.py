"""The transformer, top to bottom.

Shape letters in this file: B batch, T query position, S key or cache position, D embed_dim, V vocab_size, F mlp_dim,
N query heads, K key/value heads, H head_dim, L layers, R rows of a weight. Weights are [R, D]: rows are what tensor
parallelism cuts, and those of attention are head after head.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from model import cpu
from model.attention import attend, causal_mask
from model.config import ComputeConfig, DecoderConfig, RopeScaling
from model.sharding import constrain


class Cache(NamedTuple):
    """Keys and values of every layer [L, B, S, K, H]; slot s of row b holds the token at position s of that row."""

    keys: jax.Array
    values: jax.Array


# attend(queries, keys, values) -> mixed values and whatever the caller wants back from the layer
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]


def to_rows(x_BTD: jax.Array, w_RD: jax.Array, compute: ComputeConfig) -> jax.Array:
    """x times the rows of w: [B, T, R] in the type of x, added up in float32."""
    if compute.cpu_kernels:
        B, T, D = x_BTD.shape
        return cpu.linear_rows(x_BTD.reshape(B * T, D), w_RD).reshape(B, T, -1)
    y_BTR = jnp.tensordot(x_BTD, w_RD.astype(x_BTD.dtype), ((2,), (1,)), preferred_element_type=jnp.float32)
    return y_BTR.astype(x_BTD.dtype)


def from_rows(x_BTR: jax.Array, w_RD: jax.Array, compute: ComputeConfig) -> jax.Array:
    """The rows of w weighted by x: [B, T, D] in the type of x, added up in float32."""
    if compute.cpu_kernels:
        B, T, R = x_BTR.shape
        return cpu.linear_columns(x_BTR.reshape(B * T, R), w_RD).reshape(B, T, -1)
    y_BTD = jnp.tensordot(x_BTR, w_RD.astype(x_BTR.dtype), ((2,), (0,)), preferred_element_type=jnp.float32)
    return y_BTD.astype(x_BTR.dtype)


@jax.custom_vjp
def unstack(w: jax.Array) -> tuple[jax.Array, ...]:
    """The parts of a stack. Its gradient is one concatenation, where autodiff would add up a padded array per part."""
    return tuple(w[i] for i in range(w.shape[0]))


unstack.defvjp(lambda w: (unstack(w), None), lambda _, parts: (jnp.stack(parts),))


class Rotation(NamedTuple):
    """Every position's turn, float32 [B, T, 1, H]: cosines twice, and sines, those of the first half negative."""

    cos: jax.Array
    sin: jax.Array

    def times(self, scale: float) -> "Rotation":
        return Rotation(self.cos * scale, self.sin * scale)


def rotation(positions_BT: jax.Array, head_dim: int, base: float, scaling: RopeScaling | None = None) -> Rotation:
    """In float32, since bfloat16 positions repeat after 256. Computed once, whatever a compiler would like to fuse."""
    half = head_dim // 2
    frequency_H = base ** -(jnp.arange(half, dtype=jnp.float32) / half)
    if scaling is not None:
        frequency_H = stretched(frequency_H, scaling)
    angle_BT1H = positions_BT[:, :, None, None].astype(jnp.float32) * frequency_H
    sin, cos = jnp.sin(angle_BT1H), jnp.cos(angle_BT1H)
    turns = jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)
    return Rotation(*jax.lax.optimization_barrier(turns))


def stretched(frequency_H: jax.Array, scaling: RopeScaling) -> jax.Array:
    """Frequencies for longer texts: each divided by the factor, or only the low ones (see `RopeScaling`)."""
    low_H = frequency_H / scaling.factor
    if scaling.original_max_seq_len is None:
        return low_H
    turns_H = scaling.original_max_seq_len * frequency_H / (2 * math.pi)  # over the original length
    width = scaling.high_freq_factor - scaling.low_freq_factor
    kept_H = jnp.clip((turns_H - scaling.low_freq_factor) / width, 0, 1)
    return kept_H * frequency_H + (1 - kept_H) * low_H


@jax.custom_vjp
def rotate(x_BTNH: jax.Array, by: Rotation) -> jax.Array:
    """Rotary position embedding: the two halves of each head turn as pairs."""
    x = x_BTNH.astype(jnp.float32)
    return (x * by.cos + jnp.roll(x, x.shape[-1] // 2, axis=-1) * by.sin).astype(x_BTNH.dtype)


# Turning back undoes it, and that is its gradient. Autodiff's would be a concatenation, five times slower on a CPU.
rotate.defvjp(lambda x, by: (rotate(x, by), by), lambda by, d_out: (rotate(d_out, Rotation(by.cos, -by.sin)), None))


def _weight(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], fan_in: int) -> nnx.Param:
    return nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32) * fan_in**-0.5, axes=axes)


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis."""

    def __init__(self, cfg: DecoderConfig, size: int):
        self.scale = nnx.Param(jnp.full(size, 1 - cfg.norm_offset, jnp.float32), axes=("norm",))
        self.eps, self.offset = cfg.norm_eps, cfg.norm_offset

    def __call__(self, x_in: jax.Array) -> jax.Array:
        x = x_in.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return (x * (self.offset + self.scale[...])).astype(x_in.dtype)


class Attention(nnx.Module):
    def __init__(self, cfg: DecoderConfig, *, rngs: nnx.Rngs):
        D, N, K, H = cfg.embed_dim, cfg.num_heads, cfg.num_kv_heads, cfg.head_dim
        self.query = _weight(rngs, (N * H, D), ("heads", "embed"), D)
        self.key = _weight(rngs, (K * H, D), ("kv_heads", "embed"), D)
        self.value = _weight(rngs, (K * H, D), ("kv_heads", "embed"), D)
        self.out = _weight(rngs, (N * H, D), ("heads", "embed"), N * H)
        if cfg.qk_norms:
            self.query_norm, self.key_norm = RMSNorm(cfg, H), RMSNorm(cfg, H)
        self.cfg = cfg

    def __call__(self, x_BTD: jax.Array, rotation: Rotation, attend: Attend) -> tuple[jax.Array, Any]:
        compute, heads = self.cfg.compute, (*x_BTD.shape[:2], -1, self.cfg.head_dim)
        q_BTNH = to_rows(x_BTD, self.query[...], compute).reshape(heads)
        k_BTKH = to_rows(x_BTD, self.key[...], compute).reshape(heads)
        v_BTKH = to_rows(x_BTD, self.value[...], compute).reshape(heads)
        if self.cfg.qk_norms:
            q_BTNH, k_BTKH = self.query_norm(q_BTNH), self.key_norm(k_BTKH)
        q_BTNH = rotate(q_BTNH, rotation.times(self.cfg.query_scale))
        k_BTKH = rotate(k_BTKH, rotation)
        mixed_BTNH, kept = attend(constrain(q_BTNH, "batch", "length", "act_heads", "head_dim"), k_BTKH, v_BTKH)
        mixed_BTR = mixed_BTNH.reshape(*x_BTD.shape[:2], -1)
        return from_rows(mixed_BTR, self.out[...], compute), kept


class MLP(nnx.Module):
    """Gated unit: activation(gate) * up, and down."""

    def __init__(self, cfg: DecoderConfig, *, rngs: nnx.Rngs):
        D, F = cfg.embed_dim, cfg.mlp_dim
        self.gate = _weight(rngs, (F, D), ("mlp", "embed"), D)
        self.up = _weight(rngs, (F, D), ("mlp", "embed"), D)
        self.down = _weight(rngs, (F, D), ("mlp", "embed"), F)
        self.activation, self.compute = cfg.activation, cfg.compute

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        gate_BTF = to_rows(x_BTD, self.gate[...], self.compute)
        up_BTF = to_rows(x_BTD, self.up[...], self.compute)
        gated = (cpu.GATED if self.compute.cpu_kernels else GATED)[self.activation]
        h_BTF = constrain(gated(gate_BTF, up_BTF), "batch", "length", "act_mlp")
        return from_rows(h_BTF, self.down[...], self.compute)


GATED: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "gelu": lambda gate, up: jax.nn.gelu(gate, approximate=True) * up,
    "silu": lambda gate, up: jax.nn.silu(gate) * up,
}


class Layer(nnx.Module):
    """Attention and MLP, each after a norm (and, by the config, before another), added to the residual stream."""

    def __init__(self, cfg: DecoderConfig, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(cfg, cfg.embed_dim)
        self.attention = Attention(cfg, rngs=rngs)
        self.mlp_norm = RMSNorm(cfg, cfg.embed_dim)
        self.mlp = MLP(cfg, rngs=rngs)
        self.post_norms = cfg.post_norms
        if cfg.post_norms:
            self.attention_post_norm = RMSNorm(cfg, cfg.embed_dim)
            self.mlp_post_norm = RMSNorm(cfg, cfg.embed_dim)

    def __call__(self, x_BTD: jax.Array, rotation: Rotation, attend: Attend) -> tuple[jax.Array, Any]:
        mixed_BTD, kept = self.attention(self.attention_norm(x_BTD), rotation, attend)
        if self.post_norms:
            mixed_BTD = self.attention_post_norm(mixed_BTD)
        x_BTD = constrain(x_BTD + mixed_BTD, "batch", "length", "act_embed")
        mixed_BTD = self.mlp(self.mlp_norm(x_BTD))
        if self.post_norms:
            mixed_BTD = self.mlp_post_norm(mixed_BTD)
        return constrain(x_BTD + mixed_BTD, "batch", "length", "act_embed"), kept


class Decoder(nnx.Module):
    """Tokens to hidden states. `logits` is apart, because over 256,000 words only a piece of them fits in memory."""

    def __init__(self, cfg: DecoderConfig, *, rngs: nnx.Rngs):
        self.embed = _weight(rngs, (cfg.vocab_size, cfg.embed_dim), ("vocab", "embed"), cfg.embed_dim)
        # One module whose arrays stack all layers: [L, ...].
        make_layers = nnx.vmap(lambda rngs: Layer(cfg, rngs=rngs))
        self.layers = make_layers(rngs.split(cfg.num_layers))
        self.final_norm = RMSNorm(cfg, cfg.embed_dim)
        if not cfg.tie_embeddings:
            self.head = _weight(rngs, (cfg.vocab_size, cfg.embed_dim), ("vocab", "embed"), cfg.embed_dim)
        self.cfg = cfg

    @property
    def output_table(self) -> jax.Array:
        """What scores hidden states: float32 [V, D]."""
        return (self.embed if self.cfg.tie_embeddings else self.head)[...]

    def __call__(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array,
        noise_BTD: jax.Array | None = None,
    ) -> jax.Array:
        """Hidden states [B, T, D] after the final norm, of packed rows: tokens see only their own segment.

        `noise_BTD` is added to the embeddings (NEFTune).
        """
        cfg, turns = self.cfg, self._rotations(positions_BT)
        masks = {window: causal_mask(segments_BT, window) for window in set(cfg.layer_windows)}

        def step(layer: Layer, x_BTD: jax.Array, window: int | None, _: None) -> tuple[jax.Array, None]:
            def attend_row(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> tuple[jax.Array, None]:
                if cfg.compute.cpu_kernels:
                    return cpu.attention(q_BTNH, k_BTKH, v_BTKH, segments_BT, window, cfg.attn_softcap), None
                return attend(q_BTNH, k_BTKH, v_BTKH, masks[window], cfg.attn_softcap), None

            return layer(x_BTD, turns[window], attend_row)

        x_BTD, _ = self._through_layers(self._embed(tokens_BT, noise_BTD), step, None)
        return self.final_norm(x_BTD)

    def extend(self, tokens_BT: jax.Array, positions_BT: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """Hidden states of tokens that follow what the cache holds, and the cache with them.

        Each row has its own positions: token t of row b is written to slot positions_BT[b, t] and sees slots up to it.
        A slot beyond the row's last position may hold anything: it is overwritten before it is ever seen.
        """
        slots_S = jnp.arange(cache.keys.shape[2])
        distance_BTS = positions_BT[:, :, None] - slots_S
        rows_B1 = jnp.arange(tokens_BT.shape[0])[:, None]
        turns = self._rotations(positions_BT)

        def step(layer: Layer, x_BTD: jax.Array, window: int | None, kv: Cache) -> tuple[jax.Array, Cache]:
            mask_BTS = distance_BTS >= 0
            if window is not None:
                mask_BTS &= distance_BTS < window

            def attend_cache(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> tuple[jax.Array, Cache]:
                keys = kv.keys.at[rows_B1, positions_BT].set(k_BTKH)
                values = kv.values.at[rows_B1, positions_BT].set(v_BTKH)
                return attend(q_BTNH, keys, values, mask_BTS, self.cfg.attn_softcap), Cache(keys, values)

            return layer(x_BTD, turns[window], attend_cache)

        x_BTD, cache = self._through_layers(self._embed(tokens_BT), step, cache)
        return self.final_norm(x_BTD), cache

    def empty_cache(self, batch: int, length: int) -> Cache:
        cfg = self.cfg
        shape = (cfg.num_layers, batch, length, cfg.num_kv_heads, cfg.head_dim)
        return Cache(jnp.zeros(shape, cfg.compute.dtype), jnp.zeros(shape, cfg.compute.dtype))

    def logits(self, hidden_BTD: jax.Array) -> jax.Array:
        """Soft-capped logits [B, T, V] in float32."""
        table_VD = self.output_table.astype(hidden_BTD.dtype)
        logits_BTV = jnp.einsum("BTD,VD->BTV", hidden_BTD, table_VD, preferred_element_type=jnp.float32)
        cap = self.cfg.final_softcap
        return logits_BTV if cap is None else cap * jnp.tanh(logits_BTV / cap)

    def _embed(self, tokens_BT: jax.Array, noise_BTD: jax.Array | None = None) -> jax.Array:
        x_BTD = self.embed[...][tokens_BT]
        x_BTD = (x_BTD if noise_BTD is None else x_BTD + noise_BTD).astype(self.cfg.compute.dtype)
        if self.cfg.scale_embeddings:
            x_BTD *= jnp.asarray(self.cfg.embed_dim**0.5, x_BTD.dtype)
        return constrain(x_BTD, "batch", "length", "act_embed")

    def _rotations(self, positions_BT: jax.Array) -> dict[int | None, Rotation]:
        """By window: local layers may turn otherwise than global ones."""
        cfg = self.cfg
        whole = rotation(positions_BT, cfg.head_dim, cfg.rope_base, cfg.rope_scaling)
        turns = dict.fromkeys(cfg.layer_windows, whole)
        if cfg.local_rope_base is not None and cfg.local_window in turns:
            turns[cfg.local_window] = rotation(positions_BT, cfg.head_dim, cfg.local_rope_base)
        return turns

    def _through_layers(self, x: jax.Array, step: Callable[..., tuple[jax.Array, Any]], extra_L: Any) -> Any:
        """Run step(layer, x, window, extra of the layer) over the depth; returns x and what the steps kept, stacked.

        With scan_layers the loop body is one period of the layer pattern, so that windows stay constants; layers
        that fill no whole period follow it.
        """
        graph, stack_L = nnx.split(self.layers)
        windows, period = self.cfg.layer_windows, len(self.cfg.layer_pattern)

        def run(x: jax.Array, weights: Any, extra: Any, window: int | None) -> tuple[jax.Array, Any]:
            return step(nnx.merge(graph, weights), x, window, extra)

        one = jax.checkpoint(run, static_argnums=3) if self.cfg.compute.remat == "full" else run

        def several(x: jax.Array, scanned: Any, first: int) -> tuple[jax.Array, Any]:
            kept = []
            leaves, structure = jax.tree.flatten(scanned)
            for i, parts in enumerate(zip(*map(unstack, leaves), strict=True)):
                weights, extra = jax.tree.unflatten(structure, parts)
                x, out = one(x, weights, extra, windows[first + i])
                kept.append(out)
            return x, jax.tree.map(lambda *a: jnp.stack(a), *kept)

        scanned_L = (stack_L, extra_L)
        whole = self.cfg.num_layers // period * period if self.cfg.compute.scan_layers else 0
        kept = []
        if whole:
            periods = jax.tree.map(lambda a: a[:whole].reshape(whole // period, period, *a.shape[1:]), scanned_L)
            x, out = jax.lax.scan(lambda x, layers: several(x, layers, 0), x, periods)
            kept.append(jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), out))
        if whole < self.cfg.num_layers:
            rest = jax.tree.map(lambda a: a[whole:], scanned_L)
            x, out = several(x, rest, whole)
            kept.append(out)
        return x, jax.tree.map(lambda *a: jnp.concatenate(a), *kept)
