"""The same run on one device, on four, and moved from four to two in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tasks.train.nano import nano_spec

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow


def run(spec, devices: int, stop_at: int | None = None, expected: int = 0) -> list[float]:
    """Train in a process with so many CPU devices; SIGTERM after a step; returns the losses."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "tests.tasks.train.nano", str(spec.write())]
    with spec.log.open("ab") as out:
        child = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags}, stderr=out)
        while stop_at is not None and child.poll() is None:
            if spec.metrics.exists() and len(spec.metrics.read_text().splitlines()) >= stop_at:
                child.send_signal(signal.SIGTERM)
                break
            time.sleep(0.01)
        code = child.wait()
    assert code == (expected if stop_at is None else 75), spec.log.read_text()[-2000:]
    return [json.loads(line)["loss"] for line in spec.metrics.read_text().splitlines()]


def by_source(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line)["source_loss"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_losses_do_not_depend_on_the_mesh_and_a_run_may_move(tmp_path, text_pack):
    # The running mean lies where its weights do, what the guard remembers everywhere.
    long = {"total_tokens": 128 * 60, "streams": 4, "ema_decay": 0.9, "spike_factor": 1e3, "spike_window": 16}
    one = run(nano_spec(tmp_path / "one", text_pack, **long), 1)
    four = run(nano_spec(tmp_path / "four", text_pack, mesh={"fsdp": 2, "data": 2}, **long), 4)
    assert four == pytest.approx(one, rel=2e-3)
    assert four[:5] == pytest.approx(one[:5], rel=1e-5)
    for ours, theirs in zip(by_source(tmp_path / "four")[:5], by_source(tmp_path / "one")[:5], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    moved = nano_spec(tmp_path / "moved", text_pack, mesh={"fsdp": 2, "data": 2}, **long)
    before = run(moved, 4, stop_at=20)
    assert 20 <= len(before) < 60
    after = run(nano_spec(tmp_path / "moved", text_pack, mesh={"fsdp": 2}, **long), 2)
    assert after[: len(before)] == before
    assert after == pytest.approx(one, rel=2e-3)


def test_a_run_that_moves_from_1x8_to_2x4_to_1x4_devices_reads_the_same_rows(tmp_path, text_pack):
    shape = {"batch_tokens": 32 * 8, "total_tokens": 32 * 8 * 24, "streams": 8, "peak_lr": 1e-3, "save_every_steps": 5}
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    expected = run(nano_spec(whole, text_pack, mesh={"fsdp": 8}, **shape), 8)
    assert 6 <= len(run(nano_spec(moved, text_pack, mesh={"fsdp": 8}, **shape), 8, stop_at=6)) < 12
    second = run(nano_spec(moved, text_pack, mesh={"data": 2, "fsdp": 4}, **shape), 8, stop_at=14)
    assert 14 <= len(second) < 24
    last = nano_spec(moved, text_pack, mesh={"fsdp": 4}, **shape)
    assert run(last, 4) == pytest.approx(expected, rel=1e-5)
    ledgers = [(run_dir / "result" / "token_ledger.json").read_bytes() for run_dir in (whole, moved)]
    assert ledgers[0] == ledgers[1]
    lines = [(run_dir / "metrics.jsonl").read_text().splitlines() for run_dir in (whole, moved)]
    assert [json.loads(line)["tokens"] for line in lines[0]] == [json.loads(line)["tokens"] for line in lines[1]]


def test_a_mesh_that_does_not_fit_the_model_is_a_config_fault(tmp_path, text_pack):
    spec = nano_spec(tmp_path, text_pack, mesh={"tensor": 2})
    with pytest.raises(FileNotFoundError):
        run(spec, 2, expected=78)
    assert "num_kv_heads=1 cannot be cut by tensor=2" in json.loads(spec.error.read_text())["message"]
