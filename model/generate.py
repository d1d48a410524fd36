"""Text out of a decoder: continuations, log-likelihoods, nats of whole sequences, and the words it would put next.

All in token ids: stop strings and the like belong to who has the tokenizer.

Shapes are rounded up so that few programs are compiled; results do not depend on how prompts are grouped, but for
the rounding of floating-point sums. Shape letters: B batch, P padded prompt, T position, S cache slot, V vocab_size.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from model.cache import Cache, empty_cache
from model.decoder import Decoder
from model.losses import token_log_probs, word_shares
from model.sampling import GREEDY, Controls, Parts, Sampling, choose, stack

SHORTEST = 32  # tokens; shapes are powers of two and their one-and-a-half folds from here on
PREFILL_TOKENS = 256  # of a prompt, read at a time: bounds the memory of attention and of local layers


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and what is wanted after it."""

    prompt: Sequence[int]
    max_new_tokens: int
    stop_ids: Iterable[int] = ()
    sampling: Sampling = GREEDY


class Completion(NamedTuple):
    """What follows a prompt, up to and without the first stop id."""

    tokens: list[int]
    log_probs: list[float]
    """Of each token (nats) under the model itself, before any control changed its logits."""
    is_stopped: bool
    """By a stop id; otherwise max_new_tokens cut it off."""


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Iterable[int] = (),
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
    prefill_tokens: int = PREFILL_TOKENS,
) -> list[list[int]]:
    """The new tokens after each prompt. Temperature 0 takes the most likely ones; otherwise each row draws its own."""
    requests = [
        Request(
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            stop_ids=tuple(stop_ids),
            sampling=Sampling(temperature=temperature, seed=(seed << 32) + i),
        )
        for i, prompt in enumerate(prompts)
    ]
    return [
        completion.tokens
        for completion in complete(model, requests, batch_size=batch_size, prefill_tokens=prefill_tokens)
    ]


def complete(
    model: Decoder, requests: Sequence[Request], *, batch_size: int = 32, prefill_tokens: int = PREFILL_TOKENS
) -> list[Completion]:
    """What follows each prompt. Requests of any kind may be mixed: none depends on its neighbours."""
    _check(model, requests)
    graph, state = nnx.split(model)
    longest = model.cfg.max_seq_len
    completions = [Completion([], [], is_stopped=False)] * len(requests)
    for rows in _groups([len(request.prompt) for request in requests], batch_size):
        asked = [requests[i] for i in rows]
        asked += asked[:1] * (_rows(len(rows), batch_size) - len(rows))
        pieces, piece = _pieces(_rounded(max(len(one.prompt) for one in asked), longest), prefill_tokens)
        parts, controls = stack([one.sampling for one in asked])
        stops = [sorted(set(one.stop_ids)) for one in asked]
        found = _complete(
            graph,
            state,
            jnp.asarray(_padded([one.prompt for one in asked], pieces * piece, len(asked))),
            jnp.asarray([one.max_new_tokens for one in asked], jnp.int32),
            jnp.asarray(_padded(stops, _rounded(max(map(len, stops)), longest), len(asked))),
            controls,
            parts=parts,
            piece=piece,
            room=_rounded(max(one.max_new_tokens for one in asked), longest),
            length=_rounded(max(len(one.prompt) + one.max_new_tokens for one in asked), longest),
        )
        tokens, log_probs, counts, is_stopped = (np.asarray(x) for x in found)
        for row, i in enumerate(rows):
            upto = slice(counts[row])
            completions[i] = Completion(
                tokens[row, upto].tolist(), log_probs[row, upto].tolist(), bool(is_stopped[row])
            )
    return completions


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


def next_words(
    model: Decoder,
    sequences: Sequence[Sequence[int]],
    words: int,
    *,
    seeds: Sequence[int] | None = None,
    window: int | None = None,
    batch_size: int = 8,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """After each token of a sequence but the last, K words with their shares: int32 and float32 [tokens - 1, K].

    Without seeds the most likely words with their probabilities; with a seed for each sequence K draws with share
    1 / K (see `losses.word_shares`). Longer sequences are cut as by `sequence_nats`.
    """
    window = window or model.cfg.max_seq_len
    pieces = [(i, at) for i, seq in enumerate(sequences) for at in range(0, len(seq) - 1, window)]
    texts = [sequences[i][at : at + window + 1] for i, at in pieces]
    graph, state = nnx.split(model)
    found: list[Any] = [None] * len(pieces)
    for rows in _groups([len(text) for text in texts], batch_size):
        length = _rounded(max(len(texts[i]) for i in rows) - 1, model.cfg.max_seq_len)
        count = _rows(len(rows), batch_size)
        padded = _padded([texts[i] for i in rows], length + 1, count)
        keys = None
        if seeds is not None:
            own = [(seeds[pieces[i][0]], pieces[i][1]) for i in rows]
            keys = jnp.asarray(np.array(own + [(0, 0)] * (count - len(rows)), np.uint32))
        ids, shares = (np.asarray(x) for x in _next_words(graph, state, jnp.asarray(padded), keys, words))
        for row, i in enumerate(rows):
            here = slice(0, len(texts[i]) - 1)
            found[i] = ids[row, here], shares[row, here]
    own_pieces: list[list[Any]] = [[] for _ in sequences]
    for (i, _), one in zip(pieces, found, strict=True):
        own_pieces[i].append(one)
    empty = [(np.zeros((0, words), np.int32), np.zeros((0, words), np.float32))]
    parts = [zip(*(one or empty), strict=True) for one in own_pieces]
    return [(np.concatenate(ids), np.concatenate(shares)) for ids, shares in parts]


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


@partial(jax.jit, static_argnames=("graph", "words"))
def _next_words(graph: Any, state: Any, padded: jax.Array, keys_B2: jax.Array | None, words: int) -> Any:
    model = nnx.merge(graph, state)
    inputs_BT = jnp.maximum(padded[:, :-1], 0)
    positions_BT = jnp.broadcast_to(jnp.arange(inputs_BT.shape[1]), inputs_BT.shape)
    hidden_BTD = model(inputs_BT, positions_BT, jnp.ones_like(inputs_BT))
    points_BT = None
    if keys_B2 is not None:
        # By place in the text, so that neither padding nor neighbours change a draw.
        own = jax.vmap(lambda key, at: jax.random.fold_in(jax.random.key(key[0]), key[1] + at), in_axes=(None, 0))
        points_BT = jax.vmap(jax.vmap(jax.random.uniform))(jax.vmap(own)(keys_B2, positions_BT))
    return word_shares(
        hidden_BTD,
        model.output_table,
        words,
        points_BT,
        softcap=model.cfg.final_softcap,
        chunk_tokens=model.cfg.compute.loss_chunk_tokens,
    )


class _Rows(NamedTuple):
    """The rows of a batch while they grow."""

    step: jax.Array
    newest: jax.Array  # [B], not yet read
    running: jax.Array  # [B]: neither stopped nor at its limit
    is_stopped: jax.Array
    counts: jax.Array
    tokens: jax.Array  # [B, room]
    log_probs: jax.Array
    seen: jax.Array | None  # [B, V], where a repetition is penalised
    cache: Cache


@partial(jax.jit, static_argnames=("graph", "parts", "piece", "room", "length"))
def _complete(
    graph: Any,
    state: Any,
    prompts_BP: jax.Array,
    limits_B: jax.Array,
    stops_BX: jax.Array,
    controls: Controls,
    *,
    parts: Parts,
    piece: int,
    room: int,
    length: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """New tokens [B, room], their log-probabilities, how many of each row count, and whether a stop id ended it."""
    model: Decoder = nnx.merge(graph, state)
    B, P = prompts_BP.shape
    rows_B = jnp.arange(B)
    lengths_B = jnp.sum(prompts_BP >= 0, axis=1)

    def read(carry: tuple[jax.Array, Cache], tokens_BT: jax.Array) -> tuple[tuple[jax.Array, Cache], jax.Array]:
        """A piece of all prompts, and the hidden states of those that end in it."""
        first, cache = carry
        positions_BT = jnp.where(tokens_BT >= 0, first + jnp.arange(piece), -1)
        hidden_BTD, cache = model.extend(jnp.maximum(tokens_BT, 0), positions_BT, cache)
        is_last_BT = positions_BT == lengths_B[:, None] - 1
        return (first + piece, cache), jnp.sum(jnp.where(is_last_BT[..., None], hidden_BTD, 0), axis=1)

    pieces = jnp.moveaxis(prompts_BP.reshape(B, P // piece, piece), 1, 0)
    start = (jnp.int32(0), empty_cache(model.cfg, B, length, piece))
    (_, cache), ends = jax.lax.scan(read, start, pieces)

    def grow(rows: _Rows, hidden_BD: jax.Array, cache: Cache) -> _Rows:
        """Each running row by the token that its last hidden state asks for."""
        logits_BV = model.logits(hidden_BD[:, None])[:, 0]
        token_B = choose(logits_BV, rows.seen, lengths_B + rows.step, controls, parts)
        log_prob_B = logits_BV[rows_B, token_B] - jax.nn.logsumexp(logits_BV, axis=-1)
        ends_B = rows.running & jnp.any(token_B[:, None] == stops_BX, axis=1)
        takes_B = rows.running & ~ends_B
        counts_B = rows.counts + takes_B
        return _Rows(
            step=rows.step + 1,
            newest=token_B,
            running=takes_B & (counts_B < limits_B),
            is_stopped=rows.is_stopped | ends_B,
            counts=counts_B,
            tokens=rows.tokens.at[:, rows.step].set(token_B),
            log_probs=rows.log_probs.at[:, rows.step].set(log_prob_B),
            seen=None if rows.seen is None else rows.seen.at[rows_B, token_B].max(takes_B),
            cache=cache,
        )

    def advance(rows: _Rows) -> _Rows:
        positions_B = jnp.where(rows.running, lengths_B + rows.step - 1, -1)
        hidden_B1D, cache = model.extend(rows.newest[:, None], positions_B[:, None], rows.cache)
        return grow(rows, hidden_B1D[:, 0], cache)

    seen_BV = None
    if parts.penalises:
        V = model.cfg.vocab_size
        seen_BV = (
            jnp.zeros((B, V), bool).at[rows_B[:, None], jnp.where(prompts_BP < 0, V, prompts_BP)].set(True, mode="drop")
        )
    none_B = jnp.zeros(B, jnp.int32)
    empty = _Rows(
        step=jnp.int32(0),
        newest=none_B,
        running=limits_B > 0,
        is_stopped=none_B > 0,
        counts=none_B,
        tokens=jnp.zeros((B, room), jnp.int32),
        log_probs=jnp.zeros((B, room), jnp.float32),
        seen=seen_BV,
        cache=cache,
    )
    rows = grow(empty, jnp.sum(ends, axis=0), cache)
    rows = jax.lax.while_loop(lambda rows: jnp.any(rows.running), advance, rows)
    return rows.tokens, rows.log_probs, rows.counts, rows.is_stopped


def _check(model: Decoder, requests: Sequence[Request]) -> None:
    for i, one in enumerate(requests):
        if not one.prompt or len(one.prompt) + one.max_new_tokens > model.cfg.max_seq_len:
            raise ValueError(
                f"Prompt {i} has {len(one.prompt)} tokens and max_new_tokens={one.max_new_tokens}, but the model has "
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


def _pieces(length: int, most: int) -> tuple[int, int]:
    """How many pieces of how many tokens a padded prompt is read in; all of one size, so it may grow by a few."""
    count = -(-length // most)
    return count, -(-length // count)


def _rows(count: int, batch_size: int) -> int:
    """The batch, rounded up to a power of two at most batch_size."""
    return min(batch_size, 1 << (count - 1).bit_length()) if count > 1 else 1


def _padded(sequences: Sequence[Sequence[int]], length: int, rows: int) -> np.ndarray:
    """[rows, length] int32; -1 where there is no token."""
    padded = np.full((rows, length), -1, np.int32)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
    return padded
