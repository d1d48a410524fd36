"""What is kept of a step that stopped the run: enough to compute it again (tasks/train/replay.py)."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.errors import ConfigError, DataFault
from tasks.train.numbers import Numbers, said
from tasks.train.packing import Row
from tasks.train.run import RunSpec

BATCH, STEP, RUN = "batch.npz", "step.json", "run.json"


class DumpedStep(BaseModel):
    """`step.json`: which step it was, and what it was found to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    checkpoint: int
    """The newest whole checkpoint before it; 0 is the beginning of the run."""
    numbers: dict[str, Any]


def dump_step(
    spec: RunSpec, step: int, batch: Row, numbers: Numbers, checkpoint: int, kind: str, limit: int, *, writes: bool
) -> DataFault:
    """Write `dump/`, which of several trainers only the first does, and return the error that ends the run."""
    if writes:
        shutil.rmtree(spec.dump, ignore_errors=True)
        spec.dump.mkdir(parents=True)
        np.savez(spec.dump / BATCH, **batch)  # pyright: ignore[reportArgumentType]
        (spec.dump / RUN).write_text(spec.model_dump_json(indent=1) + "\n")
        found = DumpedStep(step=step, checkpoint=checkpoint, numbers=numbers)
        (spec.dump / STEP).write_text(found.model_dump_json(indent=1) + "\n")
    what = "not finite" if kind == "not_finite" else "a spike"
    knob = "skip_nonfinite" if kind == "not_finite" else "skip_spikes"
    return DataFault(
        f"step {step} is {what}: loss {said(numbers['loss'])}, gradient norm {said(numbers['grad_norm'])}, "
        f"by source {numbers['source_loss']}. {knob}={limit} such steps may be left out, and this is one more, so the "
        f"run stops and saves nothing after step {checkpoint}. Its batch is in {spec.dump}; `python -m "
        f"tasks.train.replay {spec.dump}` computes the step again. Lower peak_lr, lengthen the warm-up, look at the "
        f"documents of that batch, or raise {knob}."
    )


def read_dump(dump: Path) -> tuple[DumpedStep, Row]:
    """The step and its batch.

    Raises:
        ConfigError: the directory holds no dump.
    """
    try:
        found = DumpedStep.model_validate_json((dump / STEP).read_bytes())
        with np.load(dump / BATCH) as arrays:
            return found, {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{dump} cannot be read as a dump ({error}): a replay needs {STEP}, {BATCH} and {RUN}. Give the dump/ of a "
            "run directory whose trainer stopped with exit code 77."
        ) from error


def same(one: Any, other: Any) -> bool:
    """Equal as JSON, to the last digit."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
