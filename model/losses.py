"""Losses as functions of a decoder and a batch; none ever holds logits of all tokens.

A batch is a dict of arrays [B, T]: tokens_BT and targets_BT (the token that follows), positions_BT (restart at 0 in
each segment), segments_BT (1, 2, … within a row; 0 is padding), weights_BT (float32; 0 leaves a target out).

Shape letters in this file: B batch, T position, C positions of one chunk, D embed_dim, V vocab_size, K words of a
teacher.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from model import cpu, vocab_parallel
from model.config import DecoderConfig
from model.decoder import Decoder
from model.moe import BATCH_AXES, RouterSums
from model.pipeline import rows_here
from model.sharding import parts, place, sum_over

BATCH_KEYS = ("tokens_BT", "targets_BT", "positions_BT", "segments_BT", "weights_BT")


class Shares(NamedTuple):
    """A distribution over a few words at each position, in place of one word that is right."""

    ids_BTK: jax.Array
    shares_BTK: jax.Array
    """Float32; they sum to one."""


def next_token_loss(
    model: Decoder,
    batch: Mapping[str, jax.Array],
    *,
    z_loss: float = 0.0,
    neftune_alpha: float = 0.0,
    num_sources: int = 0,
    teacher_weight: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sum over targets of weight x (cross entropy + z_loss x logsumexp^2), and the sums of its parts.

    Sums, not means: parts of a batch add up, whoever computes them. aux: loss_sum (cross entropy alone), z_loss_sum,
    weight_sum, correct_sum (weight of targets that are the most likely token). A mixture of experts adds the losses of
    its routers, see `router_loss`.

    With neftune_alpha the embeddings get uniform noise of alpha / sqrt(T x D), drawn for each row from its number in
    batch["noise_B1"] (NEFTune, arXiv 2310.05914).

    With num_sources S, batch["sources_BT"] says which of them each token is of, and aux has source_loss_sum and
    source_weight_sum [S]: the parts that each has in loss_sum and weight_sum.

    With teacher_weight that part of every target is the distribution of a teacher, batch["teacher_ids_BTK"] with
    batch["teacher_shares_BTK"] (which sum to one), and the rest the token of the text; the loss is the cross entropy
    with that mixture (Gemma 2's distillation, arXiv 2408.00118, has weight 1). correct_sum stays that of the text.
    """
    noise_BTD = None
    if neftune_alpha:
        noise_BTD = _neftune(batch["noise_B1"], (batch["tokens_BT"].shape[1], model.cfg.embed_dim), neftune_alpha)
    inputs = (batch["tokens_BT"], batch["positions_BT"], batch["segments_BT"], noise_BTD)
    hidden_BTD, router = model.with_router_sums(*inputs)
    targets_BT, weights_BT = rows_here((batch["targets_BT"], batch["weights_BT"]))
    sources_BT = rows_here(batch["sources_BT"]) if num_sources else None
    soft = None
    if teacher_weight:
        taught = rows_here(Shares(batch["teacher_ids_BTK"], batch["teacher_shares_BTK"]))
        soft = _mixed(taught, targets_BT, teacher_weight)
    loss, aux = cross_entropy(
        hidden_BTD,
        model.output_table,
        targets_BT,
        weights_BT.astype(jnp.float32),
        sources_BT,
        soft,
        num_sources=num_sources,
        softcap=model.cfg.final_softcap,
        z_loss=z_loss,
        chunk_tokens=model.cfg.compute.loss_chunk_tokens,
        cpu_kernels=model.cfg.compute.cpu_kernels,
    )
    if router is None:
        return loss, aux
    own_loss, own_aux = router_loss(router, model.cfg, batch)
    return loss + own_loss, aux | own_aux


def router_loss(
    sums: RouterSums, cfg: DecoderConfig, batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What the routers add to the loss of this device: means over layers and over tokens that are not padding, times
    the weight of all targets, so that they weigh as much whether or not every token is a target.

    aux: router_balance_sum, router_z_sum, without their weights. The balance is no sum over tokens: of a batch taken in
    parts (accumulation, microbatches) each part has its own.
    """
    assert cfg.moe is not None
    sums_of_batch = (jnp.sum(batch["weights_BT"].astype(jnp.float32)), jnp.sum(batch["segments_BT"] != 0))
    weights, tokens = sum_over(sums_of_batch, *BATCH_AXES)
    balance, z = (s * weights / (jnp.maximum(tokens, 1) * cfg.num_layers) for s in sums)
    loss = cfg.moe.load_balance_weight * balance + cfg.moe.z_loss_weight * z
    return loss, {"router_balance_sum": balance, "router_z_sum": z}


def _mixed(taught: Shares, targets_BT: jax.Array, weight: float) -> Shares:
    ids_BTK, shares_BTK = taught
    ids = jnp.concatenate([targets_BT[..., None], ids_BTK], axis=-1)
    own_BT1 = jnp.full((*targets_BT.shape, 1), 1 - weight, jnp.float32)
    return Shares(ids, jnp.concatenate([own_BT1, weight * shares_BTK.astype(jnp.float32)], axis=-1))


def _neftune(noise_B1: jax.Array, shape: tuple[int, int], alpha: float) -> jax.Array:
    T, D = shape
    whole = T * parts("context")  # drawn for the whole row, of which this device has T positions

    def draw(seed: jax.Array) -> jax.Array:
        size = alpha / (whole * D) ** 0.5
        noise = jax.random.uniform(jax.random.key(seed), (whole, D), minval=-size, maxval=size)
        return jax.lax.dynamic_slice_in_dim(noise, place("context") * T, T)

    return jax.vmap(draw)(noise_B1[:, 0])


def cross_entropy(
    hidden_BTD: jax.Array,
    table_VD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
    sources_BT: jax.Array | None = None,
    soft: Shares | None = None,
    *,
    softcap: float | None,
    z_loss: float = 0.0,
    chunk_tokens: int = 2048,
    cpu_kernels: bool = False,
    num_sources: int = 0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted sum of the cross entropy of soft-capped logits hidden x table, at most chunk_tokens rows at a time.

    The gradient is computed with the loss, chunk by chunk: three matrix products in all, and no logits are kept. Where
    devices share the table, `vocab_parallel` cuts the vocabulary instead of the tokens. With `soft` the entropy is that
    with these distributions, and targets only say what counts as correct. aux: see `next_token_loss`.
    """
    arrays = (hidden_BTD, targets_BT, weights_BT, soft)
    if parts("fsdp", "tensor") > 1:
        hidden_MD, *rest = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), arrays)
        found: Any = vocab_parallel.cross_entropy(hidden_MD, table_VD, *rest, softcap, z_loss, chunk_tokens)
        loss, aux = _result(found[:4])
        losses_BT = found[4]
    else:
        found = _cross_entropy(table_VD, arrays, softcap, z_loss, chunk_tokens, cpu_kernels)
        loss, aux, losses_BT = found
    if sources_BT is not None:
        is_of_SM = sources_BT.reshape(-1) == jnp.arange(num_sources)[:, None]
        weights_SM = jnp.where(is_of_SM, weights_BT.reshape(-1), 0)
        aux |= {
            "source_loss_sum": jnp.sum(weights_SM * losses_BT.reshape(-1), axis=-1),
            "source_weight_sum": jnp.sum(weights_SM, axis=-1),
        }
    return loss, aux


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _cross_entropy(table_VD, arrays, softcap, z_loss, chunk_tokens, cpu_kernels):
    """The loss and aux, and the cross entropy of each token [B, T]; only the loss has a gradient."""
    table = table_VD.astype(arrays[0].dtype)

    def step(sums, chunk):
        new, _, losses_BC = _chunk_sums(chunk, table, softcap, z_loss)
        return jax.tree.map(jnp.add, sums, new), losses_BC

    sums, losses = jax.lax.scan(step, _zeros(), _chunks(arrays, chunk_tokens))
    return *_result(sums), _together(losses, arrays[1].shape)


def _cross_entropy_fwd(table_VD, arrays, softcap, z_loss, chunk_tokens, cpu_kernels):
    B, T, D = arrays[0].shape
    table = table_VD.astype(arrays[0].dtype)

    def step(carry, chunk):
        sums, d_table = carry
        hidden_BCD, targets_BC, weights_BC, soft = chunk
        new, (capped_BCV, slope_BCV, lse_BC), losses_BC = _chunk_sums(chunk, table, softcap, z_loss)
        probs_BCV = jnp.exp(capped_BCV - lse_BC[..., None])
        d_lse_BC = weights_BC * (1 + 2 * z_loss * lse_BC)
        if soft is None:
            hit_BCV = jnp.arange(table.shape[0]) == targets_BC[..., None]
            wanted_BCV = jnp.where(hit_BCV, weights_BC[..., None], 0)
        else:
            wanted_BCV = weights_BC[..., None] * _spread(soft, table.shape[0])
        d_BCV = (probs_BCV * d_lse_BC[..., None] - wanted_BCV) * slope_BCV
        d_BCV = d_BCV.astype(hidden_BCD.dtype)
        d_hidden_BCD = jnp.einsum("BCV,VD->BCD", d_BCV, table, preferred_element_type=jnp.float32)
        d_table += _table_gradient(hidden_BCD, d_BCV, cpu_kernels)
        return (jax.tree.map(jnp.add, sums, new), d_table), (d_hidden_BCD.astype(hidden_BCD.dtype), losses_BC)

    shape = table_VD.shape[::-1] if cpu_kernels else table_VD.shape
    start = (_zeros(), jnp.zeros(shape, jnp.float32))
    (sums, d_table), (d_hidden, losses) = jax.lax.scan(step, start, _chunks(arrays, chunk_tokens))
    d_hidden_BTD = _together(d_hidden, (B, T, D))
    d_table_VD = cpu.transposed(d_table) if cpu_kernels else d_table
    return (*_result(sums), _together(losses, (B, T))), (d_hidden_BTD, d_table_VD.astype(table_VD.dtype))


def _cross_entropy_bwd(softcap, z_loss, chunk_tokens, cpu_kernels, residuals, cotangents):
    d_hidden_BTD, d_table_VD = residuals
    slope = cotangents[0]
    return d_table_VD * slope, ((d_hidden_BTD * slope).astype(d_hidden_BTD.dtype), None, None, None)


_cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)


def _spread(soft: Shares, V: int) -> jax.Array:
    """Shares where their words are, float32 [..., V]; a word that is named twice has both."""
    ids_MK, shares_MK = (x.reshape(-1, x.shape[-1]) for x in soft)
    spread_MV = jnp.zeros((ids_MK.shape[0], V), jnp.float32)
    spread_MV = spread_MV.at[jnp.arange(ids_MK.shape[0])[:, None], ids_MK].add(shares_MK)
    return spread_MV.reshape(*soft.ids_BTK.shape[:-1], V)


def token_log_probs(
    hidden_BTD: jax.Array,
    table_VD: jax.Array,
    targets_BT: jax.Array,
    *,
    softcap: float | None,
    chunk_tokens: int = 2048,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each target, float32 [B, T], and whether it is the most likely token; chunked, no gradient."""
    table = table_VD.astype(hidden_BTD.dtype)

    def step(_, chunk):
        hidden_BCD, targets_BC = chunk
        capped_BCV, _ = _logits(hidden_BCD, table, softcap)
        target_BC = jnp.take_along_axis(capped_BCV, targets_BC[..., None], axis=-1)[..., 0]
        log_prob_BC = target_BC - jax.nn.logsumexp(capped_BCV, axis=-1)
        return None, (log_prob_BC, jnp.argmax(capped_BCV, axis=-1) == targets_BC)

    _, (log_probs, is_best) = jax.lax.scan(step, None, _chunks((hidden_BTD, targets_BT), chunk_tokens))
    return _together(log_probs, targets_BT.shape), _together(is_best, targets_BT.shape)


def word_shares(
    hidden_BTD: jax.Array,
    table_VD: jax.Array,
    words: int,
    points_BT: jax.Array | None = None,
    *,
    softcap: float | None,
    chunk_tokens: int = 2048,
) -> Shares:
    """A few words that follow each position, K of them; chunked, no gradient.

    Without points the most likely ones with their probabilities, which sum to less than one. With points (uniform in
    [0, 1), one a position) K draws from the whole distribution, each with share 1 / K: an estimate of it without bias.
    The draws are systematic: they stand 1 / K apart, so that a word of probability p is drawn p K times, up to one.
    """
    table = table_VD.astype(hidden_BTD.dtype)

    def step(_, chunk):
        hidden_BCD, points_BC = chunk
        probs_BCV = jax.nn.softmax(_logits(hidden_BCD, table, softcap)[0], axis=-1)
        if points_BC is None:
            shares_BCK, ids_BCK = jax.lax.top_k(probs_BCV, words)
            return None, Shares(ids_BCK, shares_BCK)
        below_BCV = jnp.cumsum(probs_BCV, axis=-1)
        at_BCK = (points_BC[..., None] + jnp.arange(words)) / words * below_BCV[..., -1:]
        find = jax.vmap(jax.vmap(lambda below, at: jnp.searchsorted(below, at, side="right")))
        ids_BCK = jnp.minimum(find(below_BCV, at_BCK), table.shape[0] - 1).astype(jnp.int32)
        return None, Shares(ids_BCK, jnp.full(ids_BCK.shape, 1 / words, jnp.float32))

    _, found = jax.lax.scan(step, None, _chunks((hidden_BTD, points_BT), chunk_tokens))
    return Shares(*(_together(x, (*hidden_BTD.shape[:2], words)) for x in found))


def packed_batch(rows: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of rows [B, T + 1] of one segment each: every token predicts the next, all with weight 1."""
    tokens, targets = rows[:, :-1], rows[:, 1:]
    ones = np.ones(tokens.shape, np.int32)
    return {
        "tokens_BT": tokens.astype(np.int32),
        "targets_BT": targets.astype(np.int32),
        "positions_BT": np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape).copy(),
        "segments_BT": ones,
        "weights_BT": ones.astype(np.float32),
    }


def _logits(hidden_BCD: jax.Array, table_VD: jax.Array, softcap: float | None) -> tuple[jax.Array, jax.Array]:
    """Soft-capped logits and their slope to the raw ones, float32 [B, C, V]."""
    logits_BCV = jnp.einsum("BCD,VD->BCV", hidden_BCD, table_VD, preferred_element_type=jnp.float32)
    if softcap is None:
        return logits_BCV, jnp.ones((), jnp.float32)
    tanh_BCV = jnp.tanh(logits_BCV / softcap)
    return softcap * tanh_BCV, 1 - jnp.square(tanh_BCV)


def _chunk_sums(chunk: Any, table_VD: jax.Array, softcap: float | None, z_loss: float) -> Any:
    hidden_BCD, targets_BC, weights_BC, soft = chunk
    capped_BCV, slope_BCV = _logits(hidden_BCD, table_VD, softcap)
    max_BC = jnp.max(capped_BCV, axis=-1)
    shift_BC = jnp.zeros_like(max_BC) if softcap is not None and softcap <= cpu.LARGEST_UNSHIFTED else max_BC
    lse_BC = shift_BC + jnp.log(jnp.sum(jnp.exp(capped_BCV - shift_BC[..., None]), axis=-1))
    target_BC = jnp.take_along_axis(capped_BCV, targets_BC[..., None], axis=-1)[..., 0]
    wanted_BC = target_BC
    if soft is not None:
        ids_BCK, shares_BCK = soft
        wanted_BC = jnp.sum(shares_BCK * jnp.take_along_axis(capped_BCV, ids_BCK, axis=-1), axis=-1)
    sums = (
        jnp.sum(weights_BC * (lse_BC - wanted_BC)),
        jnp.sum(weights_BC * z_loss * jnp.square(lse_BC)),
        jnp.sum(weights_BC),
        jnp.sum(weights_BC * (target_BC >= max_BC)),
    )
    return sums, (capped_BCV, slope_BCV, lse_BC), lse_BC - wanted_BC


def _table_gradient(hidden_BCD: jax.Array, d_BCV: jax.Array, cpu_kernels: bool) -> jax.Array:
    """The table's gradient [V, D] from one chunk; with the CPU kernels [D, V], turned once at the end.

    No plain transpose here: XLA's CPU backend folds it into a bfloat16 product that it then cannot run.
    """
    if cpu_kernels:
        hidden_MD, d_MV = (x.reshape(-1, x.shape[-1]) for x in (hidden_BCD, d_BCV))
        return cpu.product(cpu.transposed(hidden_MD), d_MV, -1, -2)
    return jnp.einsum("BCV,BCD->VD", d_BCV, hidden_BCD, preferred_element_type=jnp.float32)


def _zeros() -> tuple[jax.Array, ...]:
    return tuple(jnp.zeros((), jnp.float32) for _ in range(4))


def _result(sums: Sequence[jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
    loss_sum, z_loss_sum, weight_sum, correct_sum = sums
    aux = {"loss_sum": loss_sum, "z_loss_sum": z_loss_sum, "weight_sum": weight_sum, "correct_sum": correct_sum}
    return loss_sum + z_loss_sum, aux


def _chunks(arrays: Any, chunk_tokens: int) -> Any:
    """[B, T, …] -> [chunks, B, C, …], padded with zeros; cut along T, because the batch is cut over devices."""
    B, T = jax.tree.leaves(arrays)[0].shape[:2]
    C = min(T, max(1, chunk_tokens // B))
    chunks = -(-T // C)

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, chunks * C - T)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(B, chunks, C, *x.shape[2:]), 1, 0)

    return jax.tree.map(cut, arrays)


def _together(chunks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `_chunks`: [chunks, B, C, …] -> [B, T, …]."""
    return jnp.moveaxis(chunks, 0, 1).reshape(shape[0], -1, *shape[2:])[:, : shape[1]]
