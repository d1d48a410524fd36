"""Saved and restored bit for bit, and never from a damaged checkpoint."""

import gc
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from model.checkpoint import CheckpointError, Checkpoints
from model.config import ComputeConfig, OptimizerConfig
from model.loop import abstract_state, init_state, make_train_step
from tests.model.random_decoders import small_config

OPTIMIZER = OptimizerConfig(peak_lr=1e-2, total_steps=100, warmup_steps=2)
CONFIG = small_config(num_layers=2, compute=ComputeConfig(scan_layers=False, cpu_kernels=True, dtype="bfloat16"))


@pytest.fixture(scope="module")
def step():
    return make_train_step(CONFIG, OPTIMIZER)


@pytest.fixture
def like():
    return abstract_state(CONFIG, OPTIMIZER)


def leaves(state):
    return [np.asarray(leaf).copy() for leaf in jax.tree.leaves(state)]


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def three(tmp_path) -> Path:
    """Checkpoints of steps 1, 2, 3 of one state."""
    state = init_state(CONFIG, OPTIMIZER)
    with Checkpoints(tmp_path / "run") as checkpoints:
        for number in (1, 2, 3):
            checkpoints.save(number, state, {"at": number})
    return tmp_path / "run"


def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(step, like, packed, tmp_path):
    state, expected = init_state(CONFIG, OPTIMIZER), []
    with Checkpoints(tmp_path) as checkpoints:
        for number in range(1, 6):
            state, metrics = step(state, packed)
            expected.append(float(metrics["loss"]))
            if number == 2:
                # Written in the background while the next steps reuse the memory.
                checkpoints.save(number, state, {"sample": 17, "ledger": {"ja": 5}})
    final = leaves(state)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(like)
    assert (restored.step, restored.extra) == (2, {"sample": 17, "ledger": {"ja": 5}})
    state, losses = restored.state, []
    for _ in range(3):
        state, metrics = step(state, packed)
        losses.append(float(metrics["loss"]))
    assert losses == expected[2:]
    assert equal(leaves(state), final)


def test_the_last_ones_and_those_of_the_period_are_kept(tmp_path):
    state = init_state(CONFIG, OPTIMIZER)
    with Checkpoints(tmp_path, keep=2, keep_period=4) as checkpoints:
        for number in range(3, 9):
            checkpoints.save(number, state, {})
        checkpoints.wait()
        assert checkpoints.steps() == [4, 7, 8]


def test_a_step_may_be_named(three, like):
    with Checkpoints(three) as checkpoints:
        assert checkpoints.restore(like, 2).extra == {"at": 2}


def test_a_step_that_is_not_there_is_answered_with_those_that_are(three, like, tmp_path):
    with Checkpoints(three) as checkpoints, pytest.raises(CheckpointError, match=r"step 9 in .*steps 1, 2, 3"):
        checkpoints.restore(like, 9)
    with Checkpoints(tmp_path / "none") as checkpoints, pytest.raises(CheckpointError, match="no other step"):
        checkpoints.restore(like)


def _largest(directory: Path) -> Path:
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_bit(directory: Path) -> None:
    data = bytearray(_largest(directory).read_bytes())
    data[len(data) // 2] ^= 1
    _largest(directory).write_bytes(data)


def truncate(directory: Path) -> None:
    _largest(directory).write_bytes(_largest(directory).read_bytes()[:-1000])


def remove(directory: Path) -> None:
    _largest(directory).unlink()


def change_the_record(directory: Path) -> None:
    record = json.loads((directory / "record" / "metadata").read_text())
    record["digest"]["params.embed"] = "0" * 16
    (directory / "record" / "metadata").write_text(json.dumps(record))


def break_the_record(directory: Path) -> None:
    (directory / "record" / "metadata").write_text("{")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, remove, change_the_record, break_the_record])
def test_a_damaged_checkpoint_is_refused_and_the_others_named(three, like, damage):
    damage(three / "3")
    with Checkpoints(three) as checkpoints:
        with pytest.raises(
            CheckpointError, match=r"/3 cannot be used: .*Delete that directory and resume from steps 1, 2"
        ):
            checkpoints.restore(like)
        assert checkpoints.restore(like, 2).step == 2
    gc.collect()  # Orbax forgets its other reads when one fails; Python complains of them here and now


@pytest.mark.parametrize("changes", [{"num_layers": 3}, {"vocab_size": 161}])
def test_a_checkpoint_of_another_shape_is_refused(three, changes):
    other = abstract_state(small_config(**({"num_layers": 2} | changes)), OPTIMIZER)
    with Checkpoints(three) as checkpoints, pytest.raises(CheckpointError, match="/3 holds another model or optimizer"):
        checkpoints.restore(other)
