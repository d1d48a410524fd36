"""The peer of `bench.train_step`: MaxText's own training loop, its bfloat16 defaults, random weights, synthetic data.

    python maxtext_step.py FOLDER STEPS

Only the loop's iteration is wrapped, to wait for the step's result and read the clock around it.
"""

import json
import sys
import tempfile
from pathlib import Path

import jax
import maxtext
from maxtext.trainers.pre_train import train
from meter import WARM_UP, Meter

BASE = {"gemma2": "gemma2-2b", "llama3": "llama3-8b"}  # whose architecture; all sizes below are overridden


def main(folder: Path, steps: int) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    shape = settings["shape"]
    # A layer of MaxText's Gemma 2 is a pair, local and global.
    layers = shape["num_layers"] // (2 if settings["family"] == "gemma2" else 1)
    with tempfile.TemporaryDirectory() as out:
        options = {
            "run_name": "bench",
            "base_output_directory": out,
            "hardware": "cpu",
            "skip_jax_distributed_system": True,
            "jax_cache_dir": "",
            "enable_goodput_recording": False,
            "enable_checkpointing": False,
            "dataset_type": "synthetic",
            "attention": "dot_product",
            "model_name": BASE[settings["family"]],
            "override_model_config": True,
            "base_emb_dim": shape["embed_dim"],
            "base_num_query_heads": shape["num_heads"],
            "base_num_kv_heads": shape["num_kv_heads"],
            "base_mlp_dim": shape["mlp_dim"],
            "base_num_decoder_layers": layers,
            "head_dim": shape["head_dim"],
            "vocab_size": shape["vocab_size"],
            "sliding_window_size": shape["local_window"] or 0,
            "logits_via_embedding": True,
            "max_target_length": settings["length"],
            "per_device_batch_size": settings["rows"],
            "learning_rate": settings["peak_lr"],
            "adam_b1": settings["beta1"],
            "adam_b2": settings["beta2"],
            "adam_weight_decay": settings["weight_decay"],
            "gradient_clipping_threshold": settings["clip_norm"],
            "steps": WARM_UP + steps,
        }
        meter, iteration = Meter(), train.training_loop_iteration

        def timed(*state: dict) -> dict:
            found: dict = {}

            def step() -> float:
                found.update(jax.block_until_ready(iteration(*state)))
                return float(found["scalar"]["learning/loss"])

            meter.measure(step)
            return found

        train.training_loop_iteration = timed
        base = Path(maxtext.__file__).parent / "configs" / "base.yml"
        train.main(["train", str(base), *(f"{name}={value}" for name, value in options.items())])
    meter.report()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
