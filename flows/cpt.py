"""A base model and a Japanese-heavy mixture to a continued checkpoint."""

from prefect import flow

from flows.changes import changes_model
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import CPT, CptPreset
from flows.runner import run_flow
from tasks.train.config import TrainConfig
from tasks.train.stage import TRAIN
from tasks.train.task import train_model


def build(resolver: Resolver, preset: str, config: TrainConfig) -> Outputs:
    """One training run."""
    return {"main": Step(f"{preset}-cpt", TRAIN, train_model, config, resolver.parents(config))}


SPEC = FlowSpec("cpt", CPT, build)


class CptChanges(changes_model(TrainConfig, CPT)):
    """Blank fields keep the preset's value."""


@flow(name="cpt")
def cpt(preset: CptPreset = CptPreset.TINY, changes: CptChanges = CptChanges()) -> dict[str, str]:
    """A base model and a Japanese-heavy mixture to a continued checkpoint.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
