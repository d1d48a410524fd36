"""Prefect's view of the report stage; the work is in the modules beside this one."""

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.progress.task import prefect_progress
from tasks.report.config import ReportConfig
from tasks.report.report import PAGE, REPORT
from tasks.report.summary import artifact_key, link, score_rows, summary_markdown


@task(
    name="report",
    task_run_name="report {name}",
    retries=2,
    retry_delay_seconds=[2, 20],
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def publish_report(store: str, name: str, config: ReportConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Make the page and show its summary, its scores and a link to it among the run's artifacts."""
    with prefect_progress("report", name):
        made = produce(store, REPORT, name, config, inputs)
    page = made.file_url(PAGE)
    create_markdown_artifact(summary_markdown(config, inputs, page), key=artifact_key("report", name))
    create_table_artifact(score_rows(config, inputs), key=artifact_key("scores", name))
    create_link_artifact(link(page), link_text=page, key=artifact_key("page", name))
    return made
