"""Saved and restored bit for bit, and never from a damaged checkpoint."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.checkpoint import CheckpointError, Checkpoints, OtherModelError, _digest_arrays
from model.config import ComputeConfig, OptimizerConfig
from model.loop import TrainState, abstract_state, init_state, make_train_step
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


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, remove, change_the_record, break_the_record])
def test_a_damaged_checkpoint_is_refused_and_the_others_named(three, like, damage):
    damage(three / "3")
    with Checkpoints(three) as checkpoints:
        with pytest.raises(
            CheckpointError, match=r"/3 cannot be used: .*Delete that directory and resume from steps 1, 2"
        ):
            checkpoints.restore(like)
        assert checkpoints.restore(like, 2).step == 2


@pytest.mark.parametrize("changes", [{"num_layers": 3}, {"vocab_size": 161}])
def test_a_checkpoint_of_another_shape_is_refused(three, changes):
    other = abstract_state(small_config(**({"num_layers": 2} | changes)), OPTIMIZER)
    with Checkpoints(three) as checkpoints, pytest.raises(CheckpointError, match="/3 holds another model or optimizer"):
        checkpoints.restore(other)


def on_devices(count: int, *arguments) -> dict:
    """Run moved_checkpoint with so many CPU devices."""
    flags = f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=0"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.model.moved_checkpoint", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_on_another_mesh_and_another_number_of_devices_the_arrays_are_the_same_bits(tmp_path):
    saved = on_devices(8, tmp_path, "fsdp=8")
    assert (saved["devices"], saved["parts"], len(saved["digests"])) == (8, 8, len(set(saved["digests"])))
    for count, axes in ((8, ["data=2", "fsdp=4"]), (4, ["fsdp=4"]), (1, ["fsdp=1"])):
        found = on_devices(count, tmp_path, *axes)
        assert (found["devices"], found["parts"]) == (count, count)
        assert found["digests"] == saved["digests"]


FEW = TrainState(jnp.asarray(5, jnp.int32), {"w": jnp.arange(3000.0)}, {"m": jnp.ones((7, 9))})


def test_damage_to_any_file_is_refused_or_changes_nothing(tmp_path):
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), FEW)
    facts = {"sample": 17, "ledger": {"ja": 5}}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, FEW, facts)
        checkpoints.wait()
        files = sorted(path for path in checkpoints.path(5).rglob("*") if path.is_file())
        refused = set()
        for path in files:
            whole = path.read_bytes()
            flips = (whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :] for at in _places(len(whole)))
            for damaged in (*flips, whole[: len(whole) // 2], b""):
                path.write_bytes(damaged)
                try:
                    restored = checkpoints.restore(like, 5)
                except CheckpointError:
                    refused.add(path.parent.name if path.parent.name == "d" else path.name)
                else:
                    assert equal(leaves(restored.state), leaves(FEW)), path
                    assert restored.extra == facts, path
            path.write_bytes(whole)
        assert {"d", "metadata", "manifest.ocdbt", "_METADATA"} <= refused
        assert checkpoints.restore(like, 5).extra == facts


def _places(size: int) -> list[int]:
    """Beginning, end and a few bytes between."""
    return sorted({0, size // 3, size // 2, size - 1})


def test_a_position_that_was_changed_is_refused_though_it_is_still_json(three, like):
    record = three / "3" / "record" / "metadata"
    text = record.read_text()
    assert '"at": 3' in text
    record.write_text(text.replace('"at": 3', '"at": 2'))
    with (
        Checkpoints(three) as checkpoints,
        pytest.raises(CheckpointError, match="/3 cannot be used: the digest of its"),
    ):
        checkpoints.restore(like, 3)


def test_a_record_of_another_format_is_said_to_be_one(three, like):
    record = three / "3" / "record" / "metadata"
    facts = json.loads(record.read_text())
    del facts["format"]
    record.write_text(json.dumps(facts))
    with Checkpoints(three) as checkpoints, pytest.raises(OtherModelError, match="has format 1, this program reads 2"):
        checkpoints.restore(like, 3)


def test_a_checkpoint_is_removed_unless_it_is_read_and_never_by_halves(three):
    with Checkpoints(three) as checkpoints:
        reader = os.open(three / "1", os.O_RDONLY)
        fcntl.flock(reader, fcntl.LOCK_SH)
        assert (checkpoints.delete(1), checkpoints.steps()) == (False, [1, 2, 3])
        os.close(reader)
        assert (checkpoints.delete(1), checkpoints.steps()) == (True, [2, 3])
        (three / "2").rename(three / ".deleted-2")  # where a kill may have ended a removal
        assert checkpoints.steps() == [3]
        checkpoints.sweep()
        assert [path.name for path in three.iterdir()] == ["3"]


def test_one_changed_bit_anywhere_changes_both_halves_of_a_digest():
    values = np.random.default_rng(0).standard_normal((3, 5, 2)).astype(np.float32)
    before, bits = digest(values), values.reshape(-1).view(np.uint32)
    for at in range(bits.size):
        for bit in (0, 13, 31):
            bits[at] ^= np.uint32(1 << bit)
            assert np.all(digest(values) != before)
            bits[at] ^= np.uint32(1 << bit)
    one, other = np.zeros((3, 5, 2), np.float32), np.zeros((3, 5, 2), np.float32)
    one[1, 2, 0] = other[2, 1, 0] = 1
    assert np.all(digest(one) != digest(other)), "the same values in other places"


def digest(values: np.ndarray) -> np.ndarray:
    return np.asarray(_digest_arrays({"x": jnp.asarray(values)})["x"])
