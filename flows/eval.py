"""Models to scores: held-out bits per byte and benchmarks."""

from prefect import flow

from flows.changes import changes_model
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import EVAL, EvalPreset
from flows.runner import run_flow
from tasks.eval.config import EvalConfig
from tasks.eval.evaluate import EVAL as EVAL_STAGE
from tasks.eval.task import evaluate_models


def build(resolver: Resolver, preset: str, config: EvalConfig) -> Outputs:
    """One evaluation of all the models."""
    return {"main": Step(preset, EVAL_STAGE, evaluate_models, config, resolver.parents(config))}


SPEC = FlowSpec("eval", EVAL, build)


class EvalChanges(changes_model(EvalConfig, EVAL)):
    """Blank fields keep the preset's value."""


@flow(name="eval")
def evaluate(preset: EvalPreset = EvalPreset.TINY, changes: EvalChanges = EvalChanges()) -> dict[str, str]:
    """Score models.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
