"""Prefect's view of the release stage; the work is in the modules beside this one."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.progress.task import prefect_progress
from tasks.release.config import ReleaseConfig
from tasks.release.release import RELEASE


@task(
    name="release",
    task_run_name="release {name}",
    retries=1,
    retry_delay_seconds=30,  # a server that could not start; a refusal is the same again
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def release_model(store: str, name: str, config: ReleaseConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Make a directory that can be published, and prove that it is read alike elsewhere."""
    with prefect_progress("release", name):
        return produce(store, RELEASE, name, config, inputs)
