"""Gemma 3, its text part: sizes, weight names, Hugging Face config.

Sources: the Gemma 3 report (arXiv 2503.19786) and the published config.json files. From 4b on the published checkpoints
also hold a vision tower, which is left out.
"""

from typing import Any

from model.config import GLOBAL, LOCAL, DecoderConfig, RopeScaling
from model.families.gemma2 import GEMMA, POST_NORMS, whole
from model.families.weights import COMMON, Weight

HF_MODEL_TYPES = ("gemma3_text", "gemma3")
PREFIX = "language_model."  # of the text part in a checkpoint that also sees
OTHER_PARTS = ("vision_tower.", "multi_modal_projector.")
PATTERN = (LOCAL, LOCAL, LOCAL, LOCAL, LOCAL, GLOBAL)


def _size(**shape: Any) -> DecoderConfig:
    constants: dict[str, Any] = {
        "family": "gemma3",
        "vocab_size": 262_144,
        "max_seq_len": 32_768,
        "local_window": 512,
        "layer_pattern": PATTERN,
        "head_dim": 256,
        "query_scale": 256**-0.5,
        "qk_norms": True,
        "rope_base": 1_000_000.0,
        "local_rope_base": 10_000.0,
        **GEMMA,
    }
    return DecoderConfig(**(constants | shape))


def _large(**shape: Any) -> DecoderConfig:
    """From 4b on: a longer window, 131,072 tokens, and 64 more rows for images in the table."""
    long = {
        "vocab_size": 262_208,
        "max_seq_len": 131_072,
        "local_window": 1024,
        "rope_scaling": RopeScaling(factor=8.0),
    }
    return _size(**(long | shape))


SIZES: dict[str, DecoderConfig] = {
    "270m": _size(embed_dim=640, num_layers=18, num_heads=4, num_kv_heads=1, mlp_dim=2048),
    "1b": _size(embed_dim=1152, num_layers=26, num_heads=4, num_kv_heads=1, mlp_dim=6912),
    "4b": _large(embed_dim=2560, num_layers=34, num_heads=8, num_kv_heads=4, mlp_dim=10_240),
    "12b": _large(embed_dim=3840, num_layers=48, num_heads=16, num_kv_heads=8, mlp_dim=15_360),
    # Only the 27b scales queries by embed_dim / num_heads = 168 rather than by head_dim.
    "27b": _large(
        embed_dim=5376,
        num_layers=62,
        num_heads=32,
        num_kv_heads=16,
        mlp_dim=21_504,
        head_dim=128,
        query_scale=168**-0.5,
    ),
    # Ours, for CPUs: head_dim 64 because vLLM's CPU attention wants it.
    "tiny": _size(
        vocab_size=8192,
        embed_dim=256,
        num_layers=6,
        num_heads=4,
        num_kv_heads=2,
        mlp_dim=1024,
        head_dim=64,
        query_scale=64**-0.5,
        max_seq_len=512,
        local_window=128,
    ),
}


def weights(cfg: DecoderConfig) -> tuple[Weight, ...]:
    """Where each parameter lies in a checkpoint."""
    return (
        *COMMON,
        *POST_NORMS,
        Weight("layers/attention/query_norm/scale", "model.layers.{layer}.self_attn.q_norm.weight"),
        Weight("layers/attention/key_norm/scale", "model.layers.{layer}.self_attn.k_norm.weight"),
    )


def to_hf_config(cfg: DecoderConfig, dtype: str) -> dict[str, Any]:
    """The `config.json` that transformers and vLLM read for this decoder."""
    scaling = cfg.rope_scaling and {"rope_type": "linear", "factor": cfg.rope_scaling.factor}
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": cfg.attn_softcap,
        "bos_token_id": 2,
        "dtype": dtype,
        "eos_token_id": 1,
        "final_logit_softcapping": cfg.final_softcap,
        "head_dim": cfg.head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": cfg.embed_dim,
        "initializer_range": 0.02,
        "intermediate_size": cfg.mlp_dim,
        "layer_types": [f"{'full' if window is None else 'sliding'}_attention" for window in cfg.layer_windows],
        "max_position_embeddings": cfg.max_seq_len,
        "model_type": "gemma3_text",
        "num_attention_heads": cfg.num_heads,
        "num_hidden_layers": cfg.num_layers,
        "num_key_value_heads": cfg.num_kv_heads,
        "pad_token_id": 0,
        "query_pre_attn_scalar": whole(round(cfg.query_scale**-2, 9)),
        "rms_norm_eps": cfg.norm_eps,
        "rope_local_base_freq": cfg.local_rope_base,
        "rope_scaling": scaling,
        "rope_theta": cfg.rope_base,
        "sliding_window": cfg.local_window,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": cfg.vocab_size,
    }


def from_hf_config(config: dict[str, Any]) -> DecoderConfig:
    """The decoder that a published `config.json` describes; what it leaves out is as in transformers (the 4b's)."""
    config = config.get("text_config", config)
    ropes = config.get("rope_parameters") or {}
    far = ropes.get("full_attention") or {"rope_theta": config.get("rope_theta", 1e6)} | (
        config.get("rope_scaling") or {}
    )
    near = ropes.get("sliding_attention") or {"rope_theta": config.get("rope_local_base_freq", 10_000.0)}
    kinds = config.get("layer_types") or []
    stretch = far.get("rope_type") or far.get("type") or "default"
    biased = config.get("attention_bias") or config.get("use_bidirectional_attention")
    if stretch not in ("default", "linear") or near.get("rope_type", "default") != "default" or biased:
        raise ValueError(
            f"rope types {stretch!r} (full) and {near.get('rope_type')!r} (sliding), attention_bias="
            f"{config.get('attention_bias')}, use_bidirectional_attention={config.get('use_bidirectional_attention')}: "
            "Gemma 3 stretches full layers linearly or not at all, has no biases and looks back only. Use such a "
            "model, or add a family."
        )
    return DecoderConfig(
        family="gemma3",
        vocab_size=config.get("vocab_size", 262_208),
        embed_dim=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config.get("num_attention_heads", 8),
        num_kv_heads=config.get("num_key_value_heads", 4),
        head_dim=config.get("head_dim", 256),
        mlp_dim=config["intermediate_size"],
        max_seq_len=config.get("max_position_embeddings", 131_072),
        query_scale=config.get("query_pre_attn_scalar", 256) ** -0.5,
        attn_softcap=config.get("attn_logit_softcapping"),
        final_softcap=config.get("final_logit_softcapping"),
        local_window=config["sliding_window"],
        layer_pattern=_checked(kinds),
        qk_norms=True,
        rope_base=far["rope_theta"],
        local_rope_base=near["rope_theta"],
        rope_scaling=RopeScaling(factor=far["factor"]) if far.get("factor", 1.0) != 1.0 else None,
        norm_eps=config.get("rms_norm_eps", 1e-6),
        **GEMMA,
    )


def _checked(kinds: list[str]) -> tuple[str, ...]:
    own = [LOCAL if kind == "sliding_attention" else GLOBAL for kind in kinds]
    if any(kind != PATTERN[i % len(PATTERN)] for i, kind in enumerate(own)):
        raise ValueError(
            f"layer_types={kinds} is not five sliding layers and a full one in turn: every Gemma 3 has that pattern, "
            "and windows are compiled in. Use an unchanged Gemma 3 config, or add a family for the changed model."
        )
    return PATTERN
