"""Gemma-2-Llama-Swallow on TPU slices: its published recipes as configs of a training run."""

from typing import Any

from tasks.train.config import MeshShape, TrainConfig


def gemma2_cpt(size: str, peak_lr: float, chips: int) -> TrainConfig:
    """50,000 steps of 512 x 8,192 tokens; recipes.md 7.3 and 14. Data and base come by --set."""
    return TrainConfig(
        kind="next_token",
        total_tokens=50_000 * 512 * 8_192,
        warmup_steps=1_000,
        z_loss=1e-4,
        **_on_slice(size, peak_lr, chips, rows=512),
    )


def gemma2_sft(size: str, peak_lr: float, chips: int) -> TrainConfig:
    """Batch 256 x 8,192, 2 epochs, warm-up 10 %, loss on the last answer; recipes.md 8.2 and 14."""
    return TrainConfig(
        kind="sft", epochs=2, warmup_fraction=0.1, loss_turns="last", **_on_slice(size, peak_lr, chips, rows=256)
    )


def _on_slice(size: str, peak_lr: float, chips: int, *, rows: int) -> dict[str, Any]:
    """What both have in common, with so many rows in a batch."""
    return {
        "model": f"gemma2/{size}",
        "seq_len": 8_192,
        "batch_tokens": rows * 8_192,
        "peak_lr": peak_lr,
        "min_lr_fraction": 0.1,
        "schedule": "cosine",
        "beta2": 0.95,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "dtype": "bfloat16",
        "export_dtype": "bfloat16",
        "streams": chips,
        "mesh": MeshShape(fsdp=chips),
        "accumulate": rows // chips,  # one row at a time: what a second one would take pays for not recomputing
        "remat": "projections",
        "needs": f"tpu v6e-{chips}",
        "save_every_steps": 250,
    }
