"""Answers to held-out instructions, greedy, through the chat template: overlap with the teacher's answer, and manners.

Three numbers. `chrf`: character n-gram F-score against the reference answer. `stopped`: share of answers that a stop
token ended within `max_new_tokens`. `right_language`: share whose letters are mostly of the language's script. The
last two are what supervised fine-tuning teaches first, and a base model fails them.

Source: ours; chrF from Popović 2015 (W15-3049), parameters of SacreBLEU's chrF2.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.eval.requests import Generate, Generation, Item, Material, Metric, Request, Settings
from tasks.eval.scorers import chrf, in_language, mean, stderr_of_mean
from tasks.inference import TextCodec

VERSION = "1"


def load(material: Material, language: str, limit: int, settings: Settings) -> list[Item]:
    """The first `limit` held-out conversations by id; the last assistant turn is the reference."""
    items: list[Item] = []
    for row in material.instructions.get(language, [])[:limit]:
        messages = json.loads(row["messages"])
        while messages and messages[-1]["role"] != "assistant":
            messages.pop()
        if len(messages) >= 2:
            items.append(Item(row["id"], {"messages": messages[:-1], "reference": messages[-1]["content"]}))
    return items


def texts(item: Item) -> list[str]:
    """What is asked last, and the reference answer."""
    return [item.fields["messages"][-1]["content"], item.fields["reference"]]


def prompt(item: Item, codec: TextCodec, settings: Settings) -> list[Request] | str:
    """The conversation up to the reference, with the header of the assistant's turn."""
    ids = tuple(codec.chat_prompt(item.fields["messages"]))
    if len(ids) + settings.max_new_tokens > settings.context_tokens:
        return "longer_than_context"
    return [Generate(ids, settings.max_new_tokens)]


def score(item: Item, answers: Sequence[Generation], codec: TextCodec, language: str) -> dict[str, Any]:
    """The answer and its three scores."""
    (answer,) = answers
    text = codec.decode(answer.tokens)
    return {
        "id": item.id,
        "prompt": item.fields["messages"][-1]["content"],
        "answer": text,
        "reference": item.fields["reference"],
        "chrf": chrf(text, item.fields["reference"]),
        "is_stopped": answer.is_stopped,
        "is_right_language": in_language(text, language),
    }


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Means over the answers."""
    made: list[Metric] = []
    for name, column in (("chrf", "chrf"), ("stopped", "is_stopped"), ("right_language", "is_right_language")):
        values = [float(row[column]) for row in rows]
        made.append(Metric(name, mean(values), len(rows), stderr_of_mean(values)))
    return made
