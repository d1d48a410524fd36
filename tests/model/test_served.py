"""A tiny model of each family, trained here, written as Hugging Face files, served by a real vLLM: the same numbers."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.config import ComputeConfig, OptimizerConfig
from model.convert import load_hf, save_hf
from model.decoder import Decoder
from model.families import FAMILIES, decoder_config
from model.generate import Completion, Request, complete
from model.loop import init_state, join_model, make_train_step
from model.losses import packed_batch
from tasks.generation.server import ROOT, SERVED_NAME, Serving, VllmServer
from tasks.tokens import TextTokenizer
from tests.tasks import tiny_model

ALLOWED = 1e-4  # nats, both sides in float32
STEPS, ROWS, LENGTH = 30, 4, 256
PROMPT, NEW = 300, 32  # tokens; every local window is 128

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not (ROOT / ".venv-vllm/bin/python").exists(), reason="no .venv-vllm: make vllm"),
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> np.ndarray:
    """Two languages, one stream of ids."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for name, data in tiny_model.tokenizer_files().items():
        (folder / name).write_bytes(data)
    tokenizer = TextTokenizer(folder)
    texts = [tiny_model.text(language, seed) for seed in range(400) for language in ("en", "ja")]
    return np.concatenate([tokenizer.document(text) for text in texts]).astype(np.int32)


@pytest.fixture(scope="module", params=[name for name, family in FAMILIES.items() if "tiny" in family.SIZES])
def trained(request, tokens, tmp_path_factory) -> Path:
    """The directory of a model after some steps; it is no longer what it was at first."""
    cfg = decoder_config(
        f"{request.param}/tiny",
        vocab_size=tiny_model.vocab_size(),
        compute=ComputeConfig(scan_layers=False, cpu_kernels=len(jax.devices()) == 1),
    )
    optimizer = OptimizerConfig(peak_lr=2e-3, total_steps=STEPS, warmup_steps=5)
    state, step = init_state(cfg, optimizer), make_train_step(cfg, optimizer)
    rng = np.random.default_rng(0)
    losses = []
    for _ in range(STEPS):
        starts = rng.integers(0, len(tokens) - LENGTH - 1, ROWS)
        state, metrics = step(state, packed_batch(np.stack([tokens[at : at + LENGTH + 1] for at in starts])))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 1
    folder = tmp_path_factory.mktemp(request.param) / "model"
    folder.mkdir()
    save_hf(join_model(cfg, state.params), folder, dtype="float32", hf_config={"eos_token_id": 1, "bos_token_id": 2})
    for name, data in tiny_model.tokenizer_files().items():
        (folder / name).write_bytes(data)
    return folder


def test_vllm_gives_our_log_probabilities_past_the_window(trained, tokens, tmp_path):
    prompts = [[2, *tokens[at : at + PROMPT - 1].tolist()] for at in (0, 5_000, 10_000)]
    serving = Serving(dtype="float32", max_seq_len=512, max_sequences=4, start_timeout_s=1800)
    with VllmServer(trained, serving, tmp_path) as server:
        answers = [asked(server.ensure(), prompt) for prompt in prompts]
    model = load_hf(trained)
    own = complete(model, [Request(prompt=prompt, max_new_tokens=NEW) for prompt in prompts])
    texts = [[*prompt, *one.tokens] for prompt, one in zip(prompts, own, strict=True)]
    told = [[*prompt_lps, *one.log_probs] for prompt_lps, one in answers]

    differences = np.abs(log_probs(model, texts) - told)
    print(
        f"{trained.parent.name}: prompt {differences[:, : PROMPT - 1].max():.1e}, answer {differences.max():.1e} nats"
    )
    assert [one.tokens for one in own] == [one.tokens for _, one in answers]
    assert differences.max() <= ALLOWED
    np.testing.assert_allclose([one.log_probs for one in own], [one.log_probs for _, one in answers], atol=ALLOWED)

    if model.cfg.local_window is not None and None in model.cfg.layer_windows:
        every = load_hf(trained, replace(model.cfg, local_window=512))
        beyond = np.abs(log_probs(every, texts) - told)[:, model.cfg.local_window :]
        assert beyond.max() > 10 * ALLOWED, "the comparison would not notice a window that is left out"


def asked(url: str, prompt: list[int]) -> tuple[list[float], Completion]:
    """Log-probabilities of the prompt after its first token, and the greedy answer with its own."""
    body = {
        "model": SERVED_NAME,
        "prompt": prompt,
        "max_tokens": NEW,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": 1,
        "prompt_logprobs": 0,
        "return_tokens_as_token_ids": True,
    }
    response = httpx.post(f"{url}/v1/completions", json=body, timeout=1200)
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    first, *rest = choice["prompt_logprobs"]
    assert first is None
    said = [int(token.removeprefix("token_id:")) for token in choice["logprobs"]["tokens"]]
    told = [one[str(token)]["logprob"] for token, one in zip(prompt[1:], rest, strict=True)]
    return told, Completion(said, choice["logprobs"]["token_logprobs"], is_stopped=False)


def log_probs(model: Decoder, texts: list[list[int]]) -> np.ndarray:
    """Of every token after the first, by one whole pass."""
    tokens_BT = jnp.asarray(texts)
    graph, state = nnx.split(model)
    return np.asarray(_log_probs(graph, state, tokens_BT))


@partial(jax.jit, static_argnums=0)
def _log_probs(graph, state, tokens_BT):
    model = nnx.merge(graph, state)
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    scores_BTV = jax.nn.log_softmax(model.logits(model(tokens_BT, positions_BT, jnp.ones_like(tokens_BT))))
    return jnp.take_along_axis(scores_BTV[:, :-1], tokens_BT[:, 1:, None], axis=2)[..., 0]
