"""Prefect's view of decontamination; the work is in the modules beside this one."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.decontaminate.config import DecontaminateConfig
from tasks.decontaminate.stage import DECONTAMINATE
from tasks.progress.task import prefect_progress


@task(
    name="decontaminate",
    task_run_name="decontaminate {name}",
    retries=2,
    retry_delay_seconds=[10, 60],
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def drop_contaminated(store: str, name: str, config: DecontaminateConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Drop rows that hold items of benchmarks."""
    with prefect_progress("decontaminate", name):
        return produce(store, DECONTAMINATE, name, config, inputs)
