"""A training preset to what it needs and costs on its slice, compiled without a chip."""

from collections.abc import Sequence
from dataclasses import asdict

from prefect import flow

from flows.changes import changes_model
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import PREFLIGHT, PreflightPreset
from flows.runner import run_flow
from tasks.artifact import open_artifact
from tasks.errors import ConfigError
from tasks.preflight.compiler import compiler_here
from tasks.preflight.config import PreflightConfig, TrainedStep
from tasks.preflight.slices import Slice
from tasks.preflight.stage import PREFLIGHT as PREFLIGHT_STAGE
from tasks.preflight.stage import require_fit
from tasks.preflight.task import preflight_run
from tasks.train.config import TrainConfig

ONE_CHIP = "v6e:1x1"  # for runs that need no accelerator


def build(resolver: Resolver, preset: str, config: PreflightConfig) -> Outputs:
    """One verdict, with the step of the run that it names."""
    flow_name, _, run_preset = config.run.partition("/")
    run = resolver.config(flow_name, run_preset)
    if not isinstance(run, TrainConfig):
        raise ConfigError(
            f"run={config.run!r} trains nothing: a preflight compiles an optimizer step. Name a training preset, for "
            "example cpt/27b."
        )
    slice_ = config.slice or run.needs.removeprefix("tpu ") or ONE_CHIP
    config = config.with_changes(
        {
            "slice": str(Slice.parse(slice_)),
            "step": (config.step or trained_step(run)).model_dump(),
            "compiler": config.compiler or compiler_here(),
        }
    )
    step = Step(config.run.replace("/", "-"), PREFLIGHT_STAGE, preflight_run, config)
    return {"main": step, "report": step}


def trained_step(run: TrainConfig) -> TrainedStep:
    """What the trainer would compile on a TPU."""
    steps = run.steps(0) if run.total_tokens else 1_000
    return TrainedStep(
        model=run.model,
        seq_len=run.seq_len,
        rows=run.rows,
        accumulate=run.accumulate,
        total_tokens=run.total_tokens,
        save_every_steps=run.save_every_steps,
        mesh=asdict(run.mesh.to_model()),
        compute=asdict(run.compute("tpu")),
        optimizer=asdict(run.optimizer(steps)),
        lora=asdict(run.lora) if run.lora else None,
    )


def target(reference: str, pairs: Sequence[str]) -> tuple[str, list[str]]:
    """What `nestling preflight REFERENCE --set …` means: a preset, and changes with the run they belong to.

    REFERENCE is a preset or a training run FLOW/PRESET. A key that is no knob of the preflight is one of the run.
    """
    rows = {config.run: str(preset) for preset, config in PREFLIGHT.items()}
    preset, pairs = rows.get(reference, reference), list(pairs)
    if "/" in preset:
        preset, pairs = str(PreflightPreset.TINY), [f"run={reference}", *pairs]
    runs = [pair.removeprefix("run=") for pair in pairs if pair.startswith("run=")]
    run = runs[-1] if runs else PREFLIGHT[PreflightPreset(preset)].run if preset in PREFLIGHT else ""
    own = set(PreflightConfig.model_fields)
    return preset, [
        f"{run}.{pair}" if run and "/" not in pair.partition("=")[0] and _first_key(pair) not in own else pair
        for pair in pairs
    ]


def _first_key(pair: str) -> str:
    return pair.partition("=")[0].partition(".")[0]


SPEC = FlowSpec("preflight", PREFLIGHT, build)


class PreflightChanges(changes_model(PreflightConfig, PREFLIGHT)):
    """Blank fields keep the preset's value."""


@flow(name="preflight")
def preflight(
    preset: PreflightPreset = PreflightPreset.TINY, changes: PreflightChanges = PreflightChanges()
) -> dict[str, str]:
    """Compile a run's real train step for its slice; the flow fails when it does not fit.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    made = run_flow(SPEC.name, preset, changes)
    require_fit(open_artifact(made["main"]))
    return made
