"""Text out of a decoder: greedy and sampled continuations, log-likelihoods, and nats of whole sequences.

Shapes are rounded up so that few programs are compiled; results do not depend on how prompts are grouped, but for
the rounding of floating-point sums. Shape letters: B batch, P padded prompt, T position, S cache slot, V vocab_size.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from model.decoder import Cache, Decoder
from model.losses import token_log_probs

SHORTEST = 32  # tokens; shapes are powers of two and their one-and-a-half folds from here on


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Iterable[int] = (),
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
) -> list[list[int]]:
    """The new tokens after each prompt, up to and without the first stop id.

    Temperature 0 takes the most likely token. Otherwise row i draws with a key made of (seed, i, position), so that the
    answer to a prompt does not depend on its neighbours.
    """
    _check_prompts(model, prompts, max_new_tokens)
    graph, state = nnx.split(model)
    stops = jnp.asarray(sorted(set(stop_ids)) or [-1], jnp.int32)
    answers: list[list[int]] = [[] for _ in prompts]
    for rows in _groups([len(prompt) for prompt in prompts], batch_size):
        length = _rounded(max(len(prompts[i]) for i in rows), model.cfg.max_seq_len)
        padded = _padded([prompts[i] for i in rows], length, _rows(len(rows), batch_size))
        lengths = np.maximum(1, (padded >= 0).sum(1))
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray(_fill(rows, len(padded))))
        tokens, counts = _generate(
            graph,
            state,
            jnp.maximum(padded, 0),
            jnp.asarray(lengths, jnp.int32),
            stops,
            keys,
            jnp.float32(temperature),
            max_new_tokens=max_new_tokens,
            is_greedy=temperature == 0,
        )
        tokens, counts = np.asarray(tokens), np.asarray(counts)
        for row, i in enumerate(rows):
            answers[i] = tokens[row, : counts[row]].tolist()
    return answers


def loglikelihood(
    model: Decoder,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    *,
    batch_size: int = 16,
) -> list[tuple[float, bool]]:
    """For each pair the log-probability (nats) of the continuation after the context, and whether it is greedy."""
    pairs = [[*context, *continuation] for context, continuation in zip(contexts, continuations, strict=True)]
    for context, pair in zip(contexts, pairs, strict=True):
        if not context or len(pair) - 1 > model.cfg.max_seq_len:
            raise ValueError(
                f"A context of {len(context)} tokens with a continuation of {len(pair) - len(context)} cannot be "
                f"scored by a model of max_seq_len={model.cfg.max_seq_len}: the first token needs one before it "
                "(<bos>), and all must fit. Start contexts with <bos>, and cut long ones on the left."
            )
    scores: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    for i, log_probs, is_best in _score(model, pairs, batch_size):
        start = len(contexts[i]) - 1
        scores[i] = (float(log_probs[start:].sum(dtype=np.float64)), bool(is_best[start:].all()))
    return scores


def sequence_nats(
    model: Decoder, sequences: Sequence[Sequence[int]], *, window: int | None = None, batch_size: int = 8
) -> list[float]:
    """Negative log-likelihood in nats of each sequence given its first token (<bos>).

    A sequence longer than `window` (max_seq_len if None) is cut into windows that share one token, so that every token
    but the first is predicted exactly once.
    """
    window = window or model.cfg.max_seq_len
    pieces = [
        (i, seq[at : at + window + 1]) for i, seq in enumerate(sequences) for at in range(0, len(seq) - 1, window)
    ]
    nats = [0.0] * len(sequences)
    # Added in the order of the text, whatever the order of computing.
    parts = {
        piece: -float(lp.sum(dtype=np.float64)) for piece, lp, _ in _score(model, [p for _, p in pieces], batch_size)
    }
    for piece, (i, _) in enumerate(pieces):
        nats[i] += parts[piece]
    return nats


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """Bits that the model needs for one byte of UTF-8 text; comparable between tokenizers."""
    return nats / math.log(2) / num_bytes


def _score(
    model: Decoder, sequences: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(index, log-probabilities of tokens 1…, whether each is the most likely one) of every sequence."""
    graph, state = nnx.split(model)
    for rows in _groups([len(sequence) for sequence in sequences], batch_size):
        length = _rounded(max(len(sequences[i]) for i in rows) - 1, model.cfg.max_seq_len)
        padded = _padded([sequences[i] for i in rows], length + 1, _rows(len(rows), batch_size))
        log_probs, is_best = (np.asarray(x) for x in _token_scores(graph, state, jnp.asarray(padded)))
        for row, i in enumerate(rows):
            count = len(sequences[i]) - 1
            yield i, log_probs[row, :count], is_best[row, :count]


@partial(jax.jit, static_argnames=("graph",))
def _token_scores(graph: Any, state: Any, padded: jax.Array) -> tuple[jax.Array, jax.Array]:
    model = nnx.merge(graph, state)
    inputs_BT, targets_BT = jnp.maximum(padded[:, :-1], 0), jnp.maximum(padded[:, 1:], 0)
    positions_BT = jnp.broadcast_to(jnp.arange(inputs_BT.shape[1]), inputs_BT.shape)
    # Padding stands on the right, where causal attention never looks back at it.
    hidden_BTD = model(inputs_BT, positions_BT, jnp.ones_like(inputs_BT))
    return token_log_probs(
        hidden_BTD,
        model.output_table,
        targets_BT,
        softcap=model.cfg.final_softcap,
        chunk_tokens=model.cfg.compute.loss_chunk_tokens,
    )


@partial(jax.jit, static_argnames=("graph", "max_new_tokens", "is_greedy"))
def _generate(
    graph: Any,
    state: Any,
    prompts_BP: jax.Array,
    lengths_B: jax.Array,
    stops: jax.Array,
    keys_B: jax.Array,
    temperature: jax.Array,
    *,
    max_new_tokens: int,
    is_greedy: bool,
) -> tuple[jax.Array, jax.Array]:
    """New tokens [B, max_new_tokens] and how many of each row count."""
    model: Decoder = nnx.merge(graph, state)
    B, P = prompts_BP.shape
    rows_B = jnp.arange(B)

    def pick(hidden_BD: jax.Array, positions_B: jax.Array) -> jax.Array:
        logits_BV = model.logits(hidden_BD[:, None])[:, 0]
        if is_greedy:
            return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        draw = jax.vmap(lambda key, at, logits: jax.random.categorical(jax.random.fold_in(key, at), logits))
        return draw(keys_B, positions_B, logits_BV / temperature).astype(jnp.int32)

    positions_BP = jnp.broadcast_to(jnp.arange(P), (B, P))
    hidden_BPD, cache = model.extend(prompts_BP, positions_BP, model.empty_cache(B, P + max_new_tokens))
    first_B = pick(hidden_BPD[rows_B, lengths_B - 1], lengths_B)
    tokens = jnp.zeros((B, max_new_tokens), jnp.int32)

    def is_running(carry: tuple[Any, ...]) -> jax.Array:
        step, _, done_B, *_ = carry
        return (step < max_new_tokens) & ~jnp.all(done_B)

    def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        step, token_B, done_B, counts_B, tokens, cache = carry
        done_B |= jnp.isin(token_B, stops)
        tokens = tokens.at[:, step].set(jnp.where(done_B, 0, token_B))
        counts_B += ~done_B
        at_B = lengths_B + step
        hidden_B1D, cache = model.extend(token_B[:, None], at_B[:, None], cache)
        return step + 1, pick(hidden_B1D[:, 0], at_B + 1), done_B, counts_B, tokens, Cache(*cache)

    start = (jnp.int32(0), first_B, jnp.zeros(B, bool), jnp.zeros(B, jnp.int32), tokens, cache)
    *_, counts_B, tokens, _ = jax.lax.while_loop(is_running, advance, start)
    return tokens, counts_B


def _check_prompts(model: Decoder, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    for i, prompt in enumerate(prompts):
        if not prompt or len(prompt) + max_new_tokens > model.cfg.max_seq_len:
            raise ValueError(
                f"Prompt {i} has {len(prompt)} tokens and max_new_tokens={max_new_tokens}, but the model has "
                f"max_seq_len={model.cfg.max_seq_len}: it must see at least <bos>, and was trained on no longer "
                "sequence. Start prompts with <bos>, shorten them or ask for fewer tokens."
            )


def _groups(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in groups of like length, so that little is padding."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _rounded(length: int, longest: int) -> int:
    size = SHORTEST
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size // 3 * 4
    return max(length, min(size, longest))


def _rows(count: int, batch_size: int) -> int:
    """The batch, rounded up to a power of two at most batch_size."""
    return min(batch_size, 1 << (count - 1).bit_length()) if count > 1 else 1


def _padded(sequences: Sequence[Sequence[int]], length: int, rows: int) -> np.ndarray:
    """[rows, length] int32; -1 where there is no token."""
    padded = np.full((rows, length), -1, np.int32)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
    return padded


def _fill(rows: list[int], count: int) -> np.ndarray:
    return np.asarray(rows + [0] * (count - len(rows)), np.uint32)
