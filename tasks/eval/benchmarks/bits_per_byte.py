"""How many bits the model needs for a byte of held-out text: lower is better, whatever the tokenizer.

A document's tokens are scored in windows of at most the model's context: the first one begins with BOS; each later one
keeps the last half of the context as conditioning (without BOS) and scores the next half, so that every token is
scored exactly once and, past the first window, with at least half a context before it. The end-of-text token is not
scored. The number is total nats / ln 2 / UTF-8 bytes over all documents (not the mean of per-document numbers).

Source: bits per byte of The Pile (Gao et al. 2020, arXiv 2101.00027, section 3.1); windows as in the "rolling"
log-likelihood of EleutherAI's lm-evaluation-harness.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.eval.requests import Item, Likelihood, LogLikelihood, Material, Metric, Request, Settings
from tasks.eval.scorers import stderr_of_ratio
from tasks.inference import TextCodec

VERSION = "1"


def load(material: Material, language: str, limit: int, settings: Settings) -> list[Item]:
    """The first `limit` held-out documents by id, each cut to `max_document_chars`."""
    rows = material.documents.get(language, [])[:limit]
    return [Item(row["id"], {"text": row["text"][: settings.max_document_chars]}) for row in rows]


def texts(item: Item) -> list[str]:
    """The document."""
    return [item.fields["text"]]


def prompt(item: Item, codec: TextCodec, settings: Settings) -> list[Request] | str:
    """One request for each window."""
    tokens = codec.encode(item.fields["text"])
    if not tokens:
        return "empty"
    return list(windows(tokens, codec.bos_id, settings.context_tokens))


def windows(tokens: Sequence[int], bos_id: int, context_tokens: int) -> list[LogLikelihood]:
    """Requests that score each token exactly once; context and continuation together are at most `context_tokens`."""
    first = context_tokens - 1
    made = [LogLikelihood((bos_id,), tuple(tokens[:first]))]
    keep = context_tokens // 2
    step = context_tokens - keep
    for start in range(first, len(tokens), step):
        made.append(LogLikelihood(tuple(tokens[start - keep : start]), tuple(tokens[start : start + step])))
    return made


def score(item: Item, answers: Sequence[Likelihood], codec: TextCodec, language: str) -> dict[str, Any]:
    """Nats and bytes of the document."""
    nats = -math.fsum(answer.nats for answer in answers)
    size = len(item.fields["text"].encode())
    tokens = len(codec.encode(item.fields["text"]))
    return {
        "id": item.id,
        "nats": nats,
        "bytes": size,
        "tokens": tokens,
        "bits_per_byte": nats / math.log(2) / size,
    }


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Corpus bits per byte, with a jackknife error over documents."""
    bits = [row["nats"] / math.log(2) for row in rows]
    sizes = [float(row["bytes"]) for row in rows]
    value = math.fsum(bits) / math.fsum(sizes) if rows else math.nan
    return [Metric("bits_per_byte", value, len(rows), stderr_of_ratio(bits, sizes), higher_is_better=False)]
