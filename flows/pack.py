"""Documents to a tokenizer and to training records mixed by token budget."""

from prefect import flow

from flows.changes import changes_model
from flows.configs import PackFlowConfig
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import PACK, PackPreset
from flows.runner import run_flow
from tasks.pack.mixture import PACK as PACK_STAGE
from tasks.pack.task import pack_records, train_tokenizer
from tasks.pack.tokenizer import TOKENIZER


def build(resolver: Resolver, preset: str, config: PackFlowConfig) -> Outputs:
    """The tokenizer, then each mixture with it."""
    tokenizer = Step(preset, TOKENIZER, train_tokenizer, config.tokenizer, resolver.parents(config.tokenizer))
    outputs = {"tokenizer": tokenizer}
    for output, mixture in config.mixtures.items():
        parents = resolver.parents(mixture, outputs)
        outputs[output] = Step(f"{preset}-{output}", PACK_STAGE, pack_records, mixture, parents)
    return outputs


SPEC = FlowSpec("pack", PACK, build)


class PackChanges(changes_model(PackFlowConfig, PACK)):
    """Blank fields keep the preset's value."""


@flow(name="pack")
def pack(preset: PackPreset = PackPreset.TINY, changes: PackChanges = PackChanges()) -> dict[str, str]:
    """Make training records.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
