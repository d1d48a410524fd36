"""The whole chain: raw pages to a released model and its report."""

from typing import Any

from prefect import flow

from flows.changes import changes_model
from flows.graph import FlowSpec, Outputs, Resolver, Step
from flows.presets import FACTORY, FactoryPreset
from flows.runner import run_flow
from tasks.report.config import ReportConfig
from tasks.report.report import REPORT
from tasks.report.task import publish_report


def build(resolver: Resolver, preset: str, config: ReportConfig) -> Outputs:
    """The report, behind which stands everything: ingest, synth, pack, pretrain, cpt, instruct, sft, eval, release."""
    return {"report": Step(f"factory-{preset}", REPORT, publish_report, config, resolver.parents(config))}


SPEC = FlowSpec("factory", FACTORY, build)


class FactoryChanges(changes_model(ReportConfig, FACTORY)):
    """Blank fields keep the preset's value."""


@flow(name="factory")
def factory(
    preset: FactoryPreset = FactoryPreset.TINY,
    changes: FactoryChanges = FactoryChanges(),
    stages: dict[str, dict[str, Any]] = {},  # noqa: B006 - the form's default; never changed
) -> dict[str, str]:
    """The whole chain, from raw pages to a released model and its report.

    Args:
        preset: A row of flows/presets.py.
        changes: Knobs of the report to change; blank keeps the preset's value.
        stages: Knobs of other presets, as {"cpt/tiny": {"peak_lr": 0.001}}.
    """
    return run_flow(SPEC.name, preset, changes, stages)
