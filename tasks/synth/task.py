"""Prefect's view of the synthesis stage; the work is in the modules beside this one."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.progress.task import prefect_progress
from tasks.synth.config import SynthConfig
from tasks.synth.synthesize import SYNTH


@task(
    name="synth",
    task_run_name="synth {name}",
    retries=2,
    retry_delay_seconds=[10, 60],  # answers are kept, so a retry asks only what is missing
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def synthesize_documents(store: str, name: str, config: SynthConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Write synthetic documents with one recipe."""
    with prefect_progress("synth", name):
        return produce(store, SYNTH, name, config, inputs)
