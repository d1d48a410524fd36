"""GGUF files as llama.cpp's converter writes them, from Hugging Face's tensors; written apart from our reader."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
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
NORMS = {
    "llama": {"post_attention_layernorm": "ffn_norm"},
    "gemma": {
        "pre_feedforward_layernorm": "ffn_norm",
        "post_attention_layernorm": "post_attention_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}


def rotated(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rotary halves of each head, row by row in turn."""
    out = np.empty_like(weight)
    size = weight.shape[0] // heads
    for head in range(heads):
        for i in range(size // 2):
            out[head * size + 2 * i] = weight[head * size + i]
            out[head * size + 2 * i + 1] = weight[head * size + size // 2 + i]
    return out


def write_gguf(
    path: Path,
    arch: str,
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    *,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    extra: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Matrices are quantised as `kind`; what they are worth then is returned, in Hugging Face's order and names."""
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_key_length(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    if arch != "llama":
        writer.add_sliding_window(config["sliding_window"])
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    heads = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    worth: dict[str, np.ndarray] = {}
    for name, weight in weights.items():
        layer, bare = "", name.removesuffix(".weight")
        if bare.startswith("model.layers."):
            _, _, number, bare = bare.split(".", 3)
            layer = f"blk.{number}."
        target = f"{layer}{(NAMES | NORMS['llama' if arch == 'llama' else 'gemma'])[bare]}.weight"
        stored = np.asarray(weight, np.float32)
        if arch == "llama" and bare in heads:
            stored = rotated(stored, heads[bare])
        if arch != "llama" and "norm" in bare:
            stored = stored + 1
        packed = gguf.quantize(np.ascontiguousarray(stored), kind) if stored.ndim > 1 else stored
        writer.add_tensor(target, packed, raw_dtype=kind if stored.ndim > 1 else None)
        # Each row is quantised on its own, so it is worth the same wherever it stands.
        worth[name] = gguf.dequantize(gguf.quantize(weight, kind), kind) if stored.ndim > 1 else stored
        if arch != "llama" and "norm" in bare:
            worth[name] = stored - 1
    for name, weight in (extra or {}).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return worth
