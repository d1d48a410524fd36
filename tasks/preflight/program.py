"""The program that is compiled: the real train step of a preset, on abstract devices. Runs in a child process.

Only `__main__` imports this module, in a process whose environment `compiler.py` has prepared.
"""

import gzip
import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from model.attention import choose_implementation
from model.compiler import compiler_options
from model.config import ComputeConfig, DecoderConfig, LoraConfig, MeshConfig, OptimizerConfig
from model.families import decoder_config
from model.loop import abstract_state, make_train_step
from model.losses import BATCH_KEYS
from model.sharding import make_mesh, sharding

OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Ran out of memory", "exceeds available HBM")


def compile_program(spec: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Lower the step, and compile it unless the cache holds the same program; what is known of it as JSON.

    `memory` is None when the compiler says that it does not fit, and `refusal` then is what it said.
    """
    began = time.monotonic()
    mesh = abstract_mesh(spec["topology"], MeshConfig(**spec["mesh"]))
    cfg = decoder(spec)
    lowered = lower(spec, cfg, mesh)
    facts = {
        "topology": spec["topology"],
        "options": compiler_options(mesh) or {},
        "jax": jax.__version__,
        "libtpu": spec["libtpu"],
        "program": hashlib.sha256(str(lowered.as_text()).encode()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    lower_s = round(time.monotonic() - began, 1)
    folder = cache / digest[:24]
    papers = folder / "compiled.json"
    if papers.exists():
        return json.loads(papers.read_text()) | {"hit": True, "lower_s": lower_s}
    folder.mkdir(parents=True, exist_ok=True)
    began, cpu = time.monotonic(), time.process_time()
    found: dict[str, Any] = {**facts, "digest": digest, "params": cfg.num_params, "memory": None, "refusal": ""}
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if not any(mark in str(error) for mark in OUT_OF_MEMORY):
            raise
        found["refusal"] = str(error).strip().splitlines()[0][:1000]
    else:
        found |= {"memory": memory(compiled), "cost_analysis_flops": cost_analysis_flops(compiled)}
        _keep(folder / "hlo.txt.gz", gzip.compress(str(compiled.as_text()).encode(), compresslevel=6, mtime=0))
    found |= {
        "compile_s": round(time.monotonic() - began, 1),
        "compile_cpu_s": round(time.process_time() - cpu, 1),
    }
    _keep(papers, json.dumps(found, indent=1).encode())
    return found | {"hit": False, "lower_s": lower_s}


def abstract_mesh(topology: str, cfg: MeshConfig) -> Mesh:
    """A mesh of the devices of a slice that is not here."""
    sizes = [int(size) for size in topology.partition(":")[2].split("x")]
    # Chips of a host along each dimension: the default of (2, 2, 1) refuses a slice that is thinner.
    bounds = {"chips_per_host_bounds": (min(2, sizes[0]), min(2, sizes[1]), 1)} if min(sizes[:2]) < 2 else {}
    described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **bounds)
    return make_mesh(cfg, described.devices)


def decoder(spec: dict[str, Any]) -> DecoderConfig:
    """The decoder as the trainer would make it on a TPU."""
    compute = ComputeConfig(**spec["compute"])
    if compute.attention == "auto":  # this process runs on a CPU; the trainer will not
        queries = spec["seq_len"] // spec["mesh"].get("context", 1)
        compute = replace(compute, attention=choose_implementation("tpu", queries, spec["seq_len"]))
    lora = LoraConfig(**spec["lora"]) if spec["lora"] else None
    cfg = decoder_config(spec["model"], compute=compute, lora=lora)
    return replace(cfg, vocab_size=spec["vocab_size"]) if spec["vocab_size"] else cfg


def lower(spec: dict[str, Any], cfg: DecoderConfig, mesh: Mesh) -> jax.stages.Lowered:
    """The step that `tasks.train` calls, traced for the mesh."""
    optimizer = OptimizerConfig(**spec["optimizer"])
    shape = (spec["rows"], spec["seq_len"])
    rows = sharding(mesh, ("batch", "length"), shape)
    batch = {
        key: jax.ShapeDtypeStruct(shape, jnp.float32 if key == "weights_BT" else jnp.int32, sharding=rows)
        for key in BATCH_KEYS
    }
    step: Any = make_train_step(cfg, optimizer, mesh=mesh, accumulate=spec["accumulate"])
    return step.lower(abstract_state(cfg, optimizer, mesh=mesh), batch)


def memory(compiled: jax.stages.Compiled) -> dict[str, int]:
    """XLA's account of one device, bytes. `temp` counts every buffer, `peak` those that live at the same time."""
    found: Any = compiled.memory_analysis()
    names = ("argument", "output", "alias", "temp", "generated_code")
    return {name: getattr(found, f"{name}_size_in_bytes") for name in names} | {"peak": found.peak_memory_in_bytes}


def cost_analysis_flops(compiled: jax.stages.Compiled) -> float:
    """What XLA itself says, which counts a loop's body once and kernels as nothing."""
    found: Any = compiled.cost_analysis()
    return float((found[0] if isinstance(found, list) else found).get("flops", 0.0))


def _keep(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_bytes(data)
    partial.replace(path)
