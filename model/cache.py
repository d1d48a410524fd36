"""What a decoder keeps of the tokens it has read: keys and values, in local layers only of the last few.

Shape letters in this file: P layers at one place of the layer pattern, B batch, T tokens read at once, S slots,
K key/value heads, H head_dim.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from model.config import DecoderConfig


class Slots(NamedTuple):
    """The layers at one place of the layer pattern: one kind, so all have as many slots.

    A ring: the token at position p lies in slot p % S, where the one at p - S was.
    """

    keys: jax.Array  # [P, B, K, S, H]
    values: jax.Array
    positions: jax.Array  # [B, S]; -1 where nothing was written yet


# One for each place of the layer pattern. Layer l is entry l // period of the stacks at place l % period.
Cache = tuple[Slots, ...]


def empty_cache(cfg: DecoderConfig, batch: int, length: int, piece: int) -> Cache:
    """Room for rows of `length` tokens that are read at most `piece` at a time.

    A local layer keeps its window and the rest of a piece: the first token of a piece looks back a window from there,
    when its last one is already written.
    """

    def slots(place: int) -> Slots:
        layers, window = len(range(place, cfg.num_layers, period)), cfg.layer_windows[place]
        size = length if window is None else min(length, window + piece - 1)
        shape = (layers, batch, cfg.num_kv_heads, size, cfg.head_dim)
        zeros = jnp.zeros(shape, cfg.compute.dtype)
        return Slots(zeros, zeros, jnp.full((batch, size), -1, jnp.int32))

    period = min(len(cfg.layer_pattern), cfg.num_layers)
    return tuple(slots(place) for place in range(period))


def places(slots: Slots, positions_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows and slots of tokens, for `.at[]`. Padding, at position -1, gets a slot that is not there."""
    size = slots.positions.shape[1]
    rows_B1 = jnp.arange(positions_BT.shape[0])[:, None]
    return rows_B1, jnp.where(positions_BT < 0, size, positions_BT % size)


def claim(slots: Slots, positions_BT: jax.Array) -> Slots:
    """The slots of these tokens, theirs before any layer writes to them."""
    return slots._replace(positions=slots.positions.at[places(slots, positions_BT)].set(positions_BT, mode="drop"))


def write(slots: Slots, layer: jax.Array | int, positions_BT: jax.Array, k_BKTH: jax.Array, v_BKTH: jax.Array) -> Slots:
    """With the keys and values of these tokens in one of the layers."""
    rows_B1, slots_BT = places(slots, positions_BT)
    at = layer, rows_B1, slice(None), slots_BT
    return slots._replace(
        keys=slots.keys.at[at].set(jnp.swapaxes(k_BKTH, 1, 2), mode="drop"),
        values=slots.values.at[at].set(jnp.swapaxes(v_BKTH, 1, 2), mode="drop"),
    )


def visible(slots: Slots, positions_BT: jax.Array, window: int | None) -> jax.Array:
    """[B, T, S]: True where a token may see a slot: written, not later, and fewer than `window` tokens back."""
    distance_BTS = positions_BT[:, :, None] - slots.positions[:, None, :]
    mask_BTS = (slots.positions[:, None, :] >= 0) & (distance_BTS >= 0)
    return mask_BTS if window is None else mask_BTS & (distance_BTS < window)
