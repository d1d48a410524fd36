"""From logits to the next token: the usual controls, each row with its own.

Shape letters in this file: B batch, V vocab_size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST_SEED = 2**64


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the tokens after one prompt are chosen. They apply in this order, which is that of transformers."""

    repetition_penalty: float = 1.0
    """Logits of tokens that occurred, in the prompt too, are divided by it, or multiplied where they are negative
    (CTRL, arXiv 1909.05858)."""
    temperature: float = 0.0
    """0 takes the most likely token; otherwise logits are divided by it and a token is drawn."""
    top_k: int = 0
    """Only the k most likely tokens, and those as likely as the last of them; 0 keeps all."""
    top_p: float = 1.0
    """Only the fewest tokens that together are at least this likely (nucleus sampling, arXiv 1904.09751)."""
    min_p: float = 0.0
    """Only tokens at least this fraction as likely as the most likely one (arXiv 2407.01082)."""
    seed: int = 0
    """Of the draws: the same seed, prompt and controls give the same tokens, whatever else is in the batch."""

    def __post_init__(self) -> None:
        bounds = {
            "repetition_penalty": self.repetition_penalty > 0,
            "temperature": self.temperature >= 0,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "seed": 0 <= self.seed < MOST_SEED,
        }
        wrong = [f"{name}={getattr(self, name)}" for name, is_inside in bounds.items() if not is_inside]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: repetition_penalty is above 0, temperature and top_k are 0 or more, top_p is "
                "above 0 and at most 1, min_p is from 0 to 1, a seed has 64 bits. Outside of that no token is left to "
                "choose from. Leave a control out to switch it off."
            )


GREEDY = Sampling()


class Parts(NamedTuple):
    """What the rows of a batch need at all; a program is compiled for each combination that occurs."""

    draws: bool
    sorts: bool
    penalises: bool


class Controls(NamedTuple):
    """The settings of all rows, one array each."""

    repetition_penalty: jax.Array
    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    keys: jax.Array


def stack(rows: Sequence[Sampling]) -> tuple[Parts, Controls]:
    """Settings of many rows as arrays."""
    parts = Parts(
        draws=any(row.temperature > 0 for row in rows),
        sorts=any(row.temperature > 0 and (row.top_k or row.top_p < 1) for row in rows),
        penalises=any(row.repetition_penalty != 1 for row in rows),
    )
    names = ("repetition_penalty", "temperature", "top_p", "min_p")
    floats = {name: jnp.asarray([getattr(row, name) for row in rows], jnp.float32) for name in names}
    seeds = np.asarray([divmod(row.seed, 2**32) for row in rows], np.uint32)
    return parts, Controls(
        **floats,
        top_k=jnp.asarray([min(row.top_k, 2**31 - 1) for row in rows], jnp.int32),
        keys=jax.random.wrap_key_data(jnp.asarray(seeds), impl="threefry2x32"),
    )


def choose(
    logits_BV: jax.Array, seen_BV: jax.Array | None, positions_B: jax.Array, controls: Controls, parts: Parts
) -> jax.Array:
    """The next token [B] of each row, int32. The draw depends on the row's seed and the token's position alone."""
    if seen_BV is not None:
        logits_BV = penalised(logits_BV, seen_BV, controls.repetition_penalty)
    best_B = jnp.argmax(logits_BV, axis=-1)
    if parts.draws:
        is_drawn_B = controls.temperature > 0
        logits_BV /= jnp.where(is_drawn_B, controls.temperature, 1)[:, None]
        kept_BV = filtered(logits_BV, controls, sorts=parts.sorts)
        keys_B = jax.vmap(jax.random.fold_in)(controls.keys, positions_B)
        best_B = jnp.where(is_drawn_B, jax.vmap(jax.random.categorical)(keys_B, kept_BV), best_B)
    return best_B.astype(jnp.int32)


def penalised(logits_BV: jax.Array, seen_BV: jax.Array, penalty_B: jax.Array) -> jax.Array:
    """Logits with those of tokens that occurred moved towards unlikely, for a penalty above 1."""
    penalty_B1 = penalty_B[:, None]
    return jnp.where(seen_BV, jnp.where(logits_BV < 0, logits_BV * penalty_B1, logits_BV / penalty_B1), logits_BV)


def filtered(logits_BV: jax.Array, controls: Controls, *, sorts: bool) -> jax.Array:
    """Minus infinity where top_k, top_p or min_p leave a token out. Each is a least logit, so ties stay together."""
    least_B = jnp.max(logits_BV, axis=-1) + jnp.log(controls.min_p)
    if sorts:
        V = logits_BV.shape[1]
        down_BV = -jnp.sort(-logits_BV, axis=-1)
        last_B = jnp.where(controls.top_k == 0, V, jnp.minimum(controls.top_k, V)) - 1
        kth_B1 = jnp.take_along_axis(down_BV, last_B[:, None], axis=1)
        probs_BV = jax.nn.softmax(jnp.where(down_BV >= kth_B1, down_BV, -jnp.inf), axis=-1)
        before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV  # how likely the tokens above this one are together
        # Their sum may round to 1 before the last token.
        top_p_B1 = jnp.where(controls.top_p < 1, controls.top_p, jnp.inf)[:, None]
        nucleus_BV = (before_BV < top_p_B1) & (down_BV >= kth_B1)
        least_B = jnp.maximum(least_B, jnp.min(jnp.where(nucleus_BV, down_BV, jnp.inf), axis=-1))
    return jnp.where(logits_BV >= least_B[:, None], logits_BV, -jnp.inf)
