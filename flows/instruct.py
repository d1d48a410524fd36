"""Teachers to conversations (Magpie), and conversations to SFT records."""

from prefect import flow

from flows.changes import changes_model
from flows.configs import InstructFlowConfig
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import INSTRUCT, InstructPreset
from flows.runner import run_flow
from tasks.decontaminate.stage import DECONTAMINATE
from tasks.decontaminate.task import drop_contaminated
from tasks.instruct.magpie import INSTRUCT as INSTRUCT_STAGE
from tasks.instruct.task import make_conversations
from tasks.pack.mixture import PACK as PACK_STAGE
from tasks.pack.task import pack_records


def build(resolver: Resolver, preset: str, config: InstructFlowConfig) -> Outputs:
    """One artifact a recipe, without benchmark items where that is asked for, then all packed: `main` is for SFT."""
    outputs: dict[str, Step] = {}
    for output, recipe in config.recipes.items():
        parents = resolver.parents(recipe)
        outputs[output] = Step(f"{preset}-{output}", INSTRUCT_STAGE, make_conversations, recipe, parents)
        if rules := config.decontaminate:
            parents = {"docs": outputs[output], **resolver.parents(rules, outputs)}
            outputs[output] = Step(f"{preset}-instruct-{output}", DECONTAMINATE, drop_contaminated, rules, parents)
    parents = resolver.parents(config.pack, outputs)
    outputs["main"] = Step(f"{preset}-chat", PACK_STAGE, pack_records, config.pack, parents)
    return outputs


SPEC = FlowSpec("instruct", INSTRUCT, build)


class InstructChanges(changes_model(InstructFlowConfig, INSTRUCT)):
    """Blank fields keep the preset's value."""


@flow(name="instruct")
def instruct(
    preset: InstructPreset = InstructPreset.TINY, changes: InstructChanges = InstructChanges()
) -> dict[str, str]:
    """Make instruction data with a teacher served by vLLM.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
