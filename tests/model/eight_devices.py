"""Run with eight CPU devices by test_sharding: three steps on each mesh, and a sharded load and save.

python eight_devices.py OUT_DIR             prints one JSON line
python eight_devices.py OUT_DIR experts     the same of a mixture of experts
python eight_devices.py OUT_DIR rarely      losses alone, on the meshes that the other two leave out
"""

import json
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from model.checkpoint import Checkpoints
from model.config import ComputeConfig, DecoderConfig, LoraConfig, MeshConfig, MoEConfig, OptimizerConfig
from model.convert import load_hf, save_hf
from model.loop import Loss, TrainState, abstract_state, init_state, make_train_step, state_of_model
from model.losses import next_token_loss
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
ADAPTERS = "data=2 fsdp=2 tensor=2, adapters and a teacher"
SHAPE = {"num_layers": 4, "qk_norms": True}
OPTIMIZER = OptimizerConfig(peak_lr=1e-2, total_steps=10, z_loss=1e-3)

EXPERT_MESHES = {
    "one, experts": (MeshConfig(), {}),
    "data=2 expert=4": (MeshConfig(data=2, expert=4), {"remat": "full"}),
    "fsdp=2 expert=2 tensor=2": (MeshConfig(fsdp=2, expert=2, tensor=2), {"remat": "outputs"}),
    "expert=2 context=2 stage=2": (MeshConfig(expert=2, context=2, stage=2), {}),
    "fsdp=4 tensor=2, experts": (MeshConfig(fsdp=4, tensor=2), {}),
}
# Each axis is in a mesh that is left; these are for slow tests.
RARELY = (
    "fsdp=8",
    "fsdp=2 tensor=2 context=2",
    "data=2 context=4",
    "fsdp=4 expert=2",
    "data=2 expert=4",
    "expert=2 context=2 stage=2",
    "fsdp=4 tensor=2, experts",
)
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


def curve(
    cfg: DecoderConfig, batch: dict[str, np.ndarray], mesh: Mesh | None, loss: Loss = next_token_loss
) -> tuple[list[list[float]], TrainState]:
    """Loss and gradient norm (and what routers say) of three steps, and the state after them."""
    step, state = make_train_step(cfg, OPTIMIZER, mesh=mesh, loss=loss), init_state(cfg, OPTIMIZER, mesh=mesh)
    placed, history = put_batch(batch, mesh), []
    for _ in range(3):
        state, metrics = step(state, placed)
        shown = ("loss", "grad_norm", "router_balance", "router_z")
        history.append([float(metrics[name]) for name in shown if name in metrics])
    return history, state


def dense_curve(name: str) -> tuple[list[list[float]], TrainState]:
    mesh_config, compute = MESHES[name]
    cfg = small_config(**SHAPE, compute=ComputeConfig(loss_chunk_tokens=16, **compute))
    return curve(cfg, a_batch(), make_mesh(mesh_config) if mesh_config.num_devices > 1 else None)


def expert_curve(name: str) -> tuple[list[list[float]], TrainState]:
    mesh_config, compute = EXPERT_MESHES[name]
    batch = a_batch()
    batch["segments_BT"][3, 10:] = 0  # devices have unlike numbers of tokens
    batch["weights_BT"][3, 10:] = 0
    cfg = small_config(**EXPERT_SHAPE, compute=ComputeConfig(**compute))
    return curve(cfg, batch, make_mesh(mesh_config) if mesh_config.num_devices > 1 else None)


def rarely(out: Path) -> None:
    ones = {"one": dense_curve("one")[0], "one, experts": expert_curve("one, experts")[0]}
    print(json.dumps({"losses": ones | {n: (dense_curve if n in MESHES else expert_curve)(n)[0] for n in RARELY}}))


def experts(out: Path) -> None:
    cfg, losses, parts = small_config(**EXPERT_SHAPE), {}, 0
    for name in EXPERT_MESHES:
        if name in RARELY:
            continue
        losses[name], state = expert_curve(name)
        if name == "fsdp=2 expert=2 tensor=2":
            gate = state.params["layers"]["mlp"]["gate"]
            parts = gate.size / gate.addressable_shards[0].data.size
    save_hf(random_model(cfg), out / "whole", dtype="float32")
    save_hf(load_hf(out / "whole", mesh=make_mesh(MeshConfig(expert=4, tensor=2))), out / "again", dtype="float32")
    print(json.dumps({"losses": losses, "parts": parts}))


def main(out: Path) -> None:
    optimizer, batch = OPTIMIZER, a_batch()
    losses, parts = {}, {}
    for name in MESHES:
        if name in RARELY:
            continue
        losses[name], state = dense_curve(name)
        weights = [state.params["layers"]["mlp"]["gate"], state.opt_state[1].mu["embed"]]
        parts[name] = [w.size / w.addressable_shards[0].data.size for w in weights]
        if name == "fsdp=4 stage=2":
            with Checkpoints(out / "run") as checkpoints:
                checkpoints.save(3, state, {"mesh": name})

    adapters = small_config(num_layers=2, lora=LoraConfig(rank=2, alpha=4.0))
    rng = np.random.default_rng(1)
    taught = batch | {
        "teacher_ids_BTK": rng.integers(0, 160, (8, 24, 3)).astype(np.int32),
        "teacher_shares_BTK": rng.dirichlet(np.ones(3), (8, 24)).astype(np.float32),
    }
    loss = partial(next_token_loss, teacher_weight=0.75)
    losses["one, adapters"], _ = curve(adapters, taught, None, loss)
    losses[ADAPTERS], state = curve(adapters, taught, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), loss)
    weights = [state.params["layers"]["mlp"]["gate_adapter"]["rows"], state.frozen["layers"]["mlp"]["gate"]]
    parts[ADAPTERS] = [w.size / w.addressable_shards[0].data.size for w in weights]

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
    {"": main, "experts": experts, "rarely": rarely}["".join(sys.argv[2:])](Path(sys.argv[1]))
