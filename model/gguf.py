"""GGUF files of llama.cpp, read as the Hugging Face checkpoint they were made from: its config, names and weights.

Weights are dequantised a part at a time. The rules were checked bit for bit against transformers' own dequantised load.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Metadata = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """What a GGUF architecture is in Hugging Face's terms."""

    names: dict[str, str]
    """GGUF tensor name, `{}` for the layer -> Hugging Face's."""
    config: Callable[[Metadata], dict[str, Any]]
    """What its config.json says beyond the shape."""
    interleaves: bool = False
    """The two rotary halves of each query and key head lie row by row in turn; Hugging Face keeps them apart."""
    norm_offset: float = 0.0
    """Added to norm weights in the file, where Hugging Face adds it in the computation."""


@dataclass(frozen=True)
class _Quantised:
    path: Path
    offset: int
    kind: gguf.GGMLQuantizationType
    shape: tuple[int, ...]
    heads: int | None
    """Whose rotary halves are interleaved; None if none are."""
    norm_offset: float

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, *columns = index if isinstance(index, tuple) else (index,)
        packed = np.memmap(self.path, np.uint8, "r", self.offset, gguf.quant_shape_to_byte_shape(self.shape, self.kind))
        if self.heads is not None:
            order = np.arange(self.shape[0]).reshape(self.heads, -1, 2).swapaxes(1, 2).reshape(-1)
            packed = packed[order[rows]]
        elif len(self.shape) > 1:
            packed = packed[rows]
        weight = gguf.dequantize(np.ascontiguousarray(packed), self.kind)
        weight = weight[rows] if len(self.shape) == 1 else weight[:, *columns]
        return weight - np.float32(self.norm_offset) if self.norm_offset else weight


class GgufFile:
    """One file: `config` is what config.json of the original says of its shape, `tensors` are by its names.

    Raises:
        ValueError: a damaged file; an architecture, or a tensor, that is not known here.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        try:
            reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(
                f"{path} ({path.stat().st_size:,} bytes) is damaged or no GGUF file ({error}): its header promises "
                "more or other bytes than are there. Fetch it again and compare its checksum with the source's."
            ) from error
        self.metadata: Metadata = {name: field.contents() for name, field in reader.fields.items()}
        name = self.metadata["general.architecture"]
        if name not in ARCHITECTURES:
            raise ValueError(
                f"{path.name} holds architecture {name!r}, known are {', '.join(ARCHITECTURES)}: tensors are renamed "
                "and reordered by rules of the architecture. Choose another model, or add it to model/gguf.py."
            )
        architecture = ARCHITECTURES[name]
        heads = {"attn_q.weight": "head_count", "attn_k.weight": "head_count_kv"} if architecture.interleaves else {}
        self.tensors: dict[str, _Quantised] = {}
        for tensor in reader.tensors:
            count = heads.get(tensor.name.split(".", 2)[-1])
            self.tensors[_rename(tensor.name, architecture)] = _Quantised(
                path,
                int(tensor.data_offset),
                tensor.tensor_type,
                tuple(int(n) for n in reversed(tensor.shape)),
                heads=None if count is None else self.metadata[f"{name}.attention.{count}"],
                norm_offset=architecture.norm_offset if tensor.name.endswith("norm.weight") else 0.0,
            )
        self.config = _shape(self.metadata, self.tensors) | architecture.config(self.metadata)


def _rename(name: str, architecture: Architecture) -> str:
    match = re.match(r"blk\.(\d+)\.(.*)", name)
    key = f"blk.{{}}.{match[2]}" if match else name
    if key not in architecture.names:
        raise ValueError(
            f"tensor {name!r} has no place in the target model: every tensor must be used, or the model would be "
            "another one without an error. Choose another model, or add it to the table in model/gguf.py."
        )
    return architecture.names[key].format(match[1] if match else "")


def _shape(metadata: Metadata, tensors: dict[str, _Quantised]) -> dict[str, Any]:
    arch = metadata["general.architecture"]
    heads, embed = metadata[f"{arch}.attention.head_count"], metadata[f"{arch}.embedding_length"]
    return {
        "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
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
        "tie_word_embeddings": "lm_head.weight" not in tensors,
    }


def _rope(metadata: Metadata, default: float) -> dict[str, Any]:
    arch = metadata["general.architecture"]
    theta = metadata.get(f"{arch}.rope.freq_base", default)
    kind = metadata.get(f"{arch}.rope.scaling.type", "none")
    if kind == "none":
        return {"rope_type": "default", "rope_theta": theta}
    return {"rope_type": kind, "rope_theta": theta, "factor": metadata[f"{arch}.rope.scaling.factor"]}


def _llama(metadata: Metadata) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "mlp_bias": False,
        "rope_parameters": _rope(metadata, 10_000.0),
    }


def _gemma(metadata: Metadata, largest: int, caps: tuple[float | None, float | None]) -> dict[str, Any]:
    """What both Gemmas say; `caps` stand in for soft caps that the file leaves out.

    Only the largest, known by its number of layers, scales queries by embed_dim / num_heads: llama.cpp's rule too.
    """
    arch = metadata["general.architecture"]
    heads, embed = metadata[f"{arch}.attention.head_count"], metadata[f"{arch}.embedding_length"]
    is_largest = metadata[f"{arch}.block_count"] == largest
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": embed // heads if is_largest else metadata[f"{arch}.attention.key_length"],
        "sliding_window": metadata[f"{arch}.attention.sliding_window"],
        "attn_logit_softcapping": metadata.get(f"{arch}.attn_logit_softcapping", caps[0]),
        "final_logit_softcapping": metadata.get(f"{arch}.final_logit_softcapping", caps[1]),
        "use_bidirectional_attention": False,
    }


def _layer_types(metadata: Metadata, every: int) -> list[str]:
    """Sliding layers, and each `every`th a full one."""
    layers = range(1, metadata[f"{metadata['general.architecture']}.block_count"] + 1)
    return ["sliding_attention" if i % every else "full_attention" for i in layers]


def _gemma2(metadata: Metadata) -> dict[str, Any]:
    return _gemma(metadata, largest=46, caps=(50.0, 30.0)) | {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "layer_types": _layer_types(metadata, 2),
        "rope_parameters": _rope(metadata, 10_000.0),
    }


def _gemma3(metadata: Metadata) -> dict[str, Any]:
    return _gemma(metadata, largest=62, caps=(None, None)) | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "layer_types": _layer_types(metadata, 6),  # Gemma 3 report, section 2
        "rope_parameters": {
            "full_attention": _rope(metadata, 1_000_000.0),
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    }


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
_GEMMA_NAMES = _SHARED_NAMES | {
    "blk.{}.ffn_norm.weight": "model.layers.{}.pre_feedforward_layernorm.weight",
    "blk.{}.post_attention_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blk.{}.post_ffw_norm.weight": "model.layers.{}.post_feedforward_layernorm.weight",
}

ARCHITECTURES = {
    "llama": Architecture(
        names=_SHARED_NAMES
        | {
            "output.weight": "lm_head.weight",
            "blk.{}.ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
        },
        config=_llama,
        interleaves=True,
    ),
    "gemma2": Architecture(names=_GEMMA_NAMES, config=_gemma2, norm_offset=1.0),
    "gemma3": Architecture(
        names=_GEMMA_NAMES
        | {
            "blk.{}.attn_q_norm.weight": "model.layers.{}.self_attn.q_norm.weight",
            "blk.{}.attn_k_norm.weight": "model.layers.{}.self_attn.k_norm.weight",
        },
        config=_gemma3,
        norm_offset=1.0,
    ),
}
