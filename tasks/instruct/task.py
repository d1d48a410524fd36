"""Prefect's view of the instruction stage; the work is in the modules beside this one."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.instruct.config import InstructConfig
from tasks.instruct.magpie import INSTRUCT
from tasks.progress.task import prefect_progress


@task(
    name="instruct",
    task_run_name="instruct {name}",
    retries=2,
    retry_delay_seconds=[10, 60],  # answers are kept, so a retry asks only what is missing
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def make_conversations(store: str, name: str, config: InstructConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Draw prompts from the teacher and let it answer them."""
    with prefect_progress("instruct", name):
        return produce(store, INSTRUCT, name, config, inputs)
