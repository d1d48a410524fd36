"""Prefect's view of the preflight stage; the work is in the modules beside this one."""

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.preflight.config import PreflightConfig
from tasks.preflight.page import PAGE
from tasks.preflight.stage import PREFLIGHT, SUMMARY, VERDICT
from tasks.preflight.summary import markdown, rows_of_table
from tasks.progress.task import prefect_progress


@task(
    name="preflight",
    task_run_name="preflight {name}",
    retries=0,  # the compiler says the same again
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def preflight_run(store: str, name: str, config: PreflightConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Compile the real train step for its slice, and show the verdict among the run's artifacts."""
    with prefect_progress("preflight", name):
        made = produce(store, PREFLIGHT, name, config, inputs)
    verdict = made.read_json(VERDICT)
    text = made.read_bytes(SUMMARY).decode()
    create_markdown_artifact(markdown(config, verdict["own"], text, made.file_url(PAGE)), key=f"preflight-{name}")
    create_table_artifact(rows_of_table(verdict["trials"]), key=f"preflight-trials-{name}")
    return made
