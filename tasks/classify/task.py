"""Prefect's view of the classify stages; the work is in the modules beside this one."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.classify.classifier import CLASSIFIER
from tasks.classify.config import AnnotateConfig, ClassifierConfig, ContrastConfig, CutConfig, ScoreConfig
from tasks.classify.cut import CUT
from tasks.classify.labels.annotate import ANNOTATE
from tasks.classify.labels.contrast import CONTRAST
from tasks.classify.score import SCORE
from tasks.progress.task import prefect_progress


@task(name="contrast", task_run_name="contrast {name}", retries=1, cache_policy=NO_CACHE, persist_result=False)
def label_by_origin(store: str, name: str, config: ContrastConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Draw examples from chosen sources and from others."""
    with prefect_progress("contrast", name):
        return produce(store, CONTRAST, name, config, inputs)


@task(
    name="annotate",
    task_run_name="annotate {name}",
    retries=2,
    retry_delay_seconds=[10, 60],  # answers are kept, so a retry asks only what is missing
    cache_policy=NO_CACHE,
    persist_result=False,
)
def label_by_teacher(store: str, name: str, config: AnnotateConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Let a teacher mark documents."""
    with prefect_progress("annotate", name):
        return produce(store, ANNOTATE, name, config, inputs)


@task(name="classifier", task_run_name="classifier {name}", retries=1, cache_policy=NO_CACHE, persist_result=False)
def train_classifier(store: str, name: str, config: ClassifierConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Train a classifier on examples and judge it."""
    with prefect_progress("classifier", name):
        return produce(store, CLASSIFIER, name, config, inputs)


@task(name="score", task_run_name="score {name}", retries=2, cache_policy=NO_CACHE, persist_result=False)
def score_documents(store: str, name: str, config: ScoreConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Score every document."""
    with prefect_progress("score", name):
        return produce(store, SCORE, name, config, inputs)


@task(name="cut", task_run_name="cut {name}", retries=1, cache_policy=NO_CACHE, persist_result=False)
def cut_documents(store: str, name: str, config: CutConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Keep the best documents."""
    with prefect_progress("cut", name):
        return produce(store, CUT, name, config, inputs)
