"""Run with eight CPU devices by test_sharding: three steps on each mesh, and a sharded load and save.

python eight_devices.py OUT_DIR     prints one JSON line
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from model.checkpoint import Checkpoints
from model.config import ComputeConfig, MeshConfig, OptimizerConfig
from model.convert import load_hf, save_hf
from model.loop import abstract_state, init_state, make_train_step, state_of_model
from model.sharding import make_mesh, put_batch
from tests.model.random_decoders import random_model, small_config

# Each with another way of saving memory, since gathers and recomputation meet in a layer.
MESHES = {
    "one": (MeshConfig(), {}),
    "fsdp=8": (MeshConfig(fsdp=8), {"remat": "full"}),
    "data=2 fsdp=2 tensor=2": (MeshConfig(data=2, fsdp=2, tensor=2), {"remat": "projections", "scan_layers": False}),
    "fsdp=2 tensor=2 context=2": (MeshConfig(fsdp=2, tensor=2, context=2), {"remat": "outputs"}),
    "data=2 context=4": (MeshConfig(data=2, context=4), {"attention": "chunked"}),
    "fsdp=4 stage=2": (MeshConfig(fsdp=4, stage=2), {"microbatches": 2}),
    "tensor=2 context=2 stage=2": (MeshConfig(tensor=2, context=2, stage=2), {"microbatches": 4, "remat": "full"}),
    "fsdp=4 expert=2": (MeshConfig(fsdp=4, expert=2), {}),
}
SHAPE = {"num_layers": 4, "qk_norms": True}


def main(out: Path) -> None:
    cfg, optimizer = small_config(**SHAPE), OptimizerConfig(peak_lr=1e-2, total_steps=10, z_loss=1e-3)
    rng = np.random.default_rng(0)
    batch = {
        "tokens_BT": rng.integers(0, 160, (8, 24)).astype(np.int32),
        "targets_BT": rng.integers(0, 160, (8, 24)).astype(np.int32),
        "positions_BT": np.arange(24, dtype=np.int32)[None].repeat(8, 0) % 16,
        "segments_BT": 1 + np.arange(24, dtype=np.int32)[None].repeat(8, 0) // 16,
        "weights_BT": rng.choice([0.0, 1.0], (8, 24)).astype(np.float32),
    }
    losses, parts = {}, {}
    for name, (mesh_config, compute) in MESHES.items():
        mesh = make_mesh(mesh_config) if mesh_config.num_devices > 1 else None
        cfg = replace(cfg, compute=ComputeConfig(loss_chunk_tokens=16, **compute))
        step, state = make_train_step(cfg, optimizer, mesh=mesh), init_state(cfg, optimizer, mesh=mesh)
        placed, history = put_batch(batch, mesh), []
        for _ in range(3):
            state, metrics = step(state, placed)
            history.append([float(metrics["loss"]), float(metrics["grad_norm"])])
        losses[name] = history
        weights = [state.params["layers"]["mlp"]["gate"], state.opt_state[1].mu["embed"]]
        parts[name] = [w.size / w.addressable_shards[0].data.size for w in weights]
        if name == "fsdp=4 stage=2":
            with Checkpoints(out / "run") as checkpoints:
                checkpoints.save(3, state, {"mesh": name})

    cfg = small_config(num_layers=4)  # the shape of a family
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    with Checkpoints(out / "run") as checkpoints:
        restored = checkpoints.restore(abstract_state(small_config(**SHAPE), optimizer, mesh=mesh))
    save_hf(random_model(cfg), out / "whole", dtype="float32")
    loaded = load_hf(out / "whole", mesh=mesh)
    save_hf(loaded, out / "again", dtype="float32")
    state, _ = make_train_step(cfg, optimizer, mesh=mesh)(
        state_of_model(loaded, optimizer, mesh=mesh), put_batch(batch, mesh)
    )
    print(
        json.dumps(
            {
                "devices": len(jax.devices()),
                "losses": losses,
                "parts": parts,
                "restored": [restored.step, restored.state.params["embed"].addressable_shards[0].data.size],
                "trained": int(state.step),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
