"""Run with eight CPU devices by test_sharding: three steps on each mesh, and a sharded load and save.

python eight_devices.py OUT_DIR             prints one JSON line
python eight_devices.py OUT_DIR experts     the same of a mixture of experts
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from model.checkpoint import Checkpoints
from model.config import ComputeConfig, DecoderConfig, MeshConfig, MoEConfig, OptimizerConfig
from model.convert import load_hf, save_hf
from model.loop import TrainState, abstract_state, init_state, make_train_step, state_of_model
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
OPTIMIZER = OptimizerConfig(peak_lr=1e-2, total_steps=10, z_loss=1e-3)

EXPERT_MESHES = {
    "one, experts": (MeshConfig(), {}),
    "data=2 expert=4": (MeshConfig(data=2, expert=4), {"remat": "full"}),
    "fsdp=2 expert=2 tensor=2": (MeshConfig(fsdp=2, expert=2, tensor=2), {"remat": "outputs"}),
    "expert=2 context=2 stage=2": (MeshConfig(expert=2, context=2, stage=2), {}),
    "fsdp=4 tensor=2, experts": (MeshConfig(fsdp=4, tensor=2), {}),
}
EXPERT_SHAPE = {
    "family": "moe",
    "num_layers": 2,
    "layer_pattern": ("global",),
    "local_window": None,
    "tie_embeddings": False,
    "activation": "silu",
    "post_norms": False,
    "scale_embeddings": False,
    "norm_offset": 0.0,
    "attn_softcap": None,
    "final_softcap": None,
    "query_scale": 0.25,
    "moe": MoEConfig(num_experts=4, experts_per_token=2, load_balance_weight=0.3, z_loss_weight=0.1),
}


def a_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "tokens_BT": rng.integers(0, 160, (8, 24)).astype(np.int32),
        "targets_BT": rng.integers(0, 160, (8, 24)).astype(np.int32),
        "positions_BT": np.arange(24, dtype=np.int32)[None].repeat(8, 0) % 16,
        "segments_BT": 1 + np.arange(24, dtype=np.int32)[None].repeat(8, 0) // 16,
        "weights_BT": rng.choice([0.0, 1.0], (8, 24)).astype(np.float32),
    }


def curve(cfg: DecoderConfig, batch: dict[str, np.ndarray], mesh: Mesh | None) -> tuple[list[list[float]], TrainState]:
    """Loss and gradient norm (and what routers say) of three steps, and the state after them."""
    step, state = make_train_step(cfg, OPTIMIZER, mesh=mesh), init_state(cfg, OPTIMIZER, mesh=mesh)
    placed, history = put_batch(batch, mesh), []
    for _ in range(3):
        state, metrics = step(state, placed)
        shown = ("loss", "grad_norm", "router_balance", "router_z")
        history.append([float(metrics[name]) for name in shown if name in metrics])
    return history, state


def experts(out: Path) -> None:
    cfg, batch = small_config(**EXPERT_SHAPE), a_batch()
    batch["segments_BT"][3, 10:] = 0  # devices have unlike numbers of tokens
    batch["weights_BT"][3, 10:] = 0
    losses, parts = {}, 0
    for name, (mesh_config, compute) in EXPERT_MESHES.items():
        mesh = make_mesh(mesh_config) if mesh_config.num_devices > 1 else None
        losses[name], state = curve(replace(cfg, compute=ComputeConfig(**compute)), batch, mesh)
        if name == "data=2 expert=4":
            gate = state.params["layers"]["mlp"]["gate"]
            parts = gate.size / gate.addressable_shards[0].data.size
    save_hf(random_model(cfg), out / "whole", dtype="float32")
    save_hf(load_hf(out / "whole", mesh=make_mesh(MeshConfig(expert=4, tensor=2))), out / "again", dtype="float32")
    print(json.dumps({"losses": losses, "parts": parts}))


def main(out: Path) -> None:
    cfg, optimizer, batch = small_config(**SHAPE), OPTIMIZER, a_batch()
    losses, parts = {}, {}
    for name, (mesh_config, compute) in MESHES.items():
        mesh = make_mesh(mesh_config) if mesh_config.num_devices > 1 else None
        cfg = replace(cfg, compute=ComputeConfig(loss_chunk_tokens=16, **compute))
        losses[name], state = curve(cfg, batch, mesh)
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
    (experts if sys.argv[2:] == ["experts"] else main)(Path(sys.argv[1]))
