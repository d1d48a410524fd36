"""The preflight stage: compile the step, look for better ones, keep the verdict and a page about it."""

import gzip
import logging
from dataclasses import asdict, replace
from typing import Any, get_args, get_type_hints

from model.config import ComputeConfig, DecoderConfig, LoraConfig
from model.families import decoder_config
from tasks.artifact import Artifact, Stage, Workspace
from tasks.errors import ConfigError
from tasks.preflight.compiler import Compiled, compile_step
from tasks.preflight.config import PreflightConfig, TrainedStep
from tasks.preflight.estimate import Estimate, estimate
from tasks.preflight.interruptions import Outlook, best_interval, expect, run_on
from tasks.preflight.page import PAGE, page
from tasks.preflight.search import Found, search
from tasks.preflight.slices import Slice
from tasks.preflight.summary import refusal, summary
from tasks.progress import track

log = logging.getLogger(__name__)

UNIT = "preflight"
VERDICT, SUMMARY, HLO = "verdict.json", "summary.txt", "hlo.txt.gz"


def preflight(workspace: Workspace, config: PreflightConfig, inputs: dict[str, Artifact]) -> None:
    """Keep verdict.json, summary.txt, report.html and the HLO text of the run's own step."""
    if workspace.unit_record(UNIT) is not None:
        return
    step = config.step
    if step is None:
        raise ConfigError(
            f"run={config.run!r} has not become a step: a preflight compiles the step of a training preset. Start it "
            "as a flow: nestling preflight cpt/27b."
        )
    require_whole(step, Slice.parse(config.slice))
    programs: dict[str, Compiled] = {}
    with track(f"preflight {config.run}", None, "programs") as bar:

        def attempt(chosen: TrainedStep) -> Estimate:
            compiled = compile_step(program_of(chosen, config))
            programs[compiled.digest] = compiled
            found = estimate(compiled, chosen, decoder(chosen), config)
            bar.advance(1, note=_note(found))
            return found

        own = attempt(step)
        found = Found(own if own.fits else None, own if own.fits else None, (own,), False)
        if config.search:
            found = search(
                lambda rows, remat: attempt(step.variant(rows_at_once=rows, remat=remat)),
                remat_policies(),
                first=(own,),
                most_rows=config.search_rows,
                compiles=config.search_compiles,
            )
    found_outlook = outlook(own, config)
    with workspace.unit(UNIT) as unit:
        unit.write_json(VERDICT, verdict(config, own, found, found_outlook))
        unit.write_bytes(SUMMARY, summary(config, own, found, found_outlook).encode())
        unit.write_bytes(PAGE, page(config, own, found, found_outlook).encode())
        if own.fits:
            text = programs[own.digest].hlo()
            unit.write_bytes(HLO, gzip.compress(text.encode(), compresslevel=6, mtime=0))
    workspace.note(fits=own.fits, run=config.run, slice=config.slice)


def remat_policies() -> tuple[str, ...]:
    """By the memory that they keep, least first; without remat everything is kept."""
    named = get_args(get_type_hints(ComputeConfig)["remat"])
    return (*(name for name in named if name != "none"), "none")


def decoder(step: TrainedStep) -> DecoderConfig:
    """The decoder that is trained."""
    lora = LoraConfig(**step.lora) if step.lora else None
    cfg = decoder_config(step.model, compute=ComputeConfig(**step.compute), lora=lora)
    return replace(cfg, vocab_size=step.vocab_size) if step.vocab_size else cfg


def program_of(step: TrainedStep, config: PreflightConfig) -> dict[str, Any]:
    """What the compiling process is told."""
    return {
        "topology": Slice.parse(config.slice).topology,
        "model": step.model,
        "vocab_size": step.vocab_size,
        "compute": step.compute,
        "mesh": step.mesh,
        "optimizer": step.optimizer,
        "lora": step.lora,
        "seq_len": step.seq_len,
        "rows": step.rows,
        "accumulate": step.accumulate,
    }


def require_whole(step: TrainedStep, slice_: Slice) -> None:
    """The mesh fills the slice, and the batch fills the mesh.

    Raises:
        ConfigError: it does not.
    """
    devices = 1
    for size in step.mesh.values():
        devices *= size
    if devices != slice_.devices:
        raise ConfigError(
            f"mesh={step.mesh} is {devices} devices, {slice_} has {slice_.devices}: every device has its place in the "
            f"mesh. Change the mesh of the run (--set mesh.fsdp={slice_.devices}), or the slice."
        )
    parts = step.batch_parts * step.accumulate
    if step.rows % parts:
        raise ConfigError(
            f"{step.rows} rows in a batch cannot be cut into {parts} equal parts (mesh and accumulate): every "
            f"device computes as many rows. Use a batch of {parts * max(1, step.rows // parts)} rows."
        )


def outlook(own: Estimate, config: PreflightConfig) -> Outlook | None:
    """What interruptions make of the run, as far as it is known how long it is."""
    every = config.step.save_every_steps if config.step else None
    if own.cost is None or own.time is None or own.memory is None or every is None:
        return None
    run = run_on(
        Slice.parse(config.slice),
        config.interruptions,
        steps=own.cost.steps,
        step_s=own.time.step_s,
        state_gib=own.memory.arguments,
    )
    try:
        return Outlook(
            run=run,
            own=expect(run, config.interruptions, min(every, run.steps)),
            best=best_interval(run, config.interruptions),
        )
    except ValueError as error:
        raise ConfigError(f"{config.run} on {config.slice}: {error}") from error


def verdict(config: PreflightConfig, own: Estimate, found: Found, outlook: Outlook | None) -> dict[str, Any]:
    """Everything, for programs."""
    named = {"own": own, "best": found.best, "largest": found.largest}
    return {
        "run": config.run,
        "slice": config.slice,
        "fits": own.fits,
        "compiler": config.compiler,
        "search_complete": found.complete,
        "outlook": asdict(outlook) if outlook else None,
        "trials": [one.to_json() | {"wires": []} for one in found.trials],
        **{name: one.to_json() if one else None for name, one in named.items()},
    }


def require_fit(artifact: Artifact) -> None:
    """Refuse a run whose step does not fit, before a chip is paid for.

    Raises:
        ConfigError: with what would fit.
    """
    found = artifact.read_json(VERDICT)
    if not found["fits"]:
        raise ConfigError(refusal(found))


def _note(found: Estimate) -> str:
    what = f"{found.rows_at_once:g} rows at once, remat {found.remat}"
    if found.time is None or found.memory is None:
        return f"{what}: does not fit"
    return f"{what}: {found.memory.peak:.1f} GiB, MFU {found.time.mfu:.1%}"


PREFLIGHT = Stage(name="preflight", version="1", run=preflight, code=("tasks.preflight", "model"))
