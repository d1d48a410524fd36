"""Llama 3 and what is built like it: sizes, weight names, Hugging Face config.

Sources: the Llama 3 report (arXiv 2407.21783) and the published config.json files of Llama 3, 3.1 and 3.3, SmolLM2 and
Tanuki-8B (recipes of matsuolab/tanuki).
"""

from typing import Any

from model.config import DecoderConfig, RopeScaling
from model.families.weights import COMMON, Weight

HF_MODEL_TYPES = ("llama",)
PREFIX = ""
OTHER_PARTS = ()
LONG: dict[str, Any] = {  # 3.1 and 3.3
    "max_seq_len": 131_072,
    "rope_scaling": RopeScaling(factor=8.0, original_max_seq_len=8192),
}


def _size(**shape: Any) -> DecoderConfig:
    constants: dict[str, Any] = {
        "family": "llama3",
        "vocab_size": 128_256,
        "max_seq_len": 8192,
        "head_dim": 128,
        "activation": "silu",
        "rope_base": 500_000.0,
        "norm_eps": 1e-5,
        "tie_embeddings": False,
    }
    made = constants | shape
    return DecoderConfig(**(made | {"query_scale": made["head_dim"] ** -0.5}))


_8B = {"embed_dim": 4096, "num_layers": 32, "num_heads": 32, "num_kv_heads": 8, "mlp_dim": 14_336}
_70B = {"embed_dim": 8192, "num_layers": 80, "num_heads": 64, "num_kv_heads": 8, "mlp_dim": 28_672}

SIZES: dict[str, DecoderConfig] = {
    "8b": _size(**_8B),
    "70b": _size(**_70B),
    "3.1-8b": _size(**_8B, **LONG),
    "3.1-70b": _size(**_70B, **LONG),
    "3.3-70b": _size(**_70B, **LONG),
    "tanuki-8b": _size(**_8B, vocab_size=65_024, max_seq_len=4096),
    "smollm2-135m": _size(
        vocab_size=49_152,
        embed_dim=576,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        mlp_dim=1536,
        head_dim=64,
        rope_base=100_000.0,
        tie_embeddings=True,
    ),
    # Ours, for CPUs.
    "tiny": _size(
        vocab_size=8192,
        embed_dim=256,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        mlp_dim=1024,
        head_dim=64,
        max_seq_len=512,
    ),
}


def weights(cfg: DecoderConfig) -> tuple[Weight, ...]:
    """Where each parameter lies in a checkpoint."""
    return (
        *COMMON,
        Weight("layers/mlp_norm/scale", "model.layers.{layer}.post_attention_layernorm.weight"),
        *(() if cfg.tie_embeddings else (Weight("head", "lm_head.weight"),)),
    )


def to_hf_config(cfg: DecoderConfig, dtype: str) -> dict[str, Any]:
    """The `config.json` that transformers and vLLM read for this decoder; special tokens come from its tokenizer."""
    scaling = cfg.rope_scaling
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "dtype": dtype,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "hidden_size": cfg.embed_dim,
        "initializer_range": 0.02,
        "intermediate_size": cfg.mlp_dim,
        "max_position_embeddings": cfg.max_seq_len,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": cfg.num_heads,
        "num_hidden_layers": cfg.num_layers,
        "num_key_value_heads": cfg.num_kv_heads,
        "rms_norm_eps": cfg.norm_eps,
        "rope_scaling": scaling
        and {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_seq_len,
        },
        "rope_theta": cfg.rope_base,
        "tie_word_embeddings": cfg.tie_embeddings,
        "use_cache": True,
        "vocab_size": cfg.vocab_size,
    }


def from_hf_config(config: dict[str, Any]) -> DecoderConfig:
    """The decoder that a published `config.json` describes."""
    rope = {"rope_theta": config.get("rope_theta", 10_000.0)} | (
        config.get("rope_parameters") or config.get("rope_scaling") or {}
    )
    kind = rope.get("rope_type") or rope.get("type") or "default"
    biased = [name for name in ("attention_bias", "mlp_bias") if config.get(name)]
    if kind not in ("default", "llama3") or biased or config.get("hidden_act", "silu") != "silu":
        raise ValueError(
            f"rope_type={kind!r}, hidden_act={config.get('hidden_act')!r}, biases {biased or 'none'}: this family "
            "knows the rope types default and llama3, silu, and no biases, as Llama 3 has them. Use such a model, or "
            "add a family."
        )
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return DecoderConfig(
        family="llama3",
        vocab_size=config["vocab_size"],
        embed_dim=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads", heads),
        head_dim=head_dim,
        mlp_dim=config["intermediate_size"],
        max_seq_len=config["max_position_embeddings"],
        query_scale=head_dim**-0.5,
        activation="silu",
        rope_base=rope["rope_theta"],
        rope_scaling=RopeScaling(
            factor=rope["factor"],
            original_max_seq_len=rope["original_max_position_embeddings"],
            low_freq_factor=rope["low_freq_factor"],
            high_freq_factor=rope["high_freq_factor"],
        )
        if kind == "llama3"
        else None,
        norm_eps=config["rms_norm_eps"],
        tie_embeddings=config.get("tie_word_embeddings", False),
    )
