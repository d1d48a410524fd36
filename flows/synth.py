"""Documents to synthetic documents: QA from text and rewritten code, by a teacher behind vLLM."""

from prefect import flow

from flows.changes import changes_model
from flows.configs import SynthFlowConfig
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import SYNTH, SynthPreset
from flows.runner import run_flow
from tasks.decontaminate.stage import DECONTAMINATE
from tasks.decontaminate.task import drop_contaminated
from tasks.synth.synthesize import SYNTH as SYNTH_STAGE
from tasks.synth.task import synthesize_documents
from tasks.teacher.stage import TEACHER
from tasks.teacher.task import prepare_teacher


def build(resolver: Resolver, preset: str, config: SynthFlowConfig) -> Outputs:
    """The teachers, then one artifact a recipe, without items of benchmarks where that is asked for."""
    outputs = {
        f"teacher-{name}": Step(name, TEACHER, prepare_teacher, teacher) for name, teacher in config.teachers.items()
    }
    for output, recipe in config.recipes.items():
        parents = resolver.parents(recipe, outputs)
        outputs[output] = Step(f"{preset}-{output}", SYNTH_STAGE, synthesize_documents, recipe, parents)
        if rules := config.decontaminate:
            parents = {"docs": outputs[output], **resolver.parents(rules, outputs)}
            outputs[output] = Step(f"{preset}-synth-{output}", DECONTAMINATE, drop_contaminated, rules, parents)
    return outputs


SPEC = FlowSpec("synth", SYNTH, build)


class SynthChanges(changes_model(SynthFlowConfig, SYNTH)):
    """Blank fields keep the preset's value."""


@flow(name="synth")
def synth(preset: SynthPreset = SynthPreset.TINY, changes: SynthChanges = SynthChanges()) -> dict[str, str]:
    """Make synthetic documents with a teacher served by vLLM.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
