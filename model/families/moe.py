"""Mixtral and what is built like it: sizes, weight names, Hugging Face config.

Sources: the Mixtral paper (arXiv 2401.04088) and the published config.json of Mixtral-8x7B. Tanuki-8x8B: its training
repository says that eight copies of Tanuki-8B, with noise of 0.1 % added, were trained on in rows of 4,096 tokens, and
that the z-loss of the router was shown only; published are 47 billion parameters of which a token meets 13, and that is
what two of eight experts come to in this shape. Its coefficient of load balance is not known to us: 0.02 is Mixtral's.
"""

from typing import Any

from model.config import DecoderConfig, MoEConfig
from model.families.weights import COMMON, Weight

# The second is ours: what Mixtral's readers would compute otherwise must not pass for a Mixtral.
NORMALISED = "nestling_moe"
HF_MODEL_TYPES = ("mixtral", NORMALISED)
PREFIX = ""
OTHER_PARTS = ()


def _size(**shape: Any) -> DecoderConfig:
    constants: dict[str, Any] = {
        "family": "moe",
        "embed_dim": 4096,
        "num_layers": 32,
        "num_heads": 32,
        "num_kv_heads": 8,
        "head_dim": 128,
        "mlp_dim": 14_336,
        "activation": "silu",
        "norm_eps": 1e-5,
        "tie_embeddings": False,
        "moe": MoEConfig(num_experts=8, experts_per_token=2, load_balance_weight=0.02),
    }
    made = constants | shape
    return DecoderConfig(**(made | {"query_scale": made["head_dim"] ** -0.5}))


SIZES: dict[str, DecoderConfig] = {
    "mixtral-8x7b": _size(vocab_size=32_000, max_seq_len=32_768, rope_base=1_000_000.0),
    "tanuki-8x8b": _size(vocab_size=65_024, max_seq_len=4096, rope_base=500_000.0),
    # Ours, for CPUs: a token meets as many numbers as in llama3/tiny.
    "tiny": _size(
        vocab_size=8192,
        embed_dim=256,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        mlp_dim=512,
        head_dim=64,
        max_seq_len=512,
        rope_base=500_000.0,
        moe=MoEConfig(num_experts=4, experts_per_token=2, load_balance_weight=0.02, z_loss_weight=1e-3),
    ),
}


def weights(cfg: DecoderConfig) -> tuple[Weight, ...]:
    """Where each parameter lies in a checkpoint."""
    block = "model.layers.{layer}.block_sparse_moe"
    return (
        *(weight for weight in COMMON if not weight.path.startswith("layers/mlp/")),
        Weight("layers/mlp_norm/scale", "model.layers.{layer}.post_attention_layernorm.weight"),
        Weight("layers/mlp/router", f"{block}.gate.weight"),
        Weight("layers/mlp/gate", f"{block}.experts.{{expert}}.w1.weight"),
        Weight("layers/mlp/up", f"{block}.experts.{{expert}}.w3.weight"),
        Weight("layers/mlp/down", f"{block}.experts.{{expert}}.w2.weight", transpose=True),
        *(() if cfg.tie_embeddings else (Weight("head", "lm_head.weight"),)),
    )


def to_hf_config(cfg: DecoderConfig, dtype: str) -> dict[str, Any]:
    """The `config.json` that transformers and vLLM read for this decoder.

    Neither of them normalises router logits, so a model that does has a `model_type` that both refuse.
    """
    moe = cfg.moe
    assert moe is not None
    is_mixtral = not moe.normalise_router_logits
    return {
        "architectures": ["MixtralForCausalLM" if is_mixtral else "NestlingMoEForCausalLM"],
        "attention_dropout": 0.0,
        "dtype": dtype,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "hidden_size": cfg.embed_dim,
        "initializer_range": 0.02,
        "intermediate_size": cfg.mlp_dim,
        "max_position_embeddings": cfg.max_seq_len,
        "model_type": "mixtral" if is_mixtral else NORMALISED,
        "num_attention_heads": cfg.num_heads,
        "num_experts_per_tok": moe.experts_per_token,
        "num_hidden_layers": cfg.num_layers,
        "num_key_value_heads": cfg.num_kv_heads,
        "num_local_experts": moe.num_experts,
        "output_router_logits": False,
        "rms_norm_eps": cfg.norm_eps,
        "rope_theta": cfg.rope_base,
        "router_aux_loss_coef": moe.load_balance_weight,
        "router_jitter_noise": 0.0,
        "router_z_loss_coef": moe.z_loss_weight,
        "sliding_window": None,
        "tie_word_embeddings": cfg.tie_embeddings,
        "use_cache": True,
        "vocab_size": cfg.vocab_size,
    }


def from_hf_config(config: dict[str, Any]) -> DecoderConfig:
    """The decoder that a published `config.json` describes; what it leaves out is as in transformers."""
    rope = {"rope_theta": config.get("rope_theta", 1e6)} | (config.get("rope_parameters") or {})
    kind = rope.get("rope_type") or (config.get("rope_scaling") or {}).get("rope_type") or "default"
    window, activation = config.get("sliding_window"), config.get("hidden_act", "silu")
    if kind != "default" or window is not None or activation != "silu":
        raise ValueError(
            f"rope_type={kind!r}, sliding_window={window}, hidden_act={activation!r}: this family knows plain rotary "
            "embeddings, layers that see everything before them, and silu, as Mixtral-8x7B has them. Use such a model, "
            "or add a family."
        )
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return DecoderConfig(
        family="moe",
        vocab_size=config["vocab_size"],
        embed_dim=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads", 8),
        head_dim=head_dim,
        mlp_dim=config["intermediate_size"],
        max_seq_len=config.get("max_position_embeddings", 131_072),
        query_scale=head_dim**-0.5,
        activation="silu",
        rope_base=rope["rope_theta"],
        norm_eps=config.get("rms_norm_eps", 1e-5),
        tie_embeddings=config.get("tie_word_embeddings", False),
        moe=MoEConfig(
            num_experts=config.get("num_local_experts", 8),
            experts_per_token=config.get("num_experts_per_tok", 2),
            load_balance_weight=config.get("router_aux_loss_coef", 0.001),
            z_loss_weight=config.get("router_z_loss_coef", 0.0),
            normalise_router_logits=config["model_type"] == NORMALISED,
        ),
    )
