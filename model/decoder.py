"""The transformer, top to bottom.

Shape letters in this file: B batch, T query position, S key or cache position, D embed_dim, V vocab_size, F mlp_dim,
N query heads, K key/value heads, H head_dim, L layers. Weights are rows of D, which the devices of a mesh share: inside
a training step on a mesh, every size but D, H and V is that of this device's part.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from model import cpu
from model.attention import attend_heads, packed_attention
from model.cache import Cache, Slots, claim, visible, write
from model.config import REMAT, ComputeConfig, DecoderConfig, RopeScaling
from model.lora import adapt, adapted
from model.mlp import GATED, new_weight
from model.moe import MoE, RouterSums
from model.pipeline import through_stages
from model.quantized import quantized_einsum
from model.sharding import GATHERED, enter_tensor, leave_tensor, parts, place, whole_length, whole_rows
from model.vocab_parallel import looked_up

# attend(queries, keys, values) -> mixed values and whatever the caller wants back from the layer
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]


def product(equation: str, x: jax.Array, w: jax.Array, compute: ComputeConfig) -> jax.Array:
    """Activations times a weight in the type of x, added up in float32 or, of 8-bit operands, in 32 bits."""
    if compute.quantization != "none":
        return quantized_einsum(equation, x, w, compute.quantization)
    return jnp.einsum(equation, x, w)


def to_rows(x_BTD: jax.Array, w_FD: jax.Array, compute: ComputeConfig) -> jax.Array:
    """x times the rows of w: [B, T, F] in the type of x, added up in float32."""
    if compute.cpu_kernels:
        B, T, D = x_BTD.shape
        return cpu.linear_rows(x_BTD.reshape(B * T, D), w_FD).reshape(B, T, -1)
    w_FD = whole_rows(w_FD, x_BTD.dtype)
    return product("BTD,FD->BTF", x_BTD, w_FD, compute)


def from_rows(x_BTF: jax.Array, w_FD: jax.Array, compute: ComputeConfig) -> jax.Array:
    """x times w: [B, T, D] in the type of x, added up in float32."""
    if compute.cpu_kernels:
        B, T, F = x_BTF.shape
        return cpu.linear_columns(x_BTF.reshape(B * T, F), w_FD).reshape(B, T, -1)
    w_FD = whole_rows(w_FD, x_BTF.dtype)
    return product("BTF,FD->BTD", x_BTF, w_FD, compute)


def to_heads(x_BTD: jax.Array, w: jax.Array, head_dim: int, compute: ComputeConfig) -> jax.Array:
    """x times the rows of w [N*H, D]: [B, N, T, H], the order in which attention kernels read, in the type of x."""
    if compute.cpu_kernels:
        B, T, _ = x_BTD.shape
        return jnp.swapaxes(to_rows(x_BTD, w, compute).reshape(B, T, -1, head_dim), 1, 2)
    w_NHD = whole_rows(w, x_BTD.dtype).reshape(-1, head_dim, x_BTD.shape[-1])
    return product("BTD,NHD->BNTH", x_BTD, w_NHD, compute)


def from_heads(x_BNTH: jax.Array, w: jax.Array, compute: ComputeConfig) -> jax.Array:
    """x times w [N*H, D]: [B, T, D] in the type of x, added up in float32."""
    B, N, T, H = x_BNTH.shape
    if compute.cpu_kernels:
        return from_rows(jnp.swapaxes(x_BNTH, 1, 2).reshape(B, T, N * H), w, compute)
    w_NHD = whole_rows(w, x_BNTH.dtype).reshape(N, H, -1)
    return product("BNTH,NHD->BTD", x_BNTH, w_NHD, compute)


@jax.custom_vjp
def unstack(w: jax.Array) -> tuple[jax.Array, ...]:
    """The parts of a stack. Its gradient is one concatenation, where autodiff would add up a padded array per part."""
    return tuple(w[i] for i in range(w.shape[0]))


unstack.defvjp(lambda w: (unstack(w), None), lambda _, parts: (jnp.stack(parts),))


class Rotation(NamedTuple):
    """Every position's turn, float32 [B, 1, T, H]: cosines twice, and sines, those of the first half negative."""

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
    angle_B1TH = positions_BT[:, None, :, None].astype(jnp.float32) * frequency_H
    sin, cos = jnp.sin(angle_B1TH), jnp.cos(angle_B1TH)
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
def rotate(x_BNTH: jax.Array, by: Rotation) -> jax.Array:
    """Rotary position embedding: the two halves of each head turn as pairs."""
    x = x_BNTH.astype(jnp.float32)
    return (x * by.cos + jnp.roll(x, x.shape[-1] // 2, axis=-1) * by.sin).astype(x_BNTH.dtype)


# Turning back undoes it, and that is its gradient. Autodiff's would be a concatenation, five times slower on a CPU.
rotate.defvjp(lambda x, by: (rotate(x, by), by), lambda by, d_out: (rotate(d_out, Rotation(by.cos, -by.sin)), None))


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis. Norms of heads see only those of this device (`per_head`)."""

    def __init__(self, cfg: DecoderConfig, size: int, *, per_head: bool = False):
        self.scale = nnx.Param(jnp.full(size, 1 - cfg.norm_offset, jnp.float32), axes=("norm",))
        self.eps, self.offset, self.per_head, self.compute = cfg.norm_eps, cfg.norm_offset, per_head, cfg.compute

    def __call__(self, x_in: jax.Array) -> jax.Array:
        if self.compute.cpu_kernels:
            return cpu.rms_norm(x_in, self.offset + self.scale[...], self.eps)
        x = x_in.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        scale = enter_tensor(self.scale[...]) if self.per_head else self.scale[...]
        return (x * (self.offset + scale)).astype(x_in.dtype)


class Attention(nnx.Module):
    def __init__(self, cfg: DecoderConfig, *, rngs: nnx.Rngs):
        D, N, K, H = cfg.embed_dim, cfg.num_heads, cfg.num_kv_heads, cfg.head_dim
        self.query = new_weight(rngs, (N * H, D), ("heads", "embed"), D)
        self.key = new_weight(rngs, (K * H, D), ("kv_heads", "embed"), D)
        self.value = new_weight(rngs, (K * H, D), ("kv_heads", "embed"), D)
        self.out = new_weight(rngs, (N * H, D), ("heads", "embed"), N * H)
        if cfg.qk_norms:
            self.query_norm, self.key_norm = RMSNorm(cfg, H, per_head=True), RMSNorm(cfg, H, per_head=True)
        adapt(self, cfg.lora, rngs=rngs)
        self.cfg = cfg

    def __call__(self, x_BTD: jax.Array, rotation: Rotation, attend: Attend) -> tuple[jax.Array, Any]:
        compute, H = self.cfg.compute, self.cfg.head_dim
        x_BTD = enter_tensor(x_BTD)
        q_BNTH = to_heads(x_BTD, adapted(self, "query"), H, compute)
        k_BKTH = to_heads(x_BTD, adapted(self, "key"), H, compute)
        v_BKTH = checkpoint_name(to_heads(x_BTD, adapted(self, "value"), H, compute), "value")
        if self.cfg.qk_norms:
            q_BNTH, k_BKTH = self.query_norm(q_BNTH), self.key_norm(k_BKTH)
        q_BNTH = checkpoint_name(rotate(q_BNTH, rotation.times(self.cfg.query_scale)), "query")
        k_BKTH = checkpoint_name(rotate(k_BKTH, rotation), "key")
        mixed_BNTH, kept = attend(q_BNTH, k_BKTH, v_BKTH)
        out_BTD = leave_tensor(from_heads(mixed_BNTH, adapted(self, "out"), compute))
        return checkpoint_name(out_BTD, "attention_out"), kept


class MLP(nnx.Module):
    """Gated unit: activation(gate) * up, and down."""

    def __init__(self, cfg: DecoderConfig, *, rngs: nnx.Rngs):
        D, F = cfg.embed_dim, cfg.mlp_dim
        self.gate = new_weight(rngs, (F, D), ("mlp", "embed"), D)
        self.up = new_weight(rngs, (F, D), ("mlp", "embed"), D)
        self.down = new_weight(rngs, (F, D), ("mlp", "embed"), F)
        adapt(self, cfg.lora, rngs=rngs)
        self.activation, self.compute = cfg.activation, cfg.compute

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        x_BTD = enter_tensor(x_BTD)
        gate_BTF = to_rows(x_BTD, adapted(self, "gate"), self.compute)
        up_BTF = to_rows(x_BTD, adapted(self, "up"), self.compute)
        gated = (cpu.GATED if self.compute.cpu_kernels else GATED)[self.activation]
        down_BTD = from_rows(gated(gate_BTF, up_BTF), adapted(self, "down"), self.compute)
        return checkpoint_name(leave_tensor(down_BTD), "mlp_out")


class Layer(nnx.Module):
    """Attention and MLP, each after a norm (and, by the config, before another), added to the residual stream."""

    def __init__(self, cfg: DecoderConfig, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(cfg, cfg.embed_dim)
        self.attention = Attention(cfg, rngs=rngs)
        self.mlp_norm = RMSNorm(cfg, cfg.embed_dim)
        self.mlp = MoE(cfg, rngs=rngs) if cfg.moe else MLP(cfg, rngs=rngs)
        self.post_norms = cfg.post_norms
        if cfg.post_norms:
            self.attention_post_norm = RMSNorm(cfg, cfg.embed_dim)
            self.mlp_post_norm = RMSNorm(cfg, cfg.embed_dim)

    def __call__(
        self, x_BTD: jax.Array, rotation: Rotation, attend: Attend, is_token_BT: jax.Array
    ) -> tuple[jax.Array, Any, RouterSums | None]:
        """The residual stream after this layer, what `attend` kept, and the sums of the router if there is one."""
        mixed_BTD, kept = self.attention(self.attention_norm(x_BTD), rotation, attend)
        if self.post_norms:
            mixed_BTD = self.attention_post_norm(mixed_BTD)
        x_BTD += mixed_BTD
        x_normed_BTD, router = self.mlp_norm(x_BTD), None
        if isinstance(self.mlp, MoE):
            mixed_BTD, router = self.mlp(x_normed_BTD, is_token_BT)
        else:
            mixed_BTD = self.mlp(x_normed_BTD)
        if self.post_norms:
            mixed_BTD = self.mlp_post_norm(mixed_BTD)
        return x_BTD + mixed_BTD, kept, router


class Decoder(nnx.Module):
    """Tokens to hidden states. `logits` is apart, because over 256,000 words only a piece of them fits in memory."""

    def __init__(self, cfg: DecoderConfig, *, rngs: nnx.Rngs):
        self.embed = new_weight(rngs, (cfg.vocab_size, cfg.embed_dim), ("vocab", "embed"), cfg.embed_dim)
        # One module whose arrays stack all layers: [L, ...].
        make_layers = nnx.vmap(lambda rngs: Layer(cfg, rngs=rngs))
        self.layers = make_layers(rngs.split(cfg.num_layers))
        self.final_norm = RMSNorm(cfg, cfg.embed_dim)
        if not cfg.tie_embeddings:
            self.head = new_weight(rngs, (cfg.vocab_size, cfg.embed_dim), ("vocab", "embed"), cfg.embed_dim)
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

        `noise_BTD` is added to the embeddings (NEFTune). With pipeline stages only part of the rows comes out here, and
        `pipeline.rows_here` picks the same part of other arrays.
        """
        return self.with_router_sums(tokens_BT, positions_BT, segments_BT, noise_BTD)[0]

    def with_router_sums(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array,
        noise_BTD: jax.Array | None = None,
    ) -> tuple[jax.Array, RouterSums | None]:
        """The same, and sums of the routers over all layers (those of this stage); None without experts."""
        cfg = self.cfg

        def through(x_BTD: jax.Array, rows: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
            positions_BT, segments_BT = rows
            turns = self._rotations(positions_BT)
            segments_BS = whole_length(segments_BT, 1)
            first = place("context") * segments_BT.shape[1]

            def step(layer: Layer, x_BTD: jax.Array, window: int | None) -> tuple[jax.Array, Any]:
                def attend_row(q_BNTH: jax.Array, k_BKTH: jax.Array, v_BKTH: jax.Array) -> tuple[jax.Array, None]:
                    if cfg.compute.cpu_kernels:
                        return cpu.attention(q_BNTH, k_BKTH, v_BKTH, segments_BT, window, cfg.attn_softcap), None
                    k_BKSH, v_BKSH = whole_length(k_BKTH, 2), whole_length(v_BKTH, 2)
                    return packed_attention(
                        q_BNTH,
                        k_BKSH,
                        v_BKSH,
                        segments_BT,
                        segments_BS,
                        first=first,
                        window=window,
                        softcap=cfg.attn_softcap,
                        implementation=cfg.compute.attention,
                    ), None

                x_BTD, _, router = layer(x_BTD, turns[window], attend_row, segments_BT != 0)
                return x_BTD, router

            x_BTD, router_L = self._through_layers(x_BTD, step)
            return x_BTD, jax.tree.map(jnp.sum, router_L)

        x_BTD = self._embed(tokens_BT, noise_BTD)
        x_BTD, router = through_stages(through, x_BTD, (positions_BT, segments_BT), cfg.compute.microbatches)
        return self.final_norm(x_BTD), router

    def extend(self, tokens_BT: jax.Array, positions_BT: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        """Hidden states [B, T, D] of tokens that follow what the cache holds, and the cache with them.

        Each row has its own positions. Padding has position -1: it is never written, and what comes out means nothing.
        """
        cfg, turns, period = self.cfg, self._rotations(positions_BT), len(cache)
        graph, layers_L = nnx.split(self.layers)
        cache = tuple(claim(slots, positions_BT) for slots in cache)
        masks = [visible(slots, positions_BT, cfg.layer_windows[i]) for i, slots in enumerate(cache)]

        def one(x_BTD: jax.Array, cache: Cache, weights: Any, i: int, turn: Any) -> tuple[jax.Array, Cache]:
            def attend_slots(q_BNTH: jax.Array, k_BKTH: jax.Array, v_BKTH: jax.Array) -> tuple[jax.Array, Slots]:
                slots = write(cache[i], turn, positions_BT, k_BKTH, v_BKTH)
                return attend_heads(q_BNTH, slots.keys[turn], slots.values[turn], masks[i], cfg.attn_softcap), slots

            layer: Layer = nnx.merge(graph, weights)
            x_BTD, slots, _ = layer(x_BTD, turns[cfg.layer_windows[i]], attend_slots, positions_BT >= 0)
            return x_BTD, (*cache[:i], slots, *cache[i + 1 :])

        def one_period(carry: tuple[jax.Array, Cache], scanned: Any) -> tuple[tuple[jax.Array, Cache], None]:
            turn, weights = scanned
            for i in range(period):
                carry = one(*carry, jax.tree.map(lambda w: w[i], weights), i, turn)  # noqa: B023 - used at once
            return carry, None

        # In a loop the cache is carried, not scanned: only the new slots are written.
        carry, periods = (self._embed(tokens_BT), cache), cfg.num_layers // period if cfg.compute.scan_layers else 0
        if periods:
            split = lambda w: w[: periods * period].reshape(periods, period, *w.shape[1:])  # noqa: E731
            carry, _ = jax.lax.scan(one_period, carry, (jnp.arange(periods), jax.tree.map(split, layers_L)))
        for layer in range(periods * period, cfg.num_layers):
            weights = jax.tree.map(lambda w: w[layer], layers_L)  # noqa: B023
            carry = one(*carry, weights, layer % period, layer // period)
        return self.final_norm(carry[0]), carry[1]

    def logits(self, hidden_BTD: jax.Array) -> jax.Array:
        """Soft-capped logits [B, T, V] in float32."""
        table_VD = self.output_table.astype(hidden_BTD.dtype)
        logits_BTV = jnp.einsum("BTD,VD->BTV", hidden_BTD, table_VD, preferred_element_type=jnp.float32)
        cap = self.cfg.final_softcap
        return logits_BTV if cap is None else cap * jnp.tanh(logits_BTV / cap)

    def _embed(self, tokens_BT: jax.Array, noise_BTD: jax.Array | None = None) -> jax.Array:
        x_BTD: Any = looked_up(self.embed[...], tokens_BT, self.cfg.compute.dtype)
        if noise_BTD is not None:
            x_BTD = (x_BTD + noise_BTD).astype(x_BTD.dtype)
        if self.cfg.scale_embeddings:
            x_BTD *= jnp.asarray(self.cfg.embed_dim**0.5, x_BTD.dtype)
        return x_BTD

    def _rotations(self, positions_BT: jax.Array) -> dict[int | None, Rotation]:
        """By window: local layers may turn otherwise than global ones."""
        cfg = self.cfg
        whole = rotation(positions_BT, cfg.head_dim, cfg.rope_base, cfg.rope_scaling)
        turns = dict.fromkeys(cfg.layer_windows, whole)
        if cfg.local_rope_base is not None and cfg.local_window in turns:
            turns[cfg.local_window] = rotation(positions_BT, cfg.head_dim, cfg.local_rope_base)
        return turns

    def _through_layers(self, x: jax.Array, step: Callable[..., tuple[jax.Array, Any]]) -> tuple[jax.Array, Any]:
        """Run step(layer, x, window) over the depth; returns x and what the steps gave besides, stacked.

        With scan_layers the loop body is one period of the layer pattern, so that windows stay constants; layers
        that fill no whole period follow it.
        """
        graph, stack_L = nnx.split(self.layers)
        windows, period = self.cfg.layer_windows, len(self.cfg.layer_pattern)

        def run(x: jax.Array, weights: Any, window: int | None) -> tuple[jax.Array, Any]:
            return step(nnx.merge(graph, weights), x, window)

        def several(x: jax.Array, layers: Any, first: int, *, in_loop: bool) -> tuple[jax.Array, Any]:
            one, given = self._rematerialised(run, in_loop), []
            leaves, structure = jax.tree.flatten(layers)
            for i, own in enumerate(zip(*map(unstack, leaves), strict=True)):
                x, out = one(x, jax.tree.unflatten(structure, own), windows[first + i])
                given.append(out)
            return x, jax.tree.map(lambda *a: jnp.stack(a), *given)

        num_layers = self.layers.attention_norm.scale.shape[0]  # those of this stage
        whole = num_layers // period * period if self.cfg.compute.scan_layers else 0
        given = []
        if whole:
            periods = jax.tree.map(lambda a: a[:whole].reshape(whole // period, period, *a.shape[1:]), stack_L)
            x, out = jax.lax.scan(lambda x, layers: several(x, layers, 0, in_loop=True), x, periods)
            given.append(jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), out))
        if whole < num_layers:
            rest = jax.tree.map(lambda a: a[whole:], stack_L)
            x, out = several(x, rest, whole, in_loop=False)
            given.append(out)
        return x, jax.tree.map(lambda *a: jnp.concatenate(a), *given)

    def _rematerialised(self, run: Callable[..., Any], in_loop: bool) -> Callable[..., Any]:
        """A layer of which the backward pass keeps what the policy names; weights put together it never keeps."""
        compute, policies = self.cfg.compute, jax.checkpoint_policies
        if compute.remat != "none":
            policy = policies.save_only_these_names(*REMAT[compute.remat])
        elif parts("fsdp") > 1 or self.cfg.lora:
            policy = policies.save_anything_except_these_names(GATHERED)
        else:
            return run
        # Between the loops of the two passes nothing can be merged, so nothing has to prevent it.
        return jax.checkpoint(run, static_argnums=2, policy=policy, prevent_cse=not in_loop)
