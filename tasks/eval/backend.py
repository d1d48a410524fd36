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
from model.generate import Request, complete, loglikelihood
from tasks.artifact.identity import code_digest
from tasks.eval.requests import Generate, Generation, Likelihood, LogLikelihood
from tasks.inference import TextCodec

PACKAGES = ("jax", "jaxlib", "flax", "tokenizers", "numpy")  # what a score depends on besides our own code
DTYPE = "float32"
GENERATED_ROWS = 32  # answers made side by side; a step costs about the same for few rows as for many
CHUNK_TOKENS = 512  # logits in memory at a time; on a CPU the fastest of 512, 2048


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
        compute = replace(
            cfg.compute, dtype=DTYPE, remat="none", loss_chunk_tokens=CHUNK_TOKENS, cpu_kernels=_is_one_cpu()
        )
        return cls(
            load_hf(directory, replace(cfg, compute=compute)), TextCodec(directory), context_tokens, batch_tokens
        )

    def describe(self) -> dict[str, Any]:
        """What the scores depend on besides the model."""
        return {
            "backend": "jax",
            "device": jax.devices()[0].platform,
            "kernels": "model.cpu" if self.model.cfg.compute.cpu_kernels else "xla",
            "dtype": DTYPE,
            "batch_tokens": self.batch_tokens,
            "code_digest": code_digest(("model",))[:16],
            "versions": {name: version(name) for name in PACKAGES},
        }

    def loglikelihood(self, requests: Sequence[LogLikelihood]) -> list[Likelihood]:
        answers: dict[int, Likelihood] = {}
        for longest, places in _by_length([len(one.context) + len(one.continuation) for one in requests]).items():
            scored = loglikelihood(
                self.model,
                [requests[i].context for i in places],
                [requests[i].continuation for i in places],
                batch_size=max(1, self.batch_tokens // longest),
            )
            answers |= {i: Likelihood(nats, is_greedy) for i, (nats, is_greedy) in zip(places, scored, strict=True)}
        return [answers[i] for i in range(len(requests))]

    def generate(self, requests: Sequence[Generate]) -> list[Generation]:
        asked = [
            Request(prompt=one.prompt, max_new_tokens=one.max_new_tokens, stop_ids=self.codec.stop_ids)
            for one in requests
        ]
        found = complete(self.model, asked, batch_size=GENERATED_ROWS)
        return [Generation(tuple(one.tokens), one.is_stopped) for one in found]


def _by_length(lengths: Sequence[int]) -> dict[int, list[int]]:
    """Indices by the power of two that holds their length, so that short requests share large batches."""
    classes: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        classes.setdefault(1 << max(5, (length - 1).bit_length()), []).append(i)
    return dict(sorted(classes.items()))


def _is_one_cpu() -> bool:
    """Where model/cpu.py may be used: measured 8,100 against 5,700 tokens a CPU second on the tiny student."""
    return len(jax.devices()) == 1 and jax.devices()[0].platform == "cpu"
