"""Gemma 2: sizes, weight names, Hugging Face config and chat facts.

Sources: the Gemma 2 report (arXiv 2408.00118, table 1) and the published config.json files.
"""

from typing import Any

from model.config import GLOBAL, LOCAL, DecoderConfig
from model.families.weights import COMMON, Weight

HF_MODEL_TYPES = ("gemma2",)
PREFIX = ""
OTHER_PARTS = ()
GEMMA: dict[str, Any] = {"norm_offset": 1.0, "post_norms": True, "scale_embeddings": True}


def _size(**shape: Any) -> DecoderConfig:
    constants: dict[str, Any] = {
        "family": "gemma2",
        "vocab_size": 256_000,  # rows of the Hugging Face checkpoints; MaxText pads to 256,128
        "max_seq_len": 8192,
        "attn_softcap": 50.0,
        "final_softcap": 30.0,
        "local_window": 4096,
        "layer_pattern": (LOCAL, GLOBAL),
        **GEMMA,
        "head_dim": 256,
        "query_scale": 256**-0.5,
    }
    return DecoderConfig(**(constants | shape))


SIZES: dict[str, DecoderConfig] = {
    "2b": _size(embed_dim=2304, num_layers=26, num_heads=8, num_kv_heads=4, mlp_dim=9216),
    "9b": _size(embed_dim=3584, num_layers=42, num_heads=16, num_kv_heads=8, mlp_dim=14_336),
    # Only the 27B scales queries by embed_dim / num_heads = 144 rather than by head_dim.
    "27b": _size(
        embed_dim=4608,
        num_layers=46,
        num_heads=32,
        num_kv_heads=16,
        mlp_dim=36_864,
        head_dim=128,
        query_scale=144**-0.5,
    ),
    # Ours, for CPUs: head_dim 64 because vLLM's CPU attention wants it.
    "tiny": _size(
        vocab_size=8192,
        embed_dim=256,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        mlp_dim=1024,
        head_dim=64,
        query_scale=64**-0.5,
        max_seq_len=512,
        local_window=128,
    ),
}

# Gemma calls the norm before the MLP by another name than Llama does, whose name for it is that of the norm after
# attention here.
POST_NORMS: tuple[Weight, ...] = (
    Weight("layers/attention_post_norm/scale", "model.layers.{layer}.post_attention_layernorm.weight"),
    Weight("layers/mlp_norm/scale", "model.layers.{layer}.pre_feedforward_layernorm.weight"),
    Weight("layers/mlp_post_norm/scale", "model.layers.{layer}.post_feedforward_layernorm.weight"),
)


def weights(cfg: DecoderConfig) -> tuple[Weight, ...]:
    """Where each parameter lies in a checkpoint."""
    return (*COMMON, *POST_NORMS)


SPECIAL_TOKENS = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"}  # ids 0 1 2 3
START_OF_TURN, END_OF_TURN = "<start_of_turn>", "<end_of_turn>"

# The template of the published Gemma 2 instruction models, without a system role as there.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ('user', 'assistant') %}"
    "{{ raise_exception('Gemma 2 knows only the roles user and assistant') }}{% endif %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user, assistant, user, ...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n'"
    " + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def to_hf_config(cfg: DecoderConfig, dtype: str) -> dict[str, Any]:
    """The `config.json` that transformers and vLLM read for this decoder."""
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": cfg.attn_softcap,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "final_logit_softcapping": cfg.final_softcap,
        "head_dim": cfg.head_dim,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": cfg.embed_dim,
        "initializer_range": 0.02,
        "intermediate_size": cfg.mlp_dim,
        "layer_types": [f"{'full' if window is None else 'sliding'}_attention" for window in cfg.layer_windows],
        "max_position_embeddings": cfg.max_seq_len,
        "model_type": "gemma2",
        "num_attention_heads": cfg.num_heads,
        "num_hidden_layers": cfg.num_layers,
        "num_key_value_heads": cfg.num_kv_heads,
        "pad_token_id": 0,
        # Exact for every published size: 256 and 144 come back from their inverse square root.
        "query_pre_attn_scalar": whole(round(cfg.query_scale**-2, 9)),
        "rms_norm_eps": cfg.norm_eps,
        "rope_theta": cfg.rope_base,
        "sliding_window": cfg.local_window,
        "tie_word_embeddings": cfg.tie_embeddings,
        "dtype": dtype,
        "use_cache": True,
        "vocab_size": cfg.vocab_size,
    }


def from_hf_config(config: dict[str, Any]) -> DecoderConfig:
    """The decoder that a published `config.json` describes."""
    rope = config.get("rope_parameters") or {}
    return DecoderConfig(
        family="gemma2",
        vocab_size=config["vocab_size"],
        embed_dim=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        num_kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        mlp_dim=config["intermediate_size"],
        max_seq_len=config["max_position_embeddings"],
        query_scale=config["query_pre_attn_scalar"] ** -0.5,
        attn_softcap=config["attn_logit_softcapping"],
        final_softcap=config["final_logit_softcapping"],
        local_window=config["sliding_window"],
        layer_pattern=(LOCAL, GLOBAL),
        rope_base=config.get("rope_theta") or rope.get("rope_theta", 10_000.0),
        norm_eps=config["rms_norm_eps"],
        **GEMMA,
    )


def whole(value: float) -> float | int:
    """As published files write it: 256, not 256.0."""
    return int(value) if value == int(value) else value
