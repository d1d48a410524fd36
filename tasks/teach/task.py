"""Prefect's view of the teach stage; the work is in stage.py."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.progress.task import prefect_progress
from tasks.teach.config import TeachConfig
from tasks.teach.stage import TEACH


@task(
    name="teach",
    task_run_name="teach {name}",
    retries=2,
    retry_delay_seconds=[5, 30],
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def ask_teacher(store: str, name: str, config: TeachConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Write down what a model expects after each token of training records."""
    with prefect_progress("teach", name):
        return produce(store, TEACH, name, config, inputs)
