"""How a conversation looks to a model: what the tokenizer's own chat template writes around what was said.

The template is rendered once for each order of roles, with marks where the contents stand. So any published template
works, contents never meet the template language, and what they spell never becomes a control token.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Private-use characters mark a content; the tabulator beside them is gone where the template trims.
OPEN, CLOSE, EDGE = "\ue000", "\ue001", "\x0b"
MARK = re.compile(f"({EDGE}?){OPEN}([0-9]+){CLOSE}({EDGE}?)")


@dataclass(frozen=True)
class Piece:
    """A part of a conversation: a control token, text of the template, or a message's content."""

    kind: str  # "control", "text" or "content"
    text: str = ""
    message: int = -1
    trims_left: bool = False
    trims_right: bool = False
    turn: int = 0
    """k in what the model itself must say in the k-th assistant turn, counted from 1; 0 in what it is given."""

    def filled(self, contents: Sequence[str]) -> str:
        """The text that stands here."""
        if self.kind != "content":
            return self.text
        content = contents[self.message]
        content = content.lstrip() if self.trims_left else content
        return content.rstrip() if self.trims_right else content


class ChatTemplate:
    """A chat template and the tokens it may use. Not for templates that look into the contents."""

    def __init__(self, source: str, special: dict[str, str], control: Sequence[str]):
        """`special` holds what templates call bos_token, eos_token, …; `control` all tokens that texts cannot spell."""
        self._source, self._special = source, special
        by_length = sorted((token for token in control if token), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, by_length)) or "(?!)")
        self._known: dict[tuple[tuple[str, ...], bool], tuple[Piece, ...]] = {}

    def pieces(self, roles: Sequence[str], *, asks: bool = False) -> tuple[Piece, ...]:
        """A conversation of these roles; with `asks` the header of an answer follows.

        Raises:
            ValueError: the template refuses this order of roles.
        """
        key = (tuple(roles), asks)
        if key not in self._known:
            self._known[key] = tuple(self._pieces(key[0], asks))
        return self._known[key]

    def _pieces(self, roles: tuple[str, ...], asks: bool) -> Iterator[Piece]:
        text = self._render(roles, asks)
        taught = list(self._taught(text, roles))
        at = 0
        for found in re.finditer(f"{MARK.pattern}|{self._control.pattern}", text):
            yield from _texts(text, at, found.start(), taught)
            at = found.end()
            turn = next((turn for start, stop, turn in taught if start <= found.start() < stop), 0)
            if found[2] is None:
                yield Piece("control", found[0], turn=turn)
            else:
                yield Piece("content", "", int(found[2]), not found[1], not found[3], turn)
        yield from _texts(text, at, len(text), taught)

    def _taught(self, text: str, roles: tuple[str, ...]) -> Iterator[tuple[int, int, int]]:
        """(start, stop, turn) of what the model says itself: from the header of an answer to the token that ends it."""
        turn = 0
        for i, role in enumerate(roles):
            if role != "assistant":
                continue
            turn += 1
            content = next((found for found in MARK.finditer(text) if int(found[2]) == i), None)
            if content is None:
                raise ValueError(
                    f"the chat template leaves out message {i} of roles={list(roles)}: an answer that is not in the "
                    "text cannot be learnt. Use a template that keeps every message."
                )
            given = self._render(roles[:i], asks=True) if i else ""
            end = self._control.search(text, content.end())
            yield len(given) if i and text.startswith(given) else content.start(), end.end() if end else len(text), turn

    def _render(self, roles: Sequence[str], asks: bool) -> str:
        messages = [{"role": role, "content": f"{EDGE}{OPEN}{i}{CLOSE}{EDGE}"} for i, role in enumerate(roles)]
        try:
            return self._template.render(messages=messages, add_generation_prompt=asks, **self._special)
        except TemplateError as error:
            raise ValueError(
                f"roles={list(roles)} are refused by the chat template ({error}): the model was taught no such order. "
                "Most know user, assistant, user, … only; put instructions for the system into the first user turn."
            ) from error

    @cached_property
    def _template(self) -> Any:
        # As transformers sets it up, but without today's date: the same conversation has the same tokens tomorrow.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment.globals["raise_exception"] = refuse
        return environment.from_string(self._source)


class _Generation(Extension):
    """{% generation %} … {% endgeneration %}, by which some templates say what an assistant said; we know it."""

    tags = {"generation"}  # noqa: RUF012 - as jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _texts(text: str, start: int, stop: int, taught: Sequence[tuple[int, int, int]]) -> Iterator[Piece]:
    """Text of the template, cut where something that is taught begins or ends."""
    cuts = sorted({start, stop, *(at for a, b, _ in taught for at in (a, b) if start < at < stop)})
    for a, b in pairwise(cuts):
        yield Piece("text", text[a:b], turn=next((turn for first, last, turn in taught if first <= a < last), 0))
