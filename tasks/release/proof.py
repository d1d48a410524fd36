"""Proof that a released directory says elsewhere what it says here: same greedy tokens, same log-probabilities.

Our decoder continues each prompt greedily; transformers (float32, eager attention) and vLLM (float32, over HTTP) must
choose the same tokens. Where a path leaves ours, our own two best logits decide: closer than TIE they are a tie that
rounding decides (the comparison of that prompt ends there, and the record says so); otherwise the release is refused.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from model.convert import load_hf
from model.decoder import Decoder
from model.generate import generate
from tasks.errors import DataFault
from tasks.inference import TextCodec

TIE = 1e-4  # logits; rounding in float32 stays below 1e-5 in all measurements (vllm-cpu.md section 4)
ALLOWED = 1e-3  # nats between the log-probabilities of two implementations in float32
ORACLE = Path(__file__).with_name("oracle.py")
ORACLE_TIMEOUT_S = 600


@dataclass(frozen=True)
class Prompt:
    """A text, or a question for the chat template, and the ids we make of it."""

    kind: str  # "text" or "chat"
    content: str
    ids: tuple[int, ...]

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.content}]


@dataclass(frozen=True)
class Continuation:
    """Our greedy tokens after a prompt, with the logits that chose each of them."""

    tokens: tuple[int, ...]
    logits_TV: np.ndarray  # noqa: N815 - shape letters: tokens, vocabulary

    @property
    def logprobs(self) -> np.ndarray:
        return log_softmax(self.logits_TV)[np.arange(len(self.tokens)), list(self.tokens)]


@dataclass(frozen=True)
class Comparison:
    """One prompt on another path. `compared` tokens have equal histories on both sides."""

    prompt: int
    kind: str
    compared: int
    tokens: int
    max_logprob_difference: float
    max_logit_difference: float | None = None
    diverged_at: int | None = None
    ours: int | None = None
    theirs: int | None = None
    margin: float | None = None  # our logit of our token minus our logit of theirs, where the paths part

    @property
    def is_tie(self) -> bool:
        return self.margin is not None and self.margin < TIE

    @property
    def is_same(self) -> bool:
        return (self.diverged_at is None or self.is_tie) and self.max_logprob_difference <= ALLOWED


def prompts_of(codec: TextCodec, texts: Sequence[str], messages: Sequence[str], longer_than: int = 0) -> list[Prompt]:
    """Texts begin with BOS; questions go through the chat template.

    With `longer_than` a last text repeats the others until it has more tokens than that: past the local window, where
    a layer that should not look back so far would show.
    """
    made = [Prompt("text", text, (codec.bos_id, *codec.encode(text))) for text in texts]
    chats = [(text, codec.chat_prompt([{"role": "user", "content": text}])) for text in messages]
    made += [Prompt("chat", text, tuple(ids)) for text, ids in chats]
    if longer_than:
        line = long = "\n".join(texts) + "\n"
        while len(codec.encode(long)) <= longer_than:
            long += line
        made.append(Prompt("text", long, (codec.bos_id, *codec.encode(long))))
    return made


def continue_natively(directory: Path, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Continuation]:
    """Greedy tokens of model.generate (KV cache), and the logits of one plain forward pass over prompt and answer.

    Raises:
        DataFault: the two disagree on a token that is not a tie.
    """
    model = load_hf(directory)
    found = generate(model, [list(prompt.ids) for prompt in prompts], max_new_tokens=max_new_tokens)
    continuations: list[Continuation] = []
    lines = _logits(model, [[*prompt.ids, *tokens] for prompt, tokens in zip(prompts, found, strict=True)])
    for prompt, tokens, line in zip(prompts, found, lines, strict=True):
        logits = line[len(prompt.ids) - 1 : len(prompt.ids) - 1 + len(tokens)]
        for at, (token, row) in enumerate(zip(tokens, logits, strict=True)):
            if row.max() - row[token] >= TIE:
                raise DataFault(
                    f"{directory}: after {prompt.content!r} the cached decoder chose token {token} at place {at}, the "
                    f"plain forward pass {int(row.argmax())} by a margin of {row.max() - row[token]:.2e}: one of them "
                    "is wrong, so nothing can be compared with them. This is a fault in model/generate.py; please "
                    "report it."
                )
        continuations.append(Continuation(tuple(tokens), logits))
    return continuations


def compare(
    index: int,
    kind: str,
    ours: Continuation,
    tokens: Sequence[int],
    logprobs: Sequence[float],
    logits_TV: np.ndarray | None = None,  # noqa: N803
) -> Comparison:
    """Tokens up to where the paths part, and the largest differences up to there (that place included for logits)."""
    pairs = zip(ours.tokens, tokens, strict=False)
    shorter = min(len(ours.tokens), len(tokens))
    parted = next((i for i, (a, b) in enumerate(pairs) if a != b), None if len(tokens) == len(ours.tokens) else shorter)
    compared = len(ours.tokens) if parted is None else parted
    differences = np.abs(ours.logprobs[:compared] - np.asarray(logprobs[:compared], np.float64))
    logit_difference = None
    if logits_TV is not None:
        same_history = min(compared + 1, len(ours.tokens), len(logits_TV))
        logit_difference = float(np.abs(ours.logits_TV[:same_history] - logits_TV[:same_history]).max())
    divergence: dict[str, Any] = {}
    if parted is not None:
        divergence["diverged_at"] = parted
        if parted < shorter:
            our_token, their_token, row = ours.tokens[parted], int(tokens[parted]), ours.logits_TV[parted]
            divergence |= {"ours": our_token, "theirs": their_token, "margin": float(row[our_token] - row[their_token])}
    return Comparison(
        prompt=index,
        kind=kind,
        compared=compared,
        tokens=len(ours.tokens),
        max_logprob_difference=float(differences.max()) if compared else 0.0,
        max_logit_difference=logit_difference,
        **divergence,
    )


def require_same(path: str, comparisons: Sequence[Comparison], prompts: Sequence[Prompt]) -> None:
    """Refuse a release that another path reads differently.

    Raises:
        DataFault: a divergence that is no tie, or log-probabilities further apart than ALLOWED.
    """
    wrong = [comparison for comparison in comparisons if not comparison.is_same]
    if wrong:
        lines = [f"  - prompt {c.prompt} ({c.kind}, {prompts[c.prompt].content[:60]!r}): {_why(c)}" for c in wrong]
        raise DataFault(
            f"{path} does not reproduce the model on {len(wrong)} of {len(comparisons)} prompts:\n"
            + "\n".join(lines)
            + f"\nA release must say elsewhere what it says here: same greedy tokens (a margin below {TIE:g} is a tie) "
            f"and log-probabilities within {ALLOWED:g} in float32. Weights, config.json or tokenizer files are "
            "converted wrongly; compare model/convert.py and model/families with that path. Nothing was released."
        )


def require_same_ids(path: str, prompt: Prompt, theirs: Sequence[int]) -> None:
    """Refuse a release whose tokenizer or chat template reads differently elsewhere.

    Raises:
        DataFault: other ids for the same text.
    """
    if list(theirs) != list(prompt.ids):
        raise DataFault(
            f"{path} makes {list(theirs)[:12]}… ({len(theirs)} ids) of the {prompt.kind} {prompt.content!r}, the "
            f"trainer {list(prompt.ids)[:12]}… ({len(prompt.ids)}): the model would be asked something else than it "
            "was trained on. tokenizer.json, tokenizer_config.json or chat_template.jinja is wrong. Nothing was "
            "released."
        )


def by_transformers(
    python: Path, directory: Path, prompts: Sequence[Prompt], ours: Sequence[Continuation], scratch: Path
) -> tuple[list[Comparison], dict[str, Any]]:
    """Compare with transformers, run by the Python of the serving environment."""
    request, answer = scratch / "oracle.json", scratch / "oracle.npz"
    asked = [
        {"ids": prompt.ids} | ({"messages": prompt.messages} if prompt.kind == "chat" else {"text": prompt.content})
        for prompt in prompts
    ]
    tokens = len(ours[0].tokens)
    request.write_text(json.dumps({"directory": str(directory), "max_new_tokens": tokens, "prompts": asked}), "utf-8")
    done = subprocess.run(
        [str(python), str(ORACLE), str(request), str(answer)],
        capture_output=True,
        text=True,
        timeout=ORACLE_TIMEOUT_S,
        env=_offline(),
        check=False,
    )
    if done.returncode:
        raise DataFault(
            f"transformers cannot read {directory} (exit {done.returncode}):\n{done.stderr.strip()[-2000:]}\n"
            "A release must load with transformers. Correct the files it names. Nothing was released."
        )
    found = np.load(answer)
    comparisons: list[Comparison] = []
    for i, (prompt, continuation) in enumerate(zip(prompts, ours, strict=True)):
        require_same_ids("transformers", prompt, found[f"ids_{i}"].tolist())
        theirs, logits = found[f"greedy_{i}"].tolist(), found[f"logits_{i}"]
        logprobs = log_softmax(logits)[np.arange(len(theirs)), theirs]
        comparisons.append(compare(i, prompt.kind, continuation, theirs, logprobs.tolist(), logits))
    return comparisons, json.loads(found["facts"].tobytes())


def by_server(base_url: str, model: str, prompts: Sequence[Prompt], ours: Sequence[Continuation]) -> list[Comparison]:
    """Compare with an OpenAI-compatible server: texts as token ids, questions through its own chat template."""
    comparisons: list[Comparison] = []
    with httpx.Client(base_url=base_url.rstrip("/"), timeout=120) as client:
        for i, (prompt, continuation) in enumerate(zip(prompts, ours, strict=True)):
            tokens, logprobs = _ask(client, model, prompt, len(continuation.tokens))
            comparisons.append(compare(i, prompt.kind, continuation, tokens, logprobs))
    return comparisons


def server_version(base_url: str) -> str:
    """What the server says it is."""
    response = httpx.get(f"{base_url}/version", timeout=30)
    return str(response.json().get("version", "")) if response.status_code == 200 else "unknown version"


def record(path: str, version: str, comparisons: Sequence[Comparison], **facts: Any) -> dict[str, Any]:
    """What proof.json keeps of one path."""
    return {
        "path": path,
        "version": version,
        "prompts": len(comparisons),
        "tokens": max(c.tokens for c in comparisons),
        "ties": sum(c.diverged_at is not None for c in comparisons),
        "max_logprob_difference": max(c.max_logprob_difference for c in comparisons),
        "max_logit_difference": max(
            (c.max_logit_difference for c in comparisons if c.max_logit_difference), default=None
        ),
        "allowed": ALLOWED,
        "tie": TIE,
        "comparisons": [asdict(c) | {"is_tie": c.is_tie} for c in comparisons],
        **facts,
    }


def log_softmax(logits_TV: np.ndarray) -> np.ndarray:  # noqa: N803
    """In float64, so that the comparison adds no rounding of its own."""
    shifted = logits_TV.astype(np.float64) - logits_TV.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _why(c: Comparison) -> str:
    parts = ""
    if c.diverged_at is not None and not c.is_tie:
        parts = f"parts at token {c.diverged_at}: ours {c.ours}, theirs {c.theirs}, margin {c.margin}; "
    return parts + f"log-probabilities differ by up to {c.max_logprob_difference:.2e}"


def _ask(client: httpx.Client, model: str, prompt: Prompt, max_tokens: int) -> tuple[list[int], list[float]]:
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_tokens_as_token_ids": True,
    }
    if prompt.kind == "chat":
        body = _post(client, "/v1/chat/completions", asked | {"messages": prompt.messages, "logprobs": True})
        steps = body["choices"][0]["logprobs"]["content"]
        pairs = [(step["token"], step["logprob"]) for step in steps]
    else:
        body = _post(client, "/v1/completions", asked | {"prompt": list(prompt.ids), "logprobs": 1})
        steps = body["choices"][0]["logprobs"]
        pairs = list(zip(steps["tokens"], steps["token_logprobs"], strict=True))
    if body["usage"]["prompt_tokens"] != len(prompt.ids):
        raise DataFault(
            f"the server read {body['usage']['prompt_tokens']} tokens from the {prompt.kind} {prompt.content!r}, the "
            f"trainer {len(prompt.ids)}: its chat template or tokenizer differs. Nothing was released."
        )
    return [int(token.removeprefix("token_id:")) for token, _ in pairs], [float(logprob) for _, logprob in pairs]


def _post(client: httpx.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    response = client.post(path, json=body)
    if response.status_code != 200:
        raise DataFault(
            f"{client.base_url}{path} answered {response.status_code}: {response.text[:500]}. A release must be "
            "served. See the server's log for the reason. Nothing was released."
        )
    return response.json()


def _logits(model: Decoder, lines: Sequence[Sequence[int]]) -> np.ndarray:
    """Logits of whole lines in one forward pass; padding stands on the right, where nothing looks back at it."""
    padded = np.zeros((len(lines), max(map(len, lines))), np.int32)
    for row, line in enumerate(lines):
        padded[row, : len(line)] = line
    graph, state = nnx.split(model)

    @jax.jit
    def forward(state: Any, tokens: jax.Array) -> jax.Array:
        decoder = nnx.merge(graph, state)
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        return decoder.logits(decoder(tokens, positions, jnp.ones_like(tokens)))

    return np.asarray(forward(state, jnp.asarray(padded)))


def _offline() -> dict[str, str]:
    return dict(os.environ) | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1", "OMP_NUM_THREADS": "2"}
