"""Real checkpoints of two families: the greedy tokens and the loss that transformers gives."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from flows.teachers import GEMMA3_270M, SMOLLM2
from model.convert import load_gguf, load_hf
from model.generate import generate, sequence_nats
from tasks.artifact import produce
from tasks.errors import ConfigError, HostFault
from tasks.teacher.download import fetch
from tasks.teacher.stage import TEACHER
from tests.model.test_gguf import logits, oracle

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
NEW_TOKENS = 64
JAPANESE = (
    "日本の首都は",
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "パッケージを導入するには、管理者として次の命令を実行します。",
    "春になると、山の雪が溶けて川の水が増え、",
    "この章では、設定ファイルの書き方を説明します。設定ファイルは",
)
ENGLISH = (
    "The capital of France is",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune,",
    "To install the package, run the following command as an administrator:",
    "def fibonacci(n):",
    "Water boils at a lower temperature on a mountain because",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PYTHON.exists(), reason="torch and transformers live in .venv-vllm: make vllm"),
]


@pytest.fixture(scope="module", params=["smollm2", "gemma3-270m"])
def real(request, tmp_path_factory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A checkpoint, what was asked, and what transformers answered."""
    config, bos = {"smollm2": (SMOLLM2, []), "gemma3-270m": (GEMMA3_270M, [2])}[request.param]
    folder = tmp_path_factory.mktemp("real")
    try:
        config = config.with_changes({"cache_dir": str(ROOT / ".cache" / "teachers")})
        model_dir = produce(str(folder), TEACHER, request.param, config, {}).local_dir("model")
    except (HostFault, ConfigError) as error:
        pytest.skip(f"no weights here: {error}")
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    ids = [[*bos, *tokenizer.encode(text, add_special_tokens=False).ids] for text in (*JAPANESE, *ENGLISH)]
    long = [[*bos, *tokenizer.encode("".join(texts), add_special_tokens=False).ids] for texts in (JAPANESE, ENGLISH)]
    asked = {"prompts": ids, "texts": long, "new_tokens": NEW_TOKENS}
    (folder / "spec.json").write_text(json.dumps(asked))
    command = [PYTHON, Path(__file__).with_name("hf_real.py"), model_dir, folder / "spec.json", folder / "answers.json"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1"}
    subprocess.run([str(part) for part in command], check=True, env=env)
    return model_dir, asked, json.loads((folder / "answers.json").read_text())


def test_greedy_tokens_and_loss_are_those_of_transformers(real):
    model_dir, asked, answered = real
    model = load_hf(model_dir)
    assert generate(model, asked["prompts"], max_new_tokens=NEW_TOKENS) == answered["greedy"]
    for text, nats, loss in zip(asked["texts"], sequence_nats(model, asked["texts"]), answered["loss"], strict=True):
        assert nats / (len(text) - 1) == pytest.approx(loss, abs=1e-3)


@pytest.mark.parametrize("name", ["smollm2", "gemma3-270m"])
def test_a_gguf_file_has_the_logits_of_transformers_own_loading(name, tmp_path):
    """Of the same quantised file: both dequantise it themselves, so float32 rounding is all that may differ."""
    config = {"smollm2": SMOLLM2, "gemma3-270m": GEMMA3_270M}[name]
    try:
        config = config.with_changes({"cache_dir": str(ROOT / ".cache" / "teachers")})
        file = fetch(config).gguf
    except (HostFault, ConfigError) as error:
        pytest.skip(f"no weights here: {error}")
    (tmp_path / "model.gguf").symlink_to(file)
    tokens = np.random.default_rng(0).integers(100, 40_000, 48)
    want = oracle(tmp_path / "model.gguf", tokens.tolist())
    got = logits(load_gguf(file), tokens)
    assert np.abs(want).max() > 5
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
