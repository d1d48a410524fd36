"""Documents to the best of them: examples, a classifier, a score for each document, a cut."""

from prefect import flow

from flows.changes import changes_model
from flows.configs import ClassifyFlowConfig
from flows.graph import FlowSpec, Outputs, Resolver, StageTask, Step
from flows.presets import CLASSIFY, ClassifyPreset
from flows.runner import run_flow
from tasks.artifact import Stage
from tasks.classify.classifier import CLASSIFIER
from tasks.classify.cut import CUT
from tasks.classify.labels.annotate import ANNOTATE
from tasks.classify.labels.contrast import CONTRAST
from tasks.classify.score import SCORE
from tasks.classify.task import (
    cut_documents,
    label_by_origin,
    label_by_teacher,
    score_documents,
    train_classifier,
)
from tasks.config import StageConfig


def build(resolver: Resolver, preset: str, config: ClassifyFlowConfig) -> Outputs:
    """Examples (by origin or by a teacher), classifier, scores; `main` is the documents that are kept."""
    outputs: dict[str, Step] = {}

    def add(output: str, stage: Stage, task: StageTask, stage_config: StageConfig) -> None:
        outputs[output] = Step(preset, stage, task, stage_config, resolver.parents(stage_config, outputs))

    if config.contrast is not None:
        add("examples", CONTRAST, label_by_origin, config.contrast)
    if config.annotate is not None:
        add("examples", ANNOTATE, label_by_teacher, config.annotate)
    add("classifier", CLASSIFIER, train_classifier, config.classifier)
    add("scores", SCORE, score_documents, config.score)
    add("main", CUT, cut_documents, config.cut)
    return outputs


SPEC = FlowSpec("classify", CLASSIFY, build)


class ClassifyChanges(changes_model(ClassifyFlowConfig, CLASSIFY)):
    """Blank fields keep the preset's value."""


@flow(name="classify")
def classify(
    preset: ClassifyPreset = ClassifyPreset.TINY, changes: ClassifyChanges = ClassifyChanges()
) -> dict[str, str]:
    """Keep the documents that teach most.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
