"""What saving costs a training run: step time with and without, and GB per second against `cp`.

    python -m bench.checkpoint [--model llama3/smollm2-135m] [--rows 16] [--rounds 3]

The real step and the real checkpoints, in one process under the variables of the trainer. Windows of ten steps with one
save and without alternate; the save of a window may still be written during its other steps, as in training, and is
waited for at the window's end, inside its time. `cp` copies the checkpoint's own files on the same disk and brings
them there with `sync`, as a save does; restoring is compared with a `cp` without `sync`. All files are in the page
cache. The rows are cut into parts of 4 (gradient accumulation).
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.harness import parser, publish, run_json, say
from model.cpu import cpu_environment

EVERY = 10
LENGTH = 512
PART = 4  # rows computed at a time


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--model", default="llama3/smollm2-135m", help="family/size")
    options.add_argument("--rows", type=int, default=16, help=f"rows of {LENGTH} tokens in a step")
    options.add_argument("--folder", type=Path, help="on the disk to measure; by default that of temporary files")
    options.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args(arguments)
    if chosen.engine:
        print(json.dumps(measure(chosen)))
        return
    command = [sys.executable, "-m", "bench.checkpoint", "--engine", *(arguments or sys.argv[1:])]
    found = run_json(command, os.environ | cpu_environment())
    with_saves, without = found["seconds_with"], found["seconds_without"]
    gigabytes = found["bytes"] / 1e9
    publish(
        "checkpoint",
        "GB per second saved until it is on the disk",
        [gigabytes / s for s in found["save_s"]],
        {"cp and sync": [gigabytes / s for s in found["cp_sync_s"]]},
        step_time_ratio=round(statistics.median(without) / statistics.median(with_saves), 4),
        step_cpu_ratio=round(statistics.median(found["cpu_without"]) / statistics.median(found["cpu_with"]), 4),
        step_seconds={"with": _step(with_saves), "without": _step(without)},
        save_blocks_s=round(statistics.median(found["blocked_s"]), 3),
        save_cpu_s=round(statistics.median(found["save_cpu_s"]), 3),
        restore_gb_per_s=round(gigabytes / statistics.median(found["restore_s"]), 3),
        restore_cpu_s=round(statistics.median(found["restore_cpu_s"]), 3),
        cp_gb_per_s=round(gigabytes / statistics.median(found["cp_s"]), 3),
        gigabytes=round(gigabytes, 3),
        parameters=found["parameters"],
        model=chosen.model,
        batch=[chosen.rows, LENGTH],
        save_every_steps=EVERY,
        rounds=chosen.rounds,
    )


def measure(chosen: argparse.Namespace) -> dict[str, object]:
    """Train, save and restore in this process."""
    import jax
    import numpy as np

    from model.checkpoint import Checkpoints
    from model.config import ComputeConfig, OptimizerConfig
    from model.families import decoder_config
    from model.loop import abstract_state, init_state, make_train_step
    from model.losses import packed_batch

    compute = ComputeConfig(dtype="bfloat16", scan_layers=False, cpu_kernels=True)
    cfg = replace(decoder_config(chosen.model), compute=compute)
    optimizer = OptimizerConfig(peak_lr=1e-4, total_steps=10**6, schedule="constant")
    state = init_state(cfg, optimizer)
    tokens = np.random.default_rng(0).integers(4, cfg.vocab_size, (chosen.rows, LENGTH + 1))
    batch = jax.device_put(packed_batch(tokens))
    train_step = make_train_step(cfg, optimizer, accumulate=max(1, chosen.rows // PART))
    found: dict[str, list[float]] = {}

    def timed(name: str, cpu: str, run: Callable[[], object]) -> None:
        begun, used = time.perf_counter(), _cpu_seconds()
        run()
        found.setdefault(name, []).append(time.perf_counter() - begun)
        found.setdefault(cpu, []).append(_cpu_seconds() - used)

    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder, Checkpoints(Path(folder, "run")) as checkpoints:
        copy = Path(folder, "copy")
        number = 0

        def window(saves: bool) -> None:
            nonlocal state, number
            for at in range(EVERY):
                state, metrics = train_step(state, batch)
                float(metrics["loss"])
                if saves and at == 0:
                    number += 1
                    checkpoints.save(number, state, {})
            checkpoints.wait()

        def save() -> None:
            nonlocal number
            number += 1
            begun = time.perf_counter()
            checkpoints.save(number, state, {})
            found.setdefault("blocked_s", []).append(time.perf_counter() - begun)
            checkpoints.wait()

        def cp(sync: bool) -> None:
            subprocess.run(["cp", "-r", checkpoints.path(number), copy], check=True)
            if sync:
                subprocess.run(["sync", "-f", copy], check=True)

        def forget() -> None:
            shutil.rmtree(copy, ignore_errors=True)
            for step in checkpoints.steps()[:-1]:
                checkpoints.delete(step)

        window(saves=True)  # compiles
        for index in range(chosen.rounds):
            forget()
            timed("seconds_without", "cpu_without", lambda: window(saves=False))
            timed("seconds_with", "cpu_with", lambda: window(saves=True))
            forget()
            timed("save_s", "save_cpu_s", save)
            timed("cp_sync_s", "cp_sync_cpu_s", lambda: cp(sync=True))
            forget()
            timed("cp_s", "cp_cpu_s", lambda: cp(sync=False))
            say(f"round {index + 1} of {chosen.rounds}")
        like, parameters = abstract_state(cfg, optimizer), sum(x.size for x in jax.tree.leaves(state.params))
        size = sum(path.stat().st_size for path in checkpoints.path(number).rglob("*") if path.is_file())
        for _ in range(chosen.rounds):
            timed("restore_s", "restore_cpu_s", lambda: checkpoints.restore(like))
    return {"bytes": size, "parameters": parameters, **found}


def _cpu_seconds() -> float:
    """Of this process and those it started."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in both)


def _step(seconds: list[float]) -> float:
    return round(statistics.median(seconds) / EVERY, 4)


if __name__ == "__main__":
    main()
