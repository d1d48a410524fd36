"""Every flow ends with a page about what it made."""

from flows.graph import Outputs, Step
from tasks.report.config import ReportConfig
from tasks.report.report import REPORT
from tasks.report.task import publish_report


def with_report(flow: str, preset: str, outputs: Outputs) -> Outputs:
    """The outputs and, where there is none yet, a report about all that stands behind them."""
    if "report" in outputs:
        return outputs
    parents = {f"others.{i}": step for i, step in enumerate(outputs.values())}
    config = ReportConfig(title=f"{flow}/{preset}")
    return {**outputs, "report": Step(f"{flow}-{preset}", REPORT, publish_report, config, parents)}
