"""Packed text to a base model from scratch."""

from prefect import flow

from flows.changes import changes_model
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import PRETRAIN, PretrainPreset
from flows.runner import run_flow
from tasks.train.config import TrainConfig
from tasks.train.stage import TRAIN
from tasks.train.task import train_model


def build(resolver: Resolver, preset: str, config: TrainConfig) -> Outputs:
    """One training run."""
    return {"main": Step(f"{preset}-pretrain", TRAIN, train_model, config, resolver.parents(config))}


SPEC = FlowSpec("pretrain", PRETRAIN, build)


class PretrainChanges(changes_model(TrainConfig, PRETRAIN)):
    """Blank fields keep the preset's value."""


@flow(name="pretrain")
def pretrain(
    preset: PretrainPreset = PretrainPreset.TINY, changes: PretrainChanges = PretrainChanges()
) -> dict[str, str]:
    """Packed text to a base model from scratch.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
