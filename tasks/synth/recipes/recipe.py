"""What a recipe is: how a document is cut, what is asked about a piece, and what an answer must be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydantic import Field

from tasks.config import StageConfig
from tasks.generation.requests import Answer, Kind, Prompt, Sampling

CountTokens = Callable[[str], int]


class SynthGates(StageConfig):
    """What an answer must be to be kept. A row that fails is kept in rejects/ with the name of the gate."""

    min_chars: int = Field(default=24, ge=0, description="Shortest answer, in characters (per code: lines count).")
    max_chars: int = Field(default=6000, gt=0, description="Longest answer, in characters.")
    min_grounded: float = Field(
        default=0.7, ge=0, le=1, description="Share of the answer's content words that the passage must hold."
    )
    max_copied: float = Field(
        default=0.9, ge=0, le=1, description="Share of the question that may be one run copied from the passage."
    )
    max_repeated: float = Field(
        default=0.2, ge=0, le=1, description="Share of the text that one repeated run of 10 characters may cover."
    )
    min_length_ratio: float = Field(
        default=0.5, ge=0, description="Code: rewritten length over original length, least."
    )
    max_length_ratio: float = Field(default=3.0, gt=0, description="Code: rewritten length over original length, most.")
    min_kept_names: float = Field(
        default=0.8, ge=0, le=1, description="Code: share of the names in the original that the rewrite must use."
    )
    same_code: bool = Field(
        default=True,
        description="Code: the rewrite must have the original's syntax tree, but for annotations and docstring.",
    )


class RecipeConfig(StageConfig):
    """The knobs that a recipe sees."""

    language: str = Field(description="Language of the documents and of what is written: ja, en or python.")
    chunk_tokens: int = Field(default=256, gt=0, description="Tokens of the teacher in one chunk, at most.")
    max_new_tokens: int = Field(default=160, gt=0, description="Tokens of one answer, at most.")
    gates: SynthGates = Field(default=SynthGates(), description="What an answer must be.")


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
        languages: those that its prompts and gates are written for.
    """

    chunks: Callable[[str, RecipeConfig, CountTokens], Iterator[str]]
    ask: Callable[[str, RecipeConfig, bool], Ask]
    accept: Callable[[str, Answer, RecipeConfig], str]
    source: str
    languages: tuple[str, ...]
