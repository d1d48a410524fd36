"""GGUF to Hugging Face: every tensor in its place, in its order, with its own rules."""

import json
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from tasks.teacher.convert import convert

EMBED, HEADS, KV_HEADS, MLP, VOCAB = 64, 4, 2, 96, 40
HEAD_DIM = EMBED // HEADS


def rotated(weight: np.ndarray, heads: int) -> np.ndarray:
    """How the writer of a GGUF file interleaves the rotary halves of a weight; written apart from our reader."""
    out = np.empty_like(weight)
    size = weight.shape[0] // heads
    for head in range(heads):
        for i in range(size // 2):
            out[head * size + 2 * i] = weight[head * size + i]
            out[head * size + 2 * i + 1] = weight[head * size + size // 2 + i]
    return out


def hugging_face_weights(arch: str, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(ml_dtypes.bfloat16).astype(np.float32)

    prefix = "model.layers.0."
    weights = {
        "model.embed_tokens.weight": random(VOCAB, EMBED),
        "model.norm.weight": random(EMBED),
        f"{prefix}input_layernorm.weight": random(EMBED),
        f"{prefix}post_attention_layernorm.weight": random(EMBED),
        f"{prefix}self_attn.q_proj.weight": random(EMBED, EMBED),
        f"{prefix}self_attn.k_proj.weight": random(KV_HEADS * HEAD_DIM, EMBED),
        f"{prefix}self_attn.v_proj.weight": random(KV_HEADS * HEAD_DIM, EMBED),
        f"{prefix}self_attn.o_proj.weight": random(EMBED, EMBED),
        f"{prefix}mlp.gate_proj.weight": random(MLP, EMBED),
        f"{prefix}mlp.up_proj.weight": random(MLP, EMBED),
        f"{prefix}mlp.down_proj.weight": random(EMBED, MLP),
    }
    if arch == "gemma3":
        weights |= {
            f"{prefix}self_attn.q_norm.weight": random(HEAD_DIM),
            f"{prefix}self_attn.k_norm.weight": random(HEAD_DIM),
            f"{prefix}pre_feedforward_layernorm.weight": random(EMBED),
            f"{prefix}post_feedforward_layernorm.weight": random(EMBED),
        }
    return weights


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(
    path: Path, arch: str, weights: dict[str, np.ndarray], extra: dict[str, np.ndarray] | None = None
) -> None:
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_block_count(1)
    writer.add_embedding_length(EMBED)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_context_length(256)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    if arch == "gemma3":
        writer.add_key_length(HEAD_DIM)
        writer.add_sliding_window(32)
    tokens = [f"t{i}" for i in range(VOCAB)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, *([1] * (VOCAB - 1))])
    writer.add_token_merges(["t 1"])
    for name in ("bos", "eos", "pad"):
        getattr(writer, f"add_{name}_token_id")({"bos": 1, "eos": 2, "pad": 2}[name])
    norms = (
        {"post_attention_layernorm": "ffn_norm"}
        if arch == "llama"
        else {
            "pre_feedforward_layernorm": "ffn_norm",
            "post_attention_layernorm": "post_attention_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        }
    )
    for name, weight in weights.items():
        bare = name.removesuffix(".weight").removeprefix("model.layers.0.")
        target = (GGUF_NAMES | norms)[bare] + ".weight"
        if name.startswith("model.layers"):
            target = f"blk.0.{target}"
        if arch == "llama" and bare in ("self_attn.q_proj", "self_attn.k_proj"):
            weight = rotated(weight, HEADS if bare.endswith("q_proj") else KV_HEADS)
        if arch == "gemma3" and "norm" in bare:
            weight = weight + 1
        writer.add_tensor(target, np.ascontiguousarray(weight, dtype=np.float32))
    for name, weight in (extra or {}).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with safe_open(path, framework="flax") as file:
        return {name: np.asarray(file.get_tensor(name), dtype=np.float32) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_every_tensor_comes_back_as_it_was(tmp_path, arch):
    weights = hugging_face_weights(arch)
    write_gguf(tmp_path / "m.gguf", arch, weights)
    convert(tmp_path / "m.gguf", tmp_path / "hf")
    found = read_safetensors(tmp_path / "hf" / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        expected = weight
        if arch == "gemma3" and "norm" in name:  # 1 + w was stored in float32
            expected = (weight + 1 - 1).astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_the_config_is_what_the_file_says(tmp_path):
    write_gguf(tmp_path / "m.gguf", "gemma3", hugging_face_weights("gemma3"))
    config = convert(tmp_path / "m.gguf", tmp_path / "hf")
    written: dict[str, Any] = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert written == config
    assert written["architectures"] == ["Gemma3ForCausalLM"]
    assert (written["num_attention_heads"], written["num_key_value_heads"], written["head_dim"]) == (
        HEADS,
        KV_HEADS,
        HEAD_DIM,
    )
    assert (written["hidden_size"], written["intermediate_size"], written["vocab_size"]) == (EMBED, MLP, VOCAB)
    assert written["rms_norm_eps"] == 1e-5
    assert written["layer_types"] == ["sliding_attention"]
    assert (written["bos_token_id"], written["eos_token_id"]) == (1, 2)
    assert "temperature" not in (tmp_path / "hf" / "generation_config.json").read_text()


def test_the_same_file_gives_the_same_bytes(tmp_path):
    write_gguf(tmp_path / "m.gguf", "llama", hugging_face_weights("llama"))
    for name in ("a", "b"):
        convert(tmp_path / "m.gguf", tmp_path / name)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_a_tensor_without_a_place_stops_the_conversion(tmp_path):
    extra = {"blk.0.attn_q.bias": np.zeros(EMBED, dtype=np.float32)}
    write_gguf(tmp_path / "m.gguf", "llama", hugging_face_weights("llama"), extra)
    with pytest.raises(ValueError, match=r"'blk.0.attn_q.bias' has no place"):
        convert(tmp_path / "m.gguf", tmp_path / "hf")


def test_an_unknown_architecture_is_refused_by_name(tmp_path):
    write_gguf(tmp_path / "m.gguf", "falcon", {})
    with pytest.raises(ValueError, match=r"architecture 'falcon', known are llama, gemma2, gemma3"):
        convert(tmp_path / "m.gguf", tmp_path / "hf")
