"""A GGUF file to a Hugging Face directory: bfloat16 safetensors, config and tokenizer, one tensor in memory at a time.

The rules were checked bit for bit against transformers' own dequantised load, for every tensor of both teachers.
"""

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np

from tasks.progress import track
from tasks.teacher.vocabulary import Metadata, tokenizer_files

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """What a GGUF architecture is in Hugging Face's terms."""

    names: dict[str, str]  # GGUF tensor name, `{}` for the layer -> ours
    config: Callable[[Metadata], dict[str, Any]]
    adjust: Callable[[str, np.ndarray, Metadata], np.ndarray]


def convert(source: Path, target: Path) -> dict[str, Any]:
    """Write `target` as a Hugging Face directory and return its config.

    Raises:
        ValueError: an architecture or a tensor that is not known here.
    """
    reader = gguf.GGUFReader(source)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    name = metadata["general.architecture"]
    if name not in ARCHITECTURES:
        raise ValueError(
            f"{source.name} holds architecture {name!r}, known are {', '.join(ARCHITECTURES)}: tensors are renamed and "
            "reordered by rules of the architecture. Add it to tasks/teacher/convert.py, or choose another teacher."
        )
    architecture = ARCHITECTURES[name]
    target.mkdir(parents=True, exist_ok=True)
    config = architecture.config(metadata)
    files = {"config.json": config, "generation_config.json": _generation_config(config), **tokenizer_files(metadata)}
    for file, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=1 if file != "tokenizer.json" else None)
        (target / file).write_text(text + "\n", encoding="utf-8")
    _write_weights(reader, architecture, metadata, target / "model.safetensors")
    return config


def _write_weights(reader: gguf.GGUFReader, architecture: Architecture, metadata: Metadata, path: Path) -> None:
    """Safetensors by hand: the header needs only shapes, so each tensor is dequantised, written and dropped."""
    plan = sorted((_rename(tensor.name, architecture), tensor) for tensor in reader.tensors)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in plan:
        size = 2 * int(tensor.n_elements)
        shape = [int(n) for n in reversed(tensor.shape)]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as out, track("convert weights", len(plan), unit="tensors") as bar:
        out.write(struct.pack("<Q", len(head)) + head)
        for name, tensor in plan:
            weight = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(header[name]["shape"])
            out.write(architecture.adjust(name, weight, metadata).astype(ml_dtypes.bfloat16).tobytes())
            bar.advance(1)


def _rename(name: str, architecture: Architecture) -> str:
    match = re.match(r"blk\.(\d+)\.(.*)", name)
    key = f"blk.{{}}.{match[2]}" if match else name
    if key not in architecture.names:
        raise ValueError(
            f"tensor {name!r} has no place in the target model: every tensor must be used, or the model would be "
            "another one without an error. Add it to the table in tasks/teacher/convert.py."
        )
    return architecture.names[key].format(match[1] if match else "")


def _generation_config(config: dict[str, Any]) -> dict[str, Any]:
    """Ids only: sampling is said in every request, never taken from a file beside the weights."""
    return {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _shared_config(metadata: Metadata, name: str, model_type: str) -> dict[str, Any]:
    arch = metadata["general.architecture"]
    heads = metadata[f"{arch}.attention.head_count"]
    embed = metadata[f"{arch}.embedding_length"]
    return {
        "architectures": [name],
        "model_type": model_type,
        "dtype": "bfloat16",
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": embed,
        "intermediate_size": metadata[f"{arch}.feed_forward_length"],
        "num_hidden_layers": metadata[f"{arch}.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata[f"{arch}.attention.head_count_kv"],
        "head_dim": metadata.get(f"{arch}.attention.key_length", embed // heads),
        "max_position_embeddings": metadata[f"{arch}.context_length"],
        "rms_norm_eps": round(metadata[f"{arch}.attention.layer_norm_rms_epsilon"], 12),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
    }


def _rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta}


def _llama_config(metadata: Metadata) -> dict[str, Any]:
    return _shared_config(metadata, "LlamaForCausalLM", "llama") | {
        "hidden_act": "silu",
        "mlp_bias": False,
        "rope_parameters": _rope(metadata["llama.rope.freq_base"]),
    }


def _llama_adjust(name: str, weight: np.ndarray, metadata: Metadata) -> np.ndarray:
    """GGUF interleaves the two rotary halves of each query and key head; Hugging Face keeps them apart."""
    heads = {"q_proj": "head_count", "k_proj": "head_count_kv"}
    key = next((count for part, count in heads.items() if part in name), None)
    if key is None:
        return weight
    count = metadata[f"llama.attention.{key}"]
    rows, cols = weight.shape
    return weight.reshape(count, rows // count // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def _gemma3_config(metadata: Metadata) -> dict[str, Any]:
    shared = _shared_config(metadata, "Gemma3ForCausalLM", "gemma3_text")
    every = 6  # five local layers, then a global one (Gemma 3 report, section 2)
    layers = range(shared["num_hidden_layers"])
    return shared | {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": shared["head_dim"],
        "sliding_window": metadata["gemma3.attention.sliding_window"],
        "layer_types": ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in layers],
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "use_bidirectional_attention": False,
        "rope_parameters": {
            "full_attention": _rope(metadata["gemma3.rope.freq_base"]),
            "sliding_attention": _rope(10_000.0),
        },
    }


def _gemma3_adjust(name: str, weight: np.ndarray, metadata: Metadata) -> np.ndarray:
    """GGUF stores 1 + w of each norm; Hugging Face stores w and adds the 1 itself."""
    return weight - 1 if name.endswith("norm.weight") else weight


_SHARED_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "blk.{}.attn_norm.weight": "model.layers.{}.input_layernorm.weight",
    "blk.{}.attn_q.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blk.{}.attn_k.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blk.{}.attn_v.weight": "model.layers.{}.self_attn.v_proj.weight",
    "blk.{}.attn_output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blk.{}.ffn_gate.weight": "model.layers.{}.mlp.gate_proj.weight",
    "blk.{}.ffn_up.weight": "model.layers.{}.mlp.up_proj.weight",
    "blk.{}.ffn_down.weight": "model.layers.{}.mlp.down_proj.weight",
}

ARCHITECTURES = {
    "llama": Architecture(
        names=_SHARED_NAMES | {"blk.{}.ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight"},
        config=_llama_config,
        adjust=_llama_adjust,
    ),
    "gemma3": Architecture(
        names=_SHARED_NAMES
        | {
            "blk.{}.attn_q_norm.weight": "model.layers.{}.self_attn.q_norm.weight",
            "blk.{}.attn_k_norm.weight": "model.layers.{}.self_attn.k_norm.weight",
            "blk.{}.ffn_norm.weight": "model.layers.{}.pre_feedforward_layernorm.weight",
            "blk.{}.post_attention_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
            "blk.{}.post_ffw_norm.weight": "model.layers.{}.post_feedforward_layernorm.weight",
        },
        config=_gemma3_config,
        adjust=_gemma3_adjust,
    ),
}
