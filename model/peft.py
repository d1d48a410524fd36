"""Trained adapters as peft reads them: adapter_config.json and adapter_model.safetensors."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from model.config import LORA_TARGETS, DecoderConfig
from model.families import FAMILIES
from model.lora import SUFFIX
from model.sharding import on_host


def save_adapters(params: dict[str, Any], cfg: DecoderConfig, directory: Path) -> None:
    """Write the adapters of `params` (what `lora.trainable` calls trained), float32.

    Of several processes that share them all must call it; the first writes.
    """
    assert cfg.lora is not None
    tensors: dict[str, np.ndarray] = {}
    modules: set[str] = set()
    for weight in FAMILIES[cfg.family].weights(cfg):
        *parents, name = weight.path.split("/")
        node: Any = params
        for part in (*parents, name + SUFFIX):
            node = node.get(part) if isinstance(node, dict) else None
        if node is None:
            continue
        rows_LFR, columns_LRD = on_host(node["rows"]), on_host(node["columns"])
        for (layer,), tensor in weight.tensors([slice(0, rows_LFR.shape[0])]):
            prefix = f"base_model.model.{tensor.removesuffix('.weight')}"
            rows_FR, columns_RD = rows_LFR[layer], columns_LRD[layer]
            a, b = (columns_RD, rows_FR) if LORA_TARGETS[name] else (rows_FR.T, columns_RD.T)
            tensors[f"{prefix}.lora_A.weight"] = np.ascontiguousarray(a)
            tensors[f"{prefix}.lora_B.weight"] = np.ascontiguousarray(b)
            modules.add(prefix.rpartition(".")[2])
    if jax.process_index():
        return
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": cfg.lora.rank,
        "lora_alpha": cfg.lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
