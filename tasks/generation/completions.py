"""A model behind an OpenAI-compatible HTTP API, as a Generator. Failures are typed, and redacted by construction."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Mapping
from typing import Any, Protocol

import httpx

from tasks.errors import HostFault
from tasks.generation.requests import Answer, Garbled, Overloaded, Rejected, Request, TimedOut, Unreachable
from tasks.redaction import redact

BODY_CHARS = 300  # of an error body that may be quoted
CONNECT_S = 10.0
CHECK_TIMEOUT_S = 5.0
BUSY = (429, 503, 529)
BROKEN = (500, 502, 504)


class Endpoint(Protocol):
    """Where the API is. A managed server may come back on another port."""

    async def url(self) -> str:
        """The base URL (without /v1) of a server that is ready.

        Raises:
            HostFault, ConfigError: there will be none.
        """
        ...

    async def model_name(self) -> str:
        """What the server calls the model."""
        ...


class GivenServer:
    """A server that someone else runs."""

    def __init__(self, url: str, api_key: str = "", patience_s: float = 120.0):
        self._url = url.rstrip("/").removesuffix("/v1")
        self._key = api_key
        self._patience_s = patience_s

    async def url(self) -> str:
        """See `Endpoint`. Waits for a server that is away for a moment."""
        until = time.monotonic() + self._patience_s
        while True:
            problem = await asyncio.to_thread(self._problem)
            if problem is None:
                return self._url
            if time.monotonic() > until:
                raise HostFault(
                    f"url={redact(self._url)} is not answered as an OpenAI-compatible server ({problem}) for "
                    f"{self._patience_s:.0f} s: a given server must be running before it is asked. Start it, correct "
                    "serving.url or the key, or leave serving.url empty to let the flow start its own; then run the "
                    "same command again: answers that came are kept."
                )
            await asyncio.sleep(2.0)

    async def model_name(self) -> str:
        """The first model the server lists."""
        return str((await asyncio.to_thread(self._models))[0]["id"])

    def _problem(self) -> str | None:
        try:
            return None if self._models() else "it lists no model"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return redact(f"{type(error).__name__}: {error}", self._key)

    def _models(self) -> list[dict[str, str]]:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        request = urllib.request.Request(f"{self._url}/v1/models", headers=headers)
        with urllib.request.urlopen(request, timeout=CHECK_TIMEOUT_S) as response:
            return list(json.load(response)["data"])


class HttpGenerator:
    """Asks one model over HTTP.

    Args:
        price: (prompt, completion) cost of a million tokens.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float,
        api_key: str = "",
        price: tuple[float, float] = (0.0, 0.0),
    ):
        self._endpoint = endpoint
        self._timeout = httpx.Timeout(timeout_s, connect=CONNECT_S)
        self._key = api_key
        self._price = price
        self._base = ""
        self._name = ""
        self._client: httpx.AsyncClient | None = None

    async def ready(self) -> None:
        """See `Generator.ready`."""
        self._base = await self._endpoint.url()
        self._name = await self._endpoint.model_name()

    async def close(self) -> None:
        """Close the connections; the endpoint stays as it is."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def generate(self, request: Request) -> Answer:
        """One HTTP request. See `Generator.generate`."""
        if self._client is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
            self._client = httpx.AsyncClient(timeout=self._timeout, limits=limits, headers=headers, trust_env=False)
        path, body = request_body(request, self._name)
        began = time.monotonic()
        try:
            response = await self._client.post(self._base + path, json=body)
        except httpx.TimeoutException as error:
            raise TimedOut(f"{type(error).__name__} after {time.monotonic() - began:.0f} s") from None
        except httpx.TransportError as error:
            raise Unreachable(redact(f"{type(error).__name__}: {error}", self._key)) from None
        if response.status_code != httpx.codes.OK:
            raise self._failure(response)
        try:
            return self._answer(request, response.json(), time.monotonic() - began)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            text = redact(response.text[:BODY_CHARS], self._key)
            raise Garbled(f"{type(error).__name__} {error} in the answer {text!r}") from None

    def _failure(self, response: httpx.Response) -> Exception:
        status = response.status_code
        message = redact(f"HTTP {status}: {response.text[:BODY_CHARS]}", self._key)
        if status in BUSY:
            return Overloaded(message, _seconds(response.headers.get("retry-after")))
        if status == httpx.codes.REQUEST_TIMEOUT:
            return TimedOut(message)
        return Unreachable(message) if status in BROKEN else Rejected(message)

    def _answer(self, request: Request, data: Mapping[str, Any], seconds: float) -> Answer:
        choice = data["choices"][0]
        usage = data["usage"]
        prompt_tokens, completion_tokens = int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0)
        text = choice["message"]["content"] if request.kind == "chat" else choice["text"]
        scored = request.kind == "score"
        return Answer(
            text="" if scored else text or "",
            finish=str(choice.get("finish_reason") or "stop"),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            seconds=round(seconds, 3),
            cost=(prompt_tokens * self._price[0] + completion_tokens * self._price[1]) / 1e6,
            logprobs=_prompt_logprobs(request, choice["prompt_logprobs"]) if scored else None,
        )


def request_body(request: Request, served_name: str) -> tuple[str, dict[str, Any]]:
    """Path and JSON body of a request."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": served_name,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.temperature > 0:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.repetition_penalty != 1.0:
        body["repetition_penalty"] = sampling.repetition_penalty
    if request.kind == "chat":
        messages = [{"role": role, "content": content} for role, content in request.prompt]  # type: ignore[misc]
        return "/v1/chat/completions", body | {"messages": messages}
    prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
    if request.kind == "score":
        body |= {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
    return "/v1/completions", body | {"prompt": prompt}


def _prompt_logprobs(request: Request, entries: list[dict[str, Any] | None]) -> tuple[float, ...]:
    """The log-probability of each prompt token after the first."""
    found: list[float] = []
    for index, entry in enumerate(entries):
        if entry is None:
            continue
        ids = request.prompt if not isinstance(request.prompt, str) else ()
        own = entry.get(str(ids[index])) if index < len(ids) else None
        found.append(float((own or next(iter(entry.values())))["logprob"]))
    return tuple(found)


def _seconds(value: str | None) -> float | None:
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None  # a date: our own backoff will do
