"""Tokens per second of one optimizer step on a CPU, against PyTorch and MaxText.

    python -m bench.train_step [--models gemma2/tiny llama3/smollm2-135m] [--peers eager compiled maxtext]

The same shape, batch, bfloat16 compute with float32 master weights, clipping and AdamW for all; the same variables for
malloc (`model.cpu.cpu_environment`). Each engine runs in a process of its own, compiles, warms up and is then timed;
engines alternate. Before anything is timed, ours and PyTorch must have the same losses from the same weights and rows.
MaxText draws its own weights and tokens: only its speed is compared. Peak memory is that of an engine's main process.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.harness import ROOT, alternate, compared, parser, peer_python, publish, run_json, say
from bench.peers.meter import WARM_UP, Meter
from model.cpu import cpu_environment

PEERS = ROOT / "bench" / "peers"
TORCH = ("torch==2.13.0+cpu", "transformers==5.23.0", "numpy==2.4.6")
MAXTEXT = ("maxtext[tpu]==0.2.5",)  # there is no CPU extra; the bare package brings no dependencies
ENGINES = ("eager", "compiled", "maxtext")
LENGTH = 512
ROWS = {"gemma2/tiny": 8, "llama3/smollm2-135m": 4}
STEPS = {"gemma2/tiny": 12, "llama3/smollm2-135m": 3}
# Of the mean over 2,048 targets or more, whose logits differ by bfloat16 rounding: 0.0006 was seen.
LARGEST_DIFFERENCE = 0.002


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--models", nargs="+", choices=list(ROWS), default=list(ROWS), help="shapes, the first leads")
    options.add_argument("--peers", nargs="+", choices=ENGINES, default=list(ENGINES), help="whom to compare with")
    options.add_argument("--steps", type=int, help="timed steps of an engine in a round; by default 12 and 3")
    options.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args(arguments)
    if chosen.engine:
        ours(chosen.engine, chosen.steps)
        return
    found = {name: _compare(name, chosen) for name in chosen.models}
    (speeds, facts), *others = found.values()
    rest = {
        name: compared(speeds["ours"], _peers(speeds)) | facts
        for name, (speeds, facts) in zip(chosen.models[1:], others, strict=True)
    }
    publish(
        "train_step",
        "tokens per second",
        speeds["ours"],
        _peers(speeds),
        model=chosen.models[0],
        **facts,
        **rest,
        rounds=chosen.rounds,
        peer=", ".join((*TORCH[:2], *MAXTEXT)),
    )


def ours(folder: Path, steps: int) -> None:
    """This repository's step, as `tasks/train` runs it on one CPU."""
    import jax
    import numpy as np

    from model.config import ComputeConfig, OptimizerConfig
    from model.convert import config_from_hf, load_hf
    from model.loop import make_train_step, state_of_model
    from model.losses import packed_batch

    settings = json.loads((folder / "settings.json").read_text())
    compute = ComputeConfig(dtype="bfloat16", scan_layers=False, cpu_kernels=True)
    cfg = replace(config_from_hf(folder), compute=compute)
    names = ("peak_lr", "beta1", "beta2", "eps", "weight_decay", "clip_norm")
    optimizer = OptimizerConfig(total_steps=10**6, schedule="constant", **{name: settings[name] for name in names})
    state = state_of_model(load_hf(folder, cfg), optimizer)
    batch = jax.device_put(packed_batch(np.load(folder / "rows.npy")))
    train_step = make_train_step(cfg, optimizer)

    def step() -> float:
        nonlocal state
        state, metrics = train_step(state, batch)
        return float(jax.block_until_ready((state, metrics))[1]["loss"])

    meter = Meter()
    for _ in range(WARM_UP + steps):
        meter.measure(step)
    meter.report()


def _compare(name: str, chosen: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Tokens per second of each engine in each round, and facts beside them."""
    steps = chosen.steps or STEPS[name]
    with tempfile.TemporaryDirectory() as folder:
        _prepare(name, Path(folder))
        commands: dict[str, list[str | Path]] = {
            "ours": [sys.executable, "-m", "bench.train_step", "--engine", folder, "--steps", str(steps)]
        }
        for mode in ("eager", "compiled"):
            if mode in chosen.peers:
                python = peer_python(*TORCH, python="3.11")
                commands[mode] = [python, PEERS / "torch_step.py", folder, str(steps), mode]
        if "maxtext" in chosen.peers:
            commands["maxtext"] = [peer_python(*MAXTEXT, python="3.12"), PEERS / "maxtext_step.py", folder, str(steps)]
        say(f"{name}: {', '.join(commands)}")
        engines = {
            engine: lambda command=command: run_json(command, _environment()) for engine, command in commands.items()
        }
        runs = alternate(engines, chosen.rounds)
    _require_equal_losses({engine: rounds[0]["losses"] for engine, rounds in runs.items() if engine != "maxtext"})
    tokens = ROWS[name] * LENGTH
    speeds = {engine: [tokens / statistics.median(run["seconds"]) for run in rounds] for engine, rounds in runs.items()}
    middle = {engine: statistics.median(values) for engine, values in speeds.items()}
    facts = {
        **{f"ratio_{engine}": round(middle["ours"] / middle[engine], 3) for engine in middle if engine != "ours"},
        "per_cpu_second": {
            engine: round(tokens / statistics.median(s for run in rounds for s in run["cpu_s"]))
            for engine, rounds in runs.items()
        },
        "peak_memory_mb": {engine: round(max(run["peak_mb"] for run in rounds)) for engine, rounds in runs.items()},
        "first_and_last_loss": {
            engine: [round(rounds[0]["losses"][at], 4) for at in (0, -1)] for engine, rounds in runs.items()
        },
        "batch": [ROWS[name], LENGTH],
        "steps": steps,
    }
    return speeds, facts


def _peers(speeds: dict[str, list[float]]) -> dict[str, list[float]]:
    return {engine: values for engine, values in speeds.items() if engine != "ours"}


def _environment() -> dict[str, str]:
    """What all engines run under; nothing of this Python leaks into those of the peers."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | cpu_environment()


def _require_equal_losses(losses: dict[str, list[float]]) -> None:
    """Otherwise the engines would be timed at different work."""
    for engine, values in losses.items():
        differences = [abs(a - b) for a, b in zip(losses["ours"], values, strict=True)]
        if not all(difference <= LARGEST_DIFFERENCE for difference in differences):  # which no NaN is
            raise SystemExit(
                f"Losses of ours and {engine} differ from the same weights and rows by more than the "
                f"{LARGEST_DIFFERENCE} that bfloat16 rounding explains: {losses['ours']} and {values}. One of the two "
                "computes another model; no speed is published. Find it with tests/model/test_parity.py."
            )


def _prepare(name: str, folder: Path) -> None:
    """A checkpoint of random weights, rows of random tokens, and settings for those who read no checkpoint."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import numpy as np
    from flax import nnx

    from model.config import OptimizerConfig
    from model.convert import save_hf
    from model.decoder import Decoder
    from model.families import FAMILIES

    family, size = name.split("/")
    cfg = FAMILIES[family].SIZES[size]
    save_hf(Decoder(cfg, rngs=nnx.Rngs(0)), folder, dtype="float32")
    np.save(folder / "rows.npy", np.random.default_rng(0).integers(4, cfg.vocab_size, (ROWS[name], LENGTH + 1)))
    settings = asdict(OptimizerConfig(peak_lr=1e-4, total_steps=1)) | {
        "family": family,
        "attn_softcap": cfg.attn_softcap,
        "rows": ROWS[name],
        "length": LENGTH,
        "shape": {k: v for k, v in asdict(cfg).items() if isinstance(v, int) or v is None},
    }
    (folder / "settings.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main()
