"""Modelled MFU of Gemma 2 on TPU v6e, ours against MaxText, both compiled here by the real TPU compiler.

    python -m bench.preflight [--only 27b] [--skip-peer] [--cache FOLDER]

27B on 256 chips, 9B and 2B on 64, rows of 8,192 tokens. Ours is the step that the preset `cpt/SIZE` trains with; the
peer is MaxText's `train_compile` with its own defaults for the model and with as many rows of a device as fit. Both
HLO texts go through the same model (`tasks/preflight`: trip counts, cycle estimates, kernels priced by hand, one serial
queue of collectives). MFU is 6 N T over 918 TFLOP/s and the modelled step, N being each program's own parameters.

Nothing runs on a TPU. Left out: contention for HBM between collectives and compute, the host, the network between
slices; XLA's cycle estimates rank variants and are not seconds. A full-size program takes 5 to 15 minutes of one core
and 3 GB; finished ones are kept under .cache/bench-preflight/ by digest and not compiled again.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.harness import CACHE, ROOT, peer_python, say
from flows.preflight import trained_step
from flows.presets import CPT, CptPreset
from model.compiler import COMPILER_OPTIONS
from model.config import ComputeConfig
from tasks.preflight.compiler import Compiled, compile_step, find_libtpu, libtpu_version
from tasks.preflight.config import PreflightConfig, TrainedStep
from tasks.preflight.estimate import Estimate, estimate
from tasks.preflight.slices import Slice
from tasks.preflight.stage import decoder, program_of

PEER = "maxtext[tpu]==0.2.5"
SEQ_LEN = 8_192
# Variants tried of each size: (rows of a device at once, remat). The best that fits is reported; all are in `trials`.
SIZES: Mapping[str, tuple[str, tuple[tuple[int, str], ...]]] = {
    "27b": ("v6e:16x16", ((1, "projections"), (4, "full"))),
    "9b": ("v6e:8x8", ((1, "projections"), (2, "projections"))),
    "2b": ("v6e:8x8", ((1, "none"), (2, "projections"))),
}
VMEM = {"xla_tpu_scoped_vmem_limit_kib": "98304"}
# Rows of a device that MaxText is tried with, best first to last; it runs out of memory at 4 with 27B.
PEER_ROWS: Mapping[str, tuple[int, ...]] = {"27b": (1, 2, 4), "9b": (2,), "2b": (2,)}
# The model against a measurement: MaxText's published recipe for Llama 3.1 8B on v6e-256 (4 rows of 8,192 tokens)
# took 4.546 s a step: AI-Hypercomputer/tpu-recipes, training/trillium/Llama3.1-8B-MaxText/v6e-256, jax 0.6.1. There,
# continuation fusions moved its gathers, which newer compilers refuse on v6e; here the SparseCore does.
CALIBRATION_STEP_S, CALIBRATION_ROWS = 4.546, 4
CALIBRATION = (
    "remat_policy=custom",
    *(f"{name}=offload" for name in ("decoder_layer_input", "out_proj", "query_proj", "key_proj", "value_proj")),
    "attention=flash",
    "use_iota_embed=True",
    *(
        f"sa_block_{name}=2048"
        for name in ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    ),
    "sa_use_fused_bwd_kernel=True",
)


@dataclass(frozen=True)
class Peer:
    """A MaxText program: what came out, or that it does not fit."""

    rows: int
    facts: dict[str, Any]
    hlo_path: Path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--only", choices=tuple(SIZES), action="append", help="sizes; all without it")
    parser.add_argument("--skip-peer", action="store_true", help="ours alone (MaxText's environment takes 13 minutes)")
    parser.add_argument("--cache", type=Path, default=CACHE / "bench-preflight", help="where programs are kept")
    chosen = parser.parse_args(arguments)
    line: dict[str, Any] = {
        "bench": "preflight",
        "unit": "modelled MFU (6 N T / peak / step)",
        "libtpu": libtpu_version(find_libtpu()),
    }
    trials: dict[str, Any] = {}
    for size in chosen.only or SIZES:
        slice_, variants = SIZES[size]
        key = f"{size}_{slice_.partition(':')[0]}_{_chips(slice_)}"
        ours = [_ours(size, slice_, rows, remat, chosen.cache) for rows, remat in variants]
        line |= _keys(key, ours)
        trials[key] = [_row(one) for one in ours]
        if not chosen.skip_peer:
            peers = [_theirs(size, slice_, rows, chosen.cache) for rows in PEER_ROWS[size]]
            line |= _peer_keys(key, peers, line[f"mfu.{key}"])
            trials[f"maxtext.{key}"] = [_row(one) for one in peers]
    if not chosen.skip_peer and not chosen.only:
        line |= _calibration(chosen.cache)
    line |= {
        "trials": trials,
        "peer": PEER,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
    }
    print(json.dumps(line), flush=True)


def _ours(size: str, slice_: str, rows: int, remat: str, cache: Path) -> Estimate:
    run = CPT[CptPreset(size)]
    step = trained_step(run).model_copy(
        update={
            "rows": rows * _chips(slice_),
            "accumulate": 1,
            "compute": asdict(run.compute("tpu")) | {"remat": remat},
        }
    )
    config = PreflightConfig(run=f"cpt/{size}", slice=slice_, step=step)
    say(f"ours {size} on {slice_}, {rows} rows at once, remat {remat} …")
    compiled = compile_step(program_of(step, config), cache=cache)
    found = estimate(compiled, step, decoder(step), config)
    say(_said(found))
    return found


def _theirs(size: str, slice_: str, rows: int, cache: Path) -> Estimate:
    """MaxText's step under our model. Its table has 256,128 rows and 27B's layers are counted in pairs, as ours."""
    say(f"MaxText {size} on {slice_}, {rows} rows …")
    chips = _chips(slice_)
    peer = _compiled_peer(f"gemma2-{size}", chips, rows, cache, VMEM)
    step = TrainedStep(
        model=f"gemma2/{size}",
        vocab_size=256_128,
        seq_len=SEQ_LEN,
        rows=rows * chips,
        mesh={"fsdp": chips},
        compute=asdict(ComputeConfig(dtype="bfloat16", remat="full")),
        optimizer={},
    )
    config = PreflightConfig(run=f"maxtext/{size}", slice=slice_, step=step)
    compiled = Compiled(peer.facts["digest"], peer.facts, peer.hlo_path)
    found = estimate(compiled, step, decoder(step), config)
    say(_said(found))
    return found


def _calibration(cache: Path) -> dict[str, Any]:
    """Modelled over measured seconds of a step that was run on chips."""
    say("MaxText llama3.1-8b on v6e:16x16, the published recipe …")
    flags = {key: value for key, value in COMPILER_OPTIONS["TPU v6 lite"].items() if "vmem" not in key} | VMEM
    peer = _compiled_peer("llama3.1-8b", 256, CALIBRATION_ROWS, cache, flags, CALIBRATION)
    step = TrainedStep(
        model="llama3/3.1-8b",
        seq_len=SEQ_LEN,
        rows=CALIBRATION_ROWS * 256,
        mesh={"fsdp": 256},
        compute=asdict(ComputeConfig(dtype="bfloat16", remat="full")),
        optimizer={},
    )
    config = PreflightConfig(run="maxtext/llama3.1-8b", slice="v6e:16x16", step=step)
    found = estimate(Compiled(peer.facts["digest"], peer.facts, peer.hlo_path), step, decoder(step), config)
    say(_said(found))
    assert found.time is not None
    return {
        "calibration.measured_step_s": CALIBRATION_STEP_S,
        "calibration.modelled_step_s": round(found.time.step_s, 3),
        "calibration.stalls_s": round(found.time.stalls_s, 3),
        "calibration.modelled_over_measured": round(found.time.step_s / CALIBRATION_STEP_S, 3),
        "calibration.range": [
            round(found.time.step_s * found.time.mfu / mfu / CALIBRATION_STEP_S, 3)
            for mfu in (found.time.mfu_high, found.time.mfu_low)
        ],
    }


def _compiled_peer(
    model: str, chips: int, rows: int, cache: Path, flags: Mapping[str, str], more: Sequence[str] = ()
) -> Peer:
    changes = [
        "run_name=bench",
        "base_output_directory=/tmp/maxtext",
        "jax_cache_dir=",
        "dataset_type=synthetic",
        "enable_checkpointing=false",
        "compile_topology_num_slices=1",
        f"model_name={model}",
        f"compile_topology=v6e-{chips}",
        f"per_device_batch_size={rows}",
        f"max_target_length={SEQ_LEN}",
        "compile_xla_flags=" + " ".join(f"--{key}={value}" for key, value in flags.items()),
        *more,
    ]
    digest = hashlib.sha256(json.dumps([PEER, changes]).encode()).hexdigest()
    folder = cache / f"maxtext-{digest[:24]}"
    papers = folder / "compiled.json"
    if not papers.exists():
        folder.mkdir(parents=True, exist_ok=True)
        script = ROOT / "bench" / "peers" / "maxtext_compile.py"
        python = peer_python(PEER, python="3.12")
        environment = {
            **{key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "PYTHONPATH")},
            "JAX_PLATFORMS": "cpu",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_ACCELERATOR_TYPE": "v6e-8",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_WORKER_ID": "0",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        environment.pop("TPU_LIBRARY_PATH", None)  # it brings its own
        done = subprocess.run(
            [str(python), str(script), str(folder), *changes], env=environment, capture_output=True, text=True
        )
        if not papers.exists():
            refusal = [text for text in done.stderr.splitlines() if "exceeds available HBM" in text]
            if not refusal:
                raise SystemExit(f"MaxText failed with exit code {done.returncode}:\n{done.stderr.strip()[-2000:]}")
            papers.write_text(json.dumps({"memory": None, "compile_s": 0.0, "refusal": refusal[0].strip()[:1000]}))
    facts = {"refusal": "", "cost_analysis_flops": 0.0, "digest": digest} | json.loads(papers.read_text())
    return Peer(rows, facts, folder / "hlo.txt.gz")


def _keys(key: str, ours: Sequence[Estimate]) -> dict[str, Any]:
    best = max((one for one in ours if one.time), key=lambda one: one.time.mfu if one.time else 0.0)
    assert best.time is not None
    assert best.memory is not None
    inside = [wire for wire in best.wires if "while/body" in wire.source]
    return {
        f"mfu.{key}": round(best.time.mfu, 4),
        f"mfu_low.{key}": round(best.time.mfu_low, 4),
        f"mfu_high.{key}": round(best.time.mfu_high, 4),
        f"rows.{key}": best.rows_at_once,
        f"remat.{key}": best.remat,
        f"peak_gib.{key}": round(best.memory.peak, 2),
        f"temp_gib.{key}": round(best.memory.temp, 2),
        f"step_s.{key}": round(best.time.step_s, 4),
        f"stalls_s.{key}": round(best.time.stalls_s, 4),
        f"remat_ops.{key}": best.remat_ops,
        f"matmul_over_6nt.{key}": round(best.matmul_flops / best.model_flops, 4),
        f"blocking_in_loops.{key}": sum(wire.runs for wire in inside if not wire.is_async and wire.bytes > 1e6),
        f"largest_rows.{key}": max(one.rows_at_once for one in ours if one.fits),
        f"digest.{key}": best.digest[:24],
    }


def _peer_keys(key: str, peers: Sequence[Estimate], mfu: float) -> dict[str, Any]:
    fitting = [one for one in peers if one.time]
    theirs = max((one.time.mfu for one in fitting if one.time), default=0.0)
    return {
        f"maxtext.{key}": round(theirs, 4),
        f"maxtext_rows_fit.{key}": max((one.rows_at_once for one in fitting), default=0),
        f"ratio.{key}": round(mfu / theirs, 4) if theirs else None,
    }


def _row(one: Estimate) -> dict[str, Any]:
    row: dict[str, Any] = {"rows": one.rows_at_once, "remat": one.remat, "fits": one.fits, "digest": one.digest[:24]}
    if one.time and one.memory:
        row |= {
            "mfu": round(one.time.mfu, 4),
            "step_s": round(one.time.step_s, 4),
            "stalls_s": round(one.time.stalls_s, 4),
            "peak_gib": round(one.memory.peak, 2),
            "remat_ops": one.remat_ops,
        }
    return row


def _said(one: Estimate) -> str:
    if one.time is None or one.memory is None:
        return f"  does not fit: {one.refusal[:160]}"
    return f"  MFU {one.time.mfu:.2%}, stalls {one.time.stalls_s:.3f} s, peak {one.memory.peak:.2f} GiB"


def _chips(slice_: str) -> int:
    return Slice.parse(slice_).chips


if __name__ == "__main__":
    main()
