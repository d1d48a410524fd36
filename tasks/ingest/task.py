"""Prefect's view of the ingest stages; the work is in the modules beside this one."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.artifact import Artifact, produce
from tasks.ingest.clean import CLEAN
from tasks.ingest.config import CleanConfig, DedupConfig, MirrorConfig
from tasks.ingest.dedup.stage import DEDUP
from tasks.ingest.mirror import MIRROR
from tasks.progress.task import prefect_progress


@task(name="mirror", task_run_name="mirror {name}", retries=2, retry_delay_seconds=[10, 60], cache_policy=NO_CACHE)
def mirror_pages(store: str, name: str, config: MirrorConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Copy raw pages into the store."""
    with prefect_progress("mirror", name):
        return produce(store, MIRROR, name, config, inputs)


@task(name="clean", task_run_name="clean {name}", retries=2, retry_delay_seconds=[10, 60], cache_policy=NO_CACHE)
def clean_documents(store: str, name: str, config: CleanConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Make clean documents of one language from raw pages."""
    with prefect_progress("clean", name):
        return produce(store, CLEAN, name, config, inputs)


@task(name="dedup", task_run_name="dedup {name}", retries=2, retry_delay_seconds=[10, 60], cache_policy=NO_CACHE)
def dedup_documents(store: str, name: str, config: DedupConfig, inputs: dict[str, Artifact]) -> Artifact:
    """Remove duplicates and hold a part out."""
    with prefect_progress("dedup", name):
        return produce(store, DEDUP, name, config, inputs)
