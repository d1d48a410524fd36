"""Prefect's view of the pack stage; the work is in the modules beside this one."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.pack.config import PackConfig, TokenizerConfig
from tasks.pack.mixture import PACK
from tasks.pack.tokenizer import TOKENIZER
from tasks.progress.task import prefect_progress


@task(
    name="tokenizer",
    task_run_name="tokenizer {name}",
    retries=2,
    retry_delay_seconds=[5, 30],
    cache_policy=NO_CACHE,  # artifacts decide what is already made
    persist_result=False,
)
def train_tokenizer(store: str, name: str, config: TokenizerConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Learn a tokenizer from documents."""
    with prefect_progress("tokenizer", name):
        return produce(store, TOKENIZER, name, config, inputs)


@task(
    name="pack",
    task_run_name="pack {name}",
    retries=2,
    retry_delay_seconds=[5, 30],
    cache_policy=NO_CACHE,
    persist_result=False,
)
def pack_records(store: str, name: str, config: PackConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Mix documents or conversations by token budget into training records."""
    with prefect_progress("pack", name):
        return produce(store, PACK, name, config, inputs)
