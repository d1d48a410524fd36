"""What every Prefect flow does: preset and changes to steps, steps to artifacts, artifacts to a report."""

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger
from pydantic import BaseModel

from flows.changes import applied
from flows.graph import Resolver, default_store, run
from flows.report import with_report
from flows.restarts import begin_again


def run_flow(
    flow: str, preset: str, changes: BaseModel, stages: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, str]:
    """Run a preset inside a Prefect flow run and return output name -> artifact URL.

    Raises:
        ConfigError: an unknown preset, key or value, or hardware that is not here. Nothing was started.
        HostFault: the run was rescheduled too often.
    """
    from flows.registry import FLOWS  # the registry imports every flow, and every flow imports this module

    begin_again()
    store = default_store()
    by_preset = {(flow, str(preset)): applied(changes)}
    for key, values in (stages or {}).items():
        other, _, other_preset = key.partition("/")
        by_preset[other, other_preset] = {**by_preset.get((other, other_preset), {}), **values}
    outputs = with_report(flow, preset, Resolver(FLOWS, by_preset).outputs(flow, preset))
    made = run(outputs, store, prefect=True)
    urls = {name: artifact.url for name, artifact in made.items()}
    get_run_logger().info("%s/%s: %s", flow, preset, urls)
    return urls
