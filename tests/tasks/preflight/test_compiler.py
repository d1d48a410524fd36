"""Finding libtpu and telling its failures apart; the slow ones compile for real."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from model.config import ComputeConfig, OptimizerConfig
from tasks.errors import ConfigError
from tasks.preflight import compiler
from tasks.preflight.compiler import CompilerFault, compile_step, find_libtpu, libtpu_version
from tasks.preflight.costs import totals
from tasks.preflight.hlo import parse
from tasks.preflight.page import PAGE

SPEC = {
    "topology": "v6e:2x2",
    "model": "gemma2/tiny",
    "vocab_size": 0,
    "compute": asdict(ComputeConfig(dtype="bfloat16", remat="full")),
    "mesh": {"fsdp": 4},
    "optimizer": asdict(OptimizerConfig(peak_lr=1e-4, total_steps=1000, z_loss=1e-4)),
    "lora": None,
    "seq_len": 256,
    "rows": 4,
    "accumulate": 1,
}


def libtpu_is_here() -> bool:
    return bool(compiler.compiler_here())


def test_without_libtpu_the_command_to_install_it_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(compiler, "ROOT", tmp_path)
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="make tpu") as error:
        find_libtpu()
    assert "no libtpu in" in str(error.value)
    assert error.value.exit_code == 78
    assert compiler.compiler_here() == ""


def test_the_variable_wins_and_the_version_is_that_of_the_package(tmp_path, monkeypatch):
    library = tmp_path / "site-packages" / "libtpu" / "libtpu.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"123")
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(library))
    assert find_libtpu() == library
    assert libtpu_version(library) == "3 B"
    (library.parent.parent / "libtpu-0.0.42.1.dist-info").mkdir()
    assert libtpu_version(library) == "0.0.42.1"


@pytest.mark.parametrize(
    ("program", "kind", "part"),
    [
        pytest.param(
            "raise ValueError('vocab has 10 entries')", ConfigError, "vocab has 10 entries", id="of the model"
        ),
        pytest.param("raise RuntimeError('mosaic')", CompilerFault, "RuntimeError: mosaic", id="of the compiler"),
        pytest.param("import os; os.abort()", CompilerFault, "exit code -6", id="killed"),
    ],
)
def test_faults_of_the_child_are_told_apart(tmp_path, monkeypatch, program, kind, part):
    library = tmp_path / "libtpu.so"
    library.write_bytes(b"")
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(library))
    real = subprocess.run
    monkeypatch.setattr(
        compiler.subprocess, "run", lambda command, **options: real([sys.executable, "-c", program], **options)
    )
    with pytest.raises(kind, match=part):
        compile_step(SPEC, cache=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not libtpu_is_here(), reason="libtpu is not installed (make tpu)")
def test_the_real_step_compiles_for_four_chips_and_is_found_again_by_its_digest(tmp_path):
    first = compile_step(SPEC, cache=tmp_path)
    again = compile_step(SPEC, cache=tmp_path)
    other = compile_step(SPEC | {"compute": SPEC["compute"] | {"remat": "none"}}, cache=tmp_path)
    assert (first.facts["hit"], again.facts["hit"], other.facts["hit"]) == (False, True, False)
    assert first.digest == again.digest != other.digest
    assert first.facts["memory"]["peak"] > 0
    # Full remat computes each layer's forward matmuls twice; the last one of a layer need not be.
    full, none = (totals(parse(one.hlo())).matmul_flops for one in (first, other))
    assert 1.1 < full / none < 4 / 3


@pytest.mark.slow
@pytest.mark.skipif(not libtpu_is_here(), reason="libtpu is not installed (make tpu)")
def test_adapters_need_a_third_of_the_memory_for_weights_and_optimizer(tmp_path):
    all_weights = compile_step(SPEC, cache=tmp_path).facts["memory"]["argument"]
    adapters = compile_step(SPEC | {"lora": {"rank": 4, "alpha": 8.0}}, cache=tmp_path).facts["memory"]["argument"]
    assert all_weights / 3 < adapters < 1.1 * all_weights / 3


@pytest.mark.slow
@pytest.mark.skipif(not libtpu_is_here(), reason="libtpu is not installed (make tpu)")
def test_a_step_larger_than_a_chip_is_refused_by_the_compiler(tmp_path):
    large = SPEC | {"model": "gemma2/9b", "topology": "v6e:1x1", "mesh": {"fsdp": 1}, "rows": 1}
    found = compile_step(large, cache=tmp_path)
    assert not found.fits
    assert "HBM" in found.facts["refusal"]


@pytest.mark.slow
@pytest.mark.skipif(not libtpu_is_here(), reason="libtpu is not installed (make tpu)")
def test_the_command_prints_a_verdict_and_leaves_a_page(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "flows", "preflight", "cpt/tiny", "--store", str(tmp_path), "--set", "seq_len=256"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert done.returncode == 0, done.stderr
    assert "cpt/tiny on v6e:1x1 (1 chips): gemma2/tiny, 256 tokens a row" in done.stdout
    (folder,) = (tmp_path / "preflight").iterdir()
    assert (folder / "data" / PAGE).exists()
    assert json.loads((folder / "data" / "verdict.json").read_text())["fits"]
