"""Prefect's view of the train stage; the work is in the modules beside this one."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.progress.task import prefect_progress
from tasks.train.config import TrainConfig
from tasks.train.stage import TRAIN


@task(
    name="train",
    task_run_name="train {name}",
    retries=0,  # the stage has its own budgets, one for each kind of end
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def train_model(store: str, name: str, config: TrainConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Train a model in a process of its own, and resume it when it was stopped."""
    with prefect_progress("train", name):
        return produce(store, TRAIN, name, config, inputs)
