"""What is asked of a model and what comes back: requests with a digest, answers, dead letters, typed failures."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

Kind = Literal["chat", "completion", "score"]
Message = tuple[str, str]  # (role, content)
Prompt = str | tuple[int, ...] | tuple[Message, ...]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an answer is drawn. Temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Request:
    """One question to one model. Two requests with the same digest are the same question.

    Attributes:
        model: name and revision of the weights (`model_identity`), never a URL: where it is served does not matter.
        kind: `chat` (messages), `completion` (text or token ids), `score` (log-likelihood of a prompt's tokens).
        prompt: chat: pairs (role, content); else text, or token ids, which are sent as they are.
    """

    model: str
    kind: Kind
    prompt: Prompt
    sampling: Sampling

    def as_json(self) -> dict[str, Any]:
        """What the digest is made of."""
        return {"model": self.model, "kind": self.kind, "prompt": self.prompt, "sampling": asdict(self.sampling)}

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON form; the key of the answer store."""
        return hashlib.sha256(canonical_json(self.as_json())).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answered.

    Attributes:
        finish: `stop` (the model ended it, or a stop string did) or `length` (cut at max_tokens).
        logprobs: kind `score` only: one number for each prompt token after the first.
        cost: what it cost when it was asked, in the currency of the price in the serving config.
    """

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float = 0.0
    logprobs: tuple[float, ...] | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Answer":
        """The inverse of `dataclasses.asdict`."""
        logprobs = data.get("logprobs")
        return cls(**{**data, "logprobs": None if logprobs is None else tuple(logprobs)})


@dataclass(frozen=True)
class DeadLetter:
    """A request that was given up, and why. `reason` is a word to count by, `message` is redacted."""

    reason: str
    message: str
    attempts: int


class Failure(Exception):  # noqa: N818 - its kinds say what happened, as in tasks/errors.py
    """One attempt failed. The message never holds headers, keys or the request."""

    reason = "failed"
    retries = 0  # how often a request may be asked again after this failure
    slows_down = False  # whether fewer requests should be in flight


class Rejected(Failure):
    """The server understood the request and will never answer it (too long, malformed, forbidden)."""

    reason = "rejected"


class Overloaded(Failure):
    """The server asks for less (429, 503)."""

    reason = "overloaded"
    retries = 12
    slows_down = True

    def __init__(self, message: str, retry_after_s: float | None = None):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TimedOut(Failure):
    """No answer in time."""

    reason = "timeout"
    retries = 3
    slows_down = True


class Garbled(Failure):
    """Something came back that is not an answer of this API."""

    reason = "garbled"
    retries = 2


class Unreachable(Failure):
    """The server is gone or failed inside (connection refused or cut, 500, 502, 504)."""

    reason = "unreachable"
    retries = 4
    slows_down = True


class Generator(Protocol):
    """What answers requests."""

    async def ready(self) -> None:
        """Return when requests can be sent, starting or waiting as needed.

        Raises:
            HostFault, ConfigError: they never will be.
        """
        ...

    async def generate(self, request: Request) -> Answer:
        """One attempt at one request.

        Raises:
            Failure: of the type that says what to do next.
        """
        ...

    async def close(self) -> None:
        """Give back what `ready` took; `ready` may be called again afterwards."""
        ...


def model_identity(name: str, content_digest: str) -> str:
    """Name and revision of a model: the revision is the digest of its files, so a changed weight is another model."""
    return f"{name}@{content_digest[:16]}"


def canonical_json(value: Any) -> bytes:
    """Equal values give equal bytes."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
