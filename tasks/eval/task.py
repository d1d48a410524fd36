"""Prefect's view of the evaluation stage; the work is in the modules beside this one."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.eval.config import EvalConfig
from tasks.eval.evaluate import EVAL
from tasks.progress.task import prefect_progress


@task(
    name="eval",
    task_run_name="eval {name}",
    retries=2,
    retry_delay_seconds=[10, 120],  # finished units are kept, so a retry goes on where it stopped
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def evaluate_models(store: str, name: str, config: EvalConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Score models side by side on held-out material."""
    with prefect_progress("eval", name):
        return produce(store, EVAL, name, config, inputs)
