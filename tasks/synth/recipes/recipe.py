"""What a recipe is: how a document is cut, what is asked about a piece, and what an answer must be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tasks.generation.requests import Answer, Kind, Prompt, Sampling
from tasks.synth.config import SynthConfig

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Ask:
    """What is sent to the teacher for one chunk."""

    kind: Kind
    prompt: Prompt
    sampling: Sampling


class NotKept(Exception):  # noqa: N818 - not an error: the name of a gate
    """An answer that is not kept; the argument is the name of the gate."""


@dataclass(frozen=True)
class Recipe:
    """One way to synthesise. All functions are pure.

    Attributes:
        chunks: text, config, token counter -> the pieces of one document.
        ask: chunk, config, whether the teacher is a chat model -> the request.
        accept: chunk, answer, config -> the text to keep; raises `NotKept`.
        source: prefix of the source of what it makes; the language follows it.
    """

    chunks: Callable[[str, SynthConfig, CountTokens], Iterator[str]]
    ask: Callable[[str, SynthConfig, bool], Ask]
    accept: Callable[[str, Answer, SynthConfig], str]
    source: str
