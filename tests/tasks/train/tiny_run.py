"""A run without a model: a state of two small arrays, for tests of what happens around the arrays."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.checkpoint import Checkpoints
from model.loop import TrainState
from tasks.train.journal import Journal
from tasks.train.remote import Remote
from tasks.train.resume import Resume
from tasks.train.run import RunIdentity, RunSpec
from tasks.train.saves import Saves
from tests.tasks.train.nano import nano_config

IDENTITY = RunIdentity(config={}, data="data", tokenizer="tokenizer", base="")


def state(step: int, size: int = 64) -> TrainState:
    """What the arrays are at a step."""
    weights = np.random.default_rng(step).standard_normal((size, size), np.float32)
    return TrainState(jnp.asarray(step, jnp.int32), {"w": jnp.asarray(weights)}, {"m": jnp.asarray(-weights)})


def like(size: int = 64) -> TrainState:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0, size))


def equal(a: TrainState, b: TrainState) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@dataclass
class TinyRun:
    """A trainer that only saves. Use it as a context, like the trainer uses Saves."""

    run_dir: Path
    changes: dict[str, Any] = field(default_factory=dict)
    size: int = 64

    def __post_init__(self):
        self.spec = RunSpec(
            config=nano_config(**({"save_every_steps": 1} | self.changes)),
            identity=IDENTITY,
            run_dir=self.run_dir,
            data_dir=self.run_dir,
            tokenizer_dir=self.run_dir,
        )
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.spec.metrics, self.spec.saves)
        self.checkpoints = Checkpoints(self.spec.checkpoints)
        config = self.spec.config
        self.remote = Remote(config.remote, config.confirm_within_s) if config.remote else None

    def restore(self) -> int:
        """The step that the run goes on from; what was restored is compared with what was saved."""
        found = Resume(self.spec, self.journal, self.checkpoints, self.remote).restore(like(self.size))
        step = 0 if found is None else found.step
        if found is not None:
            assert equal(found.state, state(step, self.size)), f"step {step} is not what was saved"
            assert found.extra["tokens"] == step
        return step

    def __enter__(self) -> "TinyRun":
        self.at = step = self.restore()
        self.journal.begin(step)
        self.saves = Saves(self.spec, self.journal, self.checkpoints, self.remote)
        if step:
            self.saves.adopt(step)
        return self

    def __exit__(self, *_: object) -> None:
        self.saves.close()
        self.journal.close()

    def step(self, *, is_last: bool = False) -> None:
        """Make a step and save it."""
        self.at += 1
        self.journal.step({"step": self.at, "loss": 1.0})
        facts = {"identity": IDENTITY.model_dump(mode="json"), "tokens": self.at}
        self.saves.save(self.at, state(self.at, self.size), facts, is_last=is_last)

    def steps(self, count: int) -> "TinyRun":
        """Make so many steps, each confirmed."""
        for _ in range(count):
            self.step()
            self.saves.confirm()
        return self


def confirmed(spec: RunSpec) -> list[int]:
    return [json.loads(line)["step"] for line in spec.saves.read_text().splitlines()] if spec.saves.exists() else []
