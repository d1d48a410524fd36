"""Raw pages of each corpus to clean, deduplicated documents with a held-out part."""

from prefect import flow

from flows.changes import changes_model
from flows.configs import IngestConfig
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import INGEST, IngestPreset
from flows.runner import run_flow
from tasks.decontaminate.stage import DECONTAMINATE
from tasks.decontaminate.task import drop_contaminated
from tasks.ingest.clean import CLEAN
from tasks.ingest.dedup.stage import DEDUP
from tasks.ingest.mirror import MIRROR
from tasks.ingest.task import clean_documents, dedup_documents, mirror_pages


def build(resolver: Resolver, preset: str, config: IngestConfig) -> Outputs:
    """For each corpus: mirror, clean, dedup, and decontaminate where it is asked for. Outputs are named after them."""
    outputs: dict[str, Step] = {}
    for corpus in config.only or config.corpora:
        stages, name = config.corpora[corpus], f"{preset}-{corpus}"
        pages = Step(name, MIRROR, mirror_pages, stages.mirror)
        docs = Step(name, CLEAN, clean_documents, stages.clean, {"pages": pages})
        outputs[corpus] = Step(
            name, DEDUP, dedup_documents, stages.dedup, resolver.parents(stages.dedup, outputs) | {"docs": docs}
        )
        if rules := stages.decontaminate:
            parents = {"docs": outputs[corpus], **resolver.parents(rules)}
            outputs[corpus] = Step(name, DECONTAMINATE, drop_contaminated, rules, parents)
    return outputs


SPEC = FlowSpec("ingest", INGEST, build)


class IngestChanges(changes_model(IngestConfig, INGEST)):
    """Blank fields keep the preset's value."""


@flow(name="ingest")
def ingest(preset: IngestPreset = IngestPreset.TINY, changes: IngestChanges = IngestChanges()) -> dict[str, str]:
    """Make clean documents from raw pages.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs to change; blank keeps the preset's value.
    """
    return run_flow(SPEC.name, preset, changes)
