"""The native scoring path: our decoder on this machine's devices, in float32.

Requests are sorted by length and answered in batches of one shape each, so that few programs are compiled; answers
come back in the order of the requests. A row's numbers depend on the batch only by rounding (in the last digits).
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from model.convert import config_from_hf, load_hf
from model.decoder import Decoder
from model.generate import generate, loglikelihood
from tasks.eval.requests import Generate, Generation, Likelihood, LogLikelihood
from tasks.identity import code_digest
from tasks.inference import TextCodec

PACKAGES = ("jax", "jaxlib", "flax", "tokenizers", "numpy")  # what a score depends on besides our own code
DTYPE = "float32"


class NativeBackend:
    """A model from a Hugging Face directory, asked through model/."""

    def __init__(self, model: Decoder, codec: TextCodec, context_tokens: int, batch_tokens: int):
        self.model = model
        self.codec = codec
        self.context_tokens = context_tokens
        self.batch_tokens = batch_tokens

    @classmethod
    def open(cls, directory: Path, context_tokens: int, batch_tokens: int) -> "NativeBackend":
        """The model of a directory, its weights widened to float32."""
        cfg = config_from_hf(directory)
        cfg = replace(cfg, compute=replace(cfg.compute, dtype=DTYPE, remat="none"))
        return cls(load_hf(directory, cfg), TextCodec(directory), context_tokens, batch_tokens)

    @property
    def batch_rows(self) -> int:
        return max(1, self.batch_tokens // self.context_tokens)

    def describe(self) -> dict[str, Any]:
        """What the scores depend on besides the model."""
        return {
            "backend": "jax",
            "device": jax.devices()[0].platform,
            "dtype": DTYPE,
            "batch_rows": self.batch_rows,
            "code_digest": code_digest(("model",))[:16],
            "versions": {name: version(name) for name in PACKAGES},
        }

    def loglikelihood(self, requests: Sequence[LogLikelihood]) -> list[Likelihood]:
        scored = loglikelihood(
            self.model,
            [request.context for request in requests],
            [request.continuation for request in requests],
            batch_size=self.batch_rows,
        )
        return [Likelihood(nats, is_greedy) for nats, is_greedy in scored]

    def generate(self, requests: Sequence[Generate]) -> list[Generation]:
        answers: dict[int, Generation] = {}
        for limit in sorted({request.max_new_tokens for request in requests}):
            places = [i for i, request in enumerate(requests) if request.max_new_tokens == limit]
            found = generate(
                self.model,
                [requests[i].prompt for i in places],
                max_new_tokens=limit,
                stop_ids=self.codec.stop_ids,
                batch_size=self.batch_rows * 4,  # one token a row and step: rows are cheap
            )
            # `generate` leaves the stop token out, so a full answer is one that was cut.
            answers |= {i: Generation(tuple(ids), len(ids) < limit) for i, ids in zip(places, found, strict=True)}
        return [answers[i] for i in range(len(requests))]
