"""Raw pages to clean documents of one language: decoded, extracted, normalised, edited, judged; a drop has a reason.

Beside the documents stands a sidecar: one row for each page that the filters judged, kept or dropped, with all that was
measured. So a threshold can be moved on paper, and every verdict be looked up.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from functools import partial

from tasks.artifact import Artifact, Counts, Stage, Workspace
from tasks.errors import DataFault
from tasks.ingest.config import CleanConfig
from tasks.ingest.engine import run_shard
from tasks.ingest.extract import Extractor
from tasks.ingest.steps import plan_of
from tasks.shard_workers import ShardJob, Work, Workers, each_shard, require_every_row
from tasks.storage import join


def run(workspace: Workspace, config: CleanConfig, inputs: dict[str, Artifact]) -> None:
    """Write docs/*.parquet and annotations/*.parquet, one of each for each shard of pages, a shard being a unit.

    Raises:
        DataFault: not one page is kept.
        HostFault: a worker was killed.
    """
    pages = inputs["pages"]
    job = ShardJob(
        label=f"clean {workspace.name}",
        shards={entry.path: entry.rows or 0 for entry in pages.files("pages/")},
        open_work=partial(open_cleaner, workspace, config, pages.url),
        rows="pages",
    )
    each_shard(workspace, job, Workers(config.workers, config.runner, config.shared_disk))
    require_every_row(job.label, sum(job.shards.values()), workspace.units())
    counts = sum((record.counts for record in workspace.units()), Counts())
    if counts.in_ and not counts.out:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in Counter(counts.dropped).most_common(6))
        raise DataFault(
            f"clean {workspace.name}: none of {counts.in_:,} pages is kept ({reasons}): an empty corpus would be taken "
            f"for a finished one. Look at the rows in {workspace.url}/rejects, then correct the source or its "
            "language, or loosen the filter that drops them."
        )


@contextlib.contextmanager
def open_cleaner(workspace: Workspace, config: CleanConfig, pages_url: str) -> Iterator[Work]:
    """In a worker: a function that cleans one shard of pages, with an extractor that lives as long."""
    with extractor_of(config) as extractor:
        plan = plan_of(config, extractor)

        def clean_shard(path: str) -> None:
            with workspace.unit(path) as unit:
                run_shard(unit, join(pages_url, "data", path), plan, path.removeprefix("pages/"))

        yield clean_shard


def extractor_of(config: CleanConfig) -> Extractor:
    """The extractor that a config asks for; not yet started."""
    return Extractor(config.extract_timeout_s, config.skip_elements, config.extractor)


CLEAN = Stage(
    name="clean",
    version="2",
    run=run,
    code=(
        "tasks.gates",
        "tasks.ingest.characters",
        "tasks.ingest.clean",
        "tasks.ingest.decode",
        "tasks.ingest.edits",
        "tasks.ingest.engine",
        "tasks.ingest.extract",
        "tasks.ingest.extractors",
        "tasks.ingest.filters",
        "tasks.ingest.gate",
        "tasks.ingest.hosts",
        "tasks.ingest.language",
        "tasks.ingest.languages",
        "tasks.ingest.lists",
        "tasks.ingest.literals",
        "tasks.ingest.steps",
        "tasks.ingest.texts",
        "tasks.ingest.words",
        "tasks.records",
        "tasks.shards",
    ),
)
