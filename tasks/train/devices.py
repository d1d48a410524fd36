"""What the trainer computes on: the model's shape here, the mesh, and a check before the first step."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from model.config import DecoderConfig
from model.convert import config_from_hf
from model.families import decoder_config
from model.loop import param_sharding
from model.sharding import make_mesh
from tasks.errors import ConfigError, HostFault
from tasks.tokens import TextTokenizer
from tasks.train.config import TrainConfig


def preflight(config: TrainConfig) -> Mesh | None:
    """The mesh of the run, each of its devices having added up a few numbers; None for one device.

    Raises:
        ConfigError: the mesh does not fit the machine.
        HostFault: a device computes wrongly.
    """
    needed, devices = config.mesh.to_model().num_devices, jax.devices()
    if needed != len(devices):
        raise ConfigError(
            f"mesh={config.mesh} is {needed} devices, JAX finds {len(devices)} ({devices[0].platform}): every device "
            "has its place in the mesh. Change mesh, or run where so many devices are."
        )
    for device in jax.local_devices():
        total = float(jnp.sum(jax.device_put(np.arange(1024, dtype=np.float32), device)))
        if total != 1023 * 512:
            raise HostFault(
                f"{device} says that 0 + 1 + … + 1023 is {total}, not {1023 * 512}: it would train on noise. "
                "Take the host out of service; the run resumes on another."
            )
    return make_mesh(config.mesh.to_model()) if needed > 1 else None


def require_fit(cfg: DecoderConfig, mesh: Mesh | None) -> None:
    """Every weight can be cut as the mesh wants it.

    Raises:
        ConfigError: an axis of a weight is not a multiple of its part of the mesh.
    """
    try:
        if mesh is not None:
            param_sharding(cfg, mesh)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def decoder_here(config: TrainConfig, tokenizer: TextTokenizer, base_dir: Path | None) -> DecoderConfig:
    """The decoder of the run, with the settings that are fast on these devices.

    Raises:
        ConfigError: the base model has another shape or another tokenizer.
    """
    compute = config.compute(jax.default_backend())
    cfg = decoder_config(config.model, compute=compute)
    if base_dir is None:
        return replace(cfg, vocab_size=tokenizer.vocab_size)
    try:
        base = config_from_hf(base_dir)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    cfg = replace(cfg, vocab_size=base.vocab_size)
    if replace(base, compute=compute, max_seq_len=cfg.max_seq_len) != cfg:
        raise ConfigError(
            f"{base_dir} is {base.family} with {base.num_layers} layers of width {base.embed_dim}, "
            f"model={config.model} has {cfg.num_layers} of {cfg.embed_dim}: weights have a place only in their own "
            "shape. Set model to what the base is, or choose another base."
        )
    theirs, ours = base_dir / "tokenizer.json", tokenizer.path / "tokenizer.json"
    if theirs.is_file() and theirs.read_bytes() != ours.read_bytes():
        raise ConfigError(
            f"{theirs} is not {ours}: the base model learnt other meanings for the same ids. Pack the data with the "
            "base's tokenizer (mixture.tokenizer), or start from a model of this tokenizer."
        )
    if tokenizer.vocab_size > cfg.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids, the base's table {cfg.vocab_size:,} rows: some ids "
            "would have no row. Use the base's own tokenizer."
        )
    try:
        return replace(cfg, lora=config.lora)
    except ValueError as error:
        raise ConfigError(str(error)) from error
