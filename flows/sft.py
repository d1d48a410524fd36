"""A checkpoint and conversations to a chat model."""

from prefect import flow

from flows.changes import changes_model
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import SFT, SftPreset
from flows.runner import run_flow
from tasks.train.config import TrainConfig
from tasks.train.stage import TRAIN
from tasks.train.task import train_model


def build(resolver: Resolver, preset: str, config: TrainConfig) -> Outputs:
    """One training run."""
    return {"main": Step(f"{preset}-sft", TRAIN, train_model, config, resolver.parents(config))}


SPEC = FlowSpec("sft", SFT, build)


class SftChanges(changes_model(TrainConfig, SFT)):
    """Blank fields keep the preset's value."""


@flow(name="sft")
def sft(preset: SftPreset = SftPreset.TINY, changes: SftChanges = SftChanges()) -> dict[str, str]:
    """A checkpoint and conversations to a chat model.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
