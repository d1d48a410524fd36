"""Which of four passages continues a held-out document? Accuracy by log-likelihood per byte; guessing gives 1/4.

The context is 160 characters from the middle of the document, the right answer the 48 characters that follow, the
wrong ones the same stretch of three other held-out documents of the language, drawn by a hash, so that every model
gets the same question. It can be made from any held-out text, offline.

Source: ours; the form is that of the log-likelihood tasks of EleutherAI's lm-evaluation-harness with its
length-normalised accuracy (`acc_norm`: log-likelihood divided by the bytes of the choice).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.eval.requests import Item, Likelihood, LogLikelihood, Material, Metric, Request, Settings
from tasks.eval.scorers import mean, stderr_of_mean
from tasks.inference import TextCodec

VERSION = "1"
CONTEXT_CHARS = 160
CONTINUATION_CHARS = 48
CHOICES = 4


def load(material: Material, language: str, limit: int, settings: Settings) -> list[Item]:
    """One question for each of the first `limit` documents that are long enough."""
    spans: list[tuple[str, str, str]] = []
    for row in material.documents.get(language, []):
        text = row["text"]
        start = (len(text) - CONTEXT_CHARS - CONTINUATION_CHARS) // 2
        if start >= 0:
            middle = start + CONTEXT_CHARS
            spans.append((row["id"], text[start:middle], text[middle : middle + CONTINUATION_CHARS]))
    items: list[Item] = []
    for item_id, context, right in spans[:limit]:
        others = sorted((_rank(item_id, other), text) for other, _, text in spans if other != item_id and text != right)
        choices = [text for _, text in others[: CHOICES - 1]]
        if len(choices) == CHOICES - 1:
            place = int(_rank(item_id, "place"), 16) % CHOICES
            choices.insert(place, right)
            items.append(Item(item_id, {"context": context, "choices": tuple(choices), "right": place}))
    return items


def texts(item: Item) -> list[str]:
    """The passage with its right continuation, as it stands in the document."""
    return [item.fields["context"] + item.fields["choices"][item.fields["right"]]]


def prompt(item: Item, codec: TextCodec, settings: Settings) -> list[Request] | str:
    """One request for each choice. Context and choice are tokenised apart, so that all choices see the same context."""
    context = (codec.bos_id, *codec.encode(item.fields["context"]))
    asked = [LogLikelihood(context, tuple(codec.encode(choice))) for choice in item.fields["choices"]]
    if any(len(one.context) + len(one.continuation) > settings.context_tokens for one in asked):
        return "longer_than_context"
    return list(asked)


def score(item: Item, answers: Sequence[Likelihood], codec: TextCodec, language: str) -> dict[str, Any]:
    """The chosen passage: highest log-likelihood per UTF-8 byte, the first one on a tie."""
    per_byte = [
        answer.nats / len(choice.encode()) for answer, choice in zip(answers, item.fields["choices"], strict=True)
    ]
    chosen = max(range(len(per_byte)), key=per_byte.__getitem__)
    return {
        "id": item.id,
        "right": item.fields["right"],
        "chosen": chosen,
        "is_correct": chosen == item.fields["right"],
        "nats_per_byte": json.dumps(per_byte),
    }


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Accuracy."""
    right = [float(row["is_correct"]) for row in rows]
    return [Metric("accuracy", mean(right), len(rows), stderr_of_mean(right), chance=1 / CHOICES)]


def _rank(item_id: str, other: str) -> str:
    return hashlib.sha256(f"{item_id}/{other}".encode()).hexdigest()
