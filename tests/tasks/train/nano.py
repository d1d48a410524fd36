"""A model small enough to train in a test, and `python -m tests.tasks.train.nano RUN.json`, a trainer that knows it."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from model.families import FAMILIES, gemma2
from tasks.artifact import Artifact
from tasks.train.config import TrainConfig
from tasks.train.run import RunSpec
from tasks.train.stage import resolve

NANO = replace(
    gemma2.SIZES["tiny"],
    embed_dim=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    query_scale=0.25,
    mlp_dim=64,
    max_seq_len=64,
    local_window=16,
)


@contextlib.contextmanager
def known() -> Iterator[None]:
    """While it lasts, `gemma2/nano` is a size of its family."""
    assert FAMILIES["gemma2"] is gemma2
    with patch.dict(gemma2.SIZES, nano=NANO):
        yield


SMALL = {
    "model": "gemma2/nano",
    "kind": "next_token",
    "seq_len": 32,
    "batch_tokens": 128,
    "total_tokens": 128 * 12,
    "peak_lr": 1e-2,
    "warmup_fraction": 0.2,
    "z_loss": 1e-4,
    "save_every_steps": 3,
    "log_every": 1,
}


def nano_config(**changes) -> TrainConfig:
    return TrainConfig(**(SMALL | changes))


def nano_spec(run_dir: Path, data: Artifact, base: Artifact | None = None, **changes) -> RunSpec:
    inputs = {"data": data} | ({"base": base} if base else {})
    return resolve(run_dir, nano_config(base="given" if base else "", **changes), inputs)


def never() -> bool:
    """Nobody tells the trainer to stop."""
    return False


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


if __name__ == "__main__":
    from tasks.train.__main__ import main

    with known():
        os._exit(main())
