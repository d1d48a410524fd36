"""A teacher's words after every token of a mixture, and a student that learns them."""

from prefect import flow

from flows.changes import changes_model
from flows.configs import DistillFlowConfig
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import DISTILL, DistillPreset
from flows.runner import run_flow
from tasks.teach.stage import TEACH
from tasks.teach.task import ask_teacher
from tasks.train.stage import TRAIN
from tasks.train.task import train_model


def build(resolver: Resolver, preset: str, config: DistillFlowConfig) -> Outputs:
    """What the teacher said, then the training run: `main` is the student."""
    taught = Step(f"{preset}-taught", TEACH, ask_teacher, config.teach, resolver.parents(config.teach))
    outputs = {"taught": taught}
    parents = resolver.parents(config.train, outputs)
    outputs["main"] = Step(f"{preset}-distill", TRAIN, train_model, config.train, parents)
    return outputs


SPEC = FlowSpec("distill", DISTILL, build)


class DistillChanges(changes_model(DistillFlowConfig, DISTILL)):
    """Blank fields keep the preset's value."""


@flow(name="distill")
def distill(preset: DistillPreset = DistillPreset.TINY, changes: DistillChanges = DistillChanges()) -> dict[str, str]:
    """Train a student on what a teacher expects.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
