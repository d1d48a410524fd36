"""GGUF files: every weight in its place and order, of any part alone, and the logits of transformers' own loading."""

import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
import pytest
from flax import nnx

from model.config import DecoderConfig
from model.convert import hf_tensors, load_gguf, save_hf
from model.families import FAMILIES
from model.gguf import GgufFile
from tests.model.gguf_files import write_gguf
from tests.model.random_decoders import random_model, small_config

PYTHON = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"
# What transformers takes for granted of a GGUF file: a Llama's head_dim is embed_dim / num_heads; a Gemma scales its
# queries by 256 and has the published caps and rotary bases.
SHAPE = {"embed_dim": 32, "head_dim": 256, "num_heads": 4, "num_kv_heads": 2, "query_scale": 256**-0.5}
LLAMA = {
    "family": "llama3",
    "head_dim": 8,
    "query_scale": 8**-0.5,
    "activation": "silu",
    "attn_softcap": None,
    "final_softcap": None,
    "layer_pattern": ("global",),
    "local_window": None,
    "norm_offset": 0.0,
    "norm_eps": 1e-5,
    "post_norms": False,
    "scale_embeddings": False,
}
CONFIGS: dict[str, tuple[str, DecoderConfig]] = {
    "llama": ("llama", small_config(**(SHAPE | LLAMA), tie_embeddings=False)),
    "llama, tied": ("llama", small_config(**(SHAPE | LLAMA))),
    "gemma2": ("gemma2", small_config(**SHAPE, attn_softcap=50.0, final_softcap=30.0)),
    "gemma3": (
        "gemma3",
        small_config(
            **SHAPE,
            family="gemma3",
            num_layers=7,
            attn_softcap=None,
            final_softcap=None,
            layer_pattern=("local",) * 5 + ("global",),
            rope_base=1_000_000.0,
            local_rope_base=10_000.0,
            qk_norms=True,
        ),
    ),
}


def written(name: str, folder: Path, **options: Any) -> tuple[Path, DecoderConfig, dict[str, np.ndarray]]:
    """A GGUF file of a random model, its config, and what its tensors are worth in Hugging Face's order."""
    arch, cfg = CONFIGS[name]
    save_hf(random_model(cfg), folder / "hf", dtype="float32")
    weights = dict(hf_tensors(folder / "hf"))
    config = FAMILIES[cfg.family].to_hf_config(cfg, "float32")
    worth = write_gguf(folder / "model.gguf", arch, config, weights, **options)
    return folder / "model.gguf", cfg, worth


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[pytest.mark.slow] if kind == "Q8_0" and name != "llama" else [])
        for name in CONFIGS
        for kind in ("F32", "Q8_0")
    ],
)
def test_every_tensor_and_the_config_come_back(tmp_path, name, kind):
    path, cfg, worth = written(name, tmp_path, kind=gguf.GGMLQuantizationType[kind])
    model = load_gguf(path)
    assert model.cfg == cfg
    save_hf(model, tmp_path / "again", dtype="float32")
    found = dict(hf_tensors(tmp_path / "again"))
    assert found.keys() == worth.keys()
    for tensor, weight in worth.items():
        np.testing.assert_array_equal(found[tensor], weight, err_msg=tensor)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    path, _, worth = written("llama", tmp_path_factory.mktemp("llama"), kind=gguf.GGMLQuantizationType.Q8_0)
    return path, worth


@pytest.mark.parametrize("index", [np.s_[3:9], np.s_[4:30, 8:24], np.s_[:, :5], np.s_[:]])
@pytest.mark.parametrize("tensor", ["self_attn.q_proj", "self_attn.o_proj"])
def test_a_part_is_that_part_of_the_whole(llama, index, tensor):
    path, worth = llama
    name = f"model.layers.1.{tensor}.weight"
    np.testing.assert_array_equal(GgufFile(path).tensors[name][index], worth[name][index])


def test_a_file_that_is_cut_short_is_named(tmp_path):
    path, _, _ = written("llama", tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.gguf \([\d,]+ bytes\) is damaged or no GGUF file .* Fetch it again"):
        load_gguf(path)


def test_another_file_is_no_gguf_file(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(ValueError, match="damaged or no GGUF file"):
        GgufFile(tmp_path / "x.gguf")


def test_factors_of_long_wavelengths_are_refused_rather_than_left_out(tmp_path):
    extra = {"rope_freqs.weight": np.ones(4, np.float32)}
    path, _, _ = written("llama", tmp_path, extra=extra)
    with pytest.raises(ValueError, match=r"'rope_freqs.weight' has no place"):
        load_gguf(path)


@pytest.mark.parametrize(("name", "layers", "scalar"), [("gemma2", 46, 8), ("gemma2", 47, 256), ("gemma3", 62, 8)])
def test_only_the_largest_gemma_scales_queries_by_its_own_rule(tmp_path, name, layers, scalar):
    arch, cfg = CONFIGS[name]
    config = FAMILIES[cfg.family].to_hf_config(cfg, "float32") | {"num_hidden_layers": layers}
    embed = {"model.embed_tokens.weight": np.zeros((4, 32), np.float32)}
    write_gguf(tmp_path / "model.gguf", arch, config, embed)
    assert GgufFile(tmp_path / "model.gguf").config["query_pre_attn_scalar"] == scalar


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(not PYTHON.exists(), reason="torch and transformers live in .venv-vllm: make vllm")
@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3"])
def test_logits_equal_those_of_transformers_own_loading(tmp_path, name):
    path, _, _ = written(name, tmp_path, kind=gguf.GGMLQuantizationType.Q8_0)
    tokens = np.random.default_rng(0).integers(4, 160, 40)
    want = oracle(path, tokens.tolist())
    assert np.abs(want).max() > 1
    assert np.abs(logits(load_gguf(path), tokens) - want).max() <= 1e-4


@partial(jax.jit, static_argnums=0)
def _run(graph, state, tokens, positions):
    model = nnx.merge(graph, state)
    return model.logits(model(tokens, positions, np.ones(tokens.shape, np.int32)))


def logits(model: Any, tokens: np.ndarray) -> np.ndarray:
    """[T, V] of one segment."""
    return np.asarray(_run(*nnx.split(model), tokens[None], np.arange(len(tokens))[None])[0])


def oracle(path: Path, tokens: list[int]) -> np.ndarray:
    """Logits [T, V] by transformers."""
    (path.parent / "tokens.json").write_text(json.dumps(tokens))
    files = [path, path.parent / "tokens.json", path.parent / "logits.npy"]
    command = [PYTHON, Path(__file__).with_name("gguf_oracle.py"), *files]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1"}
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, timeout=600)
    assert run.returncode == 0, run.stderr[-3000:]
    return np.load(path.parent / "logits.npy")
