"""What a benchmark asks of a model, and what it gets back: the interface between benchmarks and scoring paths.

A scoring path (`Backend`) answers two kinds of requests. The native JAX path is in backend.py; a served one needs only
the same two methods, and the two can then be compared on a small set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tasks.inference import TextCodec


@dataclass(frozen=True)
class LogLikelihood:
    """How probable is `continuation` after `context`? Token ids; the context is not empty (it holds BOS at least)."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True)
class Generate:
    """Continue `prompt` greedily up to `max_new_tokens`, or until one of the codec's stop tokens."""

    prompt: tuple[int, ...]
    max_new_tokens: int


Request = LogLikelihood | Generate


@dataclass(frozen=True)
class Likelihood:
    """Answer to LogLikelihood: natural logarithm of the probability, and whether greedy decoding would say the same."""

    nats: float
    is_greedy: bool


@dataclass(frozen=True)
class Generation:
    """Answer to Generate: the new tokens without the stop token, and whether a stop token ended them."""

    tokens: tuple[int, ...]
    is_stopped: bool


Answer = Likelihood | Generation


@dataclass(frozen=True)
class Item:
    """One question of a benchmark. `fields` holds what its `prompt` and `score` need."""

    id: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """One number of a benchmark: `n` items, standard error where it is defined."""

    name: str
    value: float
    n: int
    stderr: float | None = None
    chance: float | None = None  # what guessing gives
    higher_is_better: bool = True


@dataclass(frozen=True)
class Settings:
    """What the run decides for all benchmarks."""

    context_tokens: int  # longest input of the model
    max_new_tokens: int
    max_document_chars: int


@dataclass(frozen=True)
class Material:
    """What benchmarks are built from: held-out documents and instruction rows by language, in order of id."""

    documents: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    instructions: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


class Benchmark(Protocol):
    """A module of benchmarks/: it loads items, asks, scores each item, and sums up."""

    @property
    def VERSION(self) -> str:  # noqa: N802 - a module constant, bumped when a score changes its meaning
        ...

    def load(self, material: Material, language: str, limit: int, settings: Settings) -> list[Item]:
        """At most `limit` items, the same ones for every model."""
        ...

    def texts(self, item: Item) -> list[str]:
        """What of an item must not be trained on; decontamination looks for it."""
        ...

    def prompt(self, item: Item, codec: TextCodec, settings: Settings) -> list[Request] | str:
        """The requests of an item, or the reason why it cannot be asked."""
        ...

    def score(self, item: Item, answers: Sequence[Any], codec: TextCodec, language: str) -> dict[str, Any]:
        """The item's row: plain values; an `answer` and `reference` are kept as a sample of generations."""
        ...

    def summarize(self, rows: Sequence[Mapping[str, Any]]) -> list[Metric]:
        """The numbers of all rows."""
        ...


class Backend(Protocol):
    """A scoring path: the same model, one way of computing."""

    codec: TextCodec
    context_tokens: int

    def describe(self) -> dict[str, Any]:
        """What a score depends on besides the model: backend, dtype, batch, versions."""
        ...

    def loglikelihood(self, requests: Sequence[LogLikelihood]) -> list[Likelihood]: ...

    def generate(self, requests: Sequence[Generate]) -> list[Generation]: ...
