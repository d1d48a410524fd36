"""Small random decoders that exercise every part: grouped heads, local windows, caps."""

import jax
from flax import nnx

from model.config import DecoderConfig
from model.decoder import Decoder
from model.loop import join_model, split_model


def small_config(**changes) -> DecoderConfig:
    shape = {
        "family": "gemma2",
        "vocab_size": 160,
        "embed_dim": 32,
        "num_layers": 4,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 16,
        "mlp_dim": 64,
        "max_seq_len": 96,
        "query_scale": 24**-0.5,
        "attn_softcap": 5.0,
        "final_softcap": 3.0,
        "local_window": 12,
        "layer_pattern": ("local", "global"),
        "norm_offset": 1.0,
        "post_norms": True,
        "scale_embeddings": True,
    }
    return DecoderConfig(**(shape | changes))


def random_model(cfg: DecoderConfig, seed: int = 0) -> Decoder:
    """Weights far from their initial values, so that norms and caps matter."""

    @jax.jit  # operation by operation it would compile for half a minute
    def make():
        _, params = split_model(Decoder(cfg, rngs=nnx.Rngs(seed)))
        keys = iter(jax.random.split(jax.random.key(seed + 1), len(jax.tree.leaves(params))))
        return jax.tree.map(lambda x: x * 1.5 + 0.1 * jax.random.normal(next(keys), x.shape), params)

    return join_model(cfg, make())
