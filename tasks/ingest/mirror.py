"""Copy raw pages into the store: one unit of work a part of a source (a package, a file), shards of bounded size."""

from collections.abc import Iterator
from typing import Any

from tasks.artifact import Artifact, Stage, Unit, Workspace
from tasks.ingest.config import MirrorConfig, SourceConfig
from tasks.ingest.sources import SOURCES
from tasks.ingest.sources.source import PAGE, Page, Part, Rejected
from tasks.progress import track
from tasks.records import document_id, table


def run(workspace: Workspace, config: MirrorConfig, inputs: dict[str, Artifact]) -> None:
    """Write pages/*.parquet and notices/<source>.txt. Memory holds one shard of pages."""
    del inputs
    parts = [(source, part) for source in config.sources for part in SOURCES[source.kind].parts(source)]
    workspace.note(
        licences=[licence for source in config.sources for licence in source.licences()],
        sources=[
            {
                "name": s.name,
                "kind": s.kind,
                "licence": s.licence,
                "attribution": s.attribution,
                "revision": s.revision,
            }
            for s in config.sources
        ],
    )
    with track(f"mirror {workspace.name}", len(parts), "parts") as bar:
        for index, (source, part) in enumerate(parts):
            key = f"{source.name}/{part.key}"
            if workspace.unit_record(key) is None:
                with workspace.unit(key) as unit:
                    mirror_part(unit, f"pages/{index:05d}", source, part, config)
            bar.advance(note=key)
    for source in config.sources:
        key = f"{source.name}.notice"
        if workspace.unit_record(key) is None:
            with workspace.unit(key) as unit:
                unit.write_bytes(f"notices/{source.name}.txt", SOURCES[source.kind].notice(source).encode())


def mirror_part(unit: Unit, prefix: str, source: SourceConfig, part: Part, config: MirrorConfig) -> None:
    """Write a part's pages as PREFIX-000.parquet, PREFIX-001.parquet …; what is no page is dropped with a reason."""
    for number, rows in enumerate(shards(unit, source, part, config)):
        unit.write_parquet(f"{prefix}-{number:03d}.parquet", table(rows, PAGE))
        unit.count(rows_out=len(rows))


def shards(unit: Unit, source: SourceConfig, part: Part, config: MirrorConfig) -> Iterator[list[dict[str, Any]]]:
    """Rows of PAGE in runs of at most `shard_pages` pages, each ended by `shard_bytes`."""
    rows: list[dict[str, Any]] = []
    size = 0
    for item in SOURCES[source.kind].read(source, part):
        unit.count(rows_in=1)
        if isinstance(item, Page) and len(item.content) > config.max_page_bytes:
            detail = f"{len(item.content):,} bytes, max_page_bytes={config.max_page_bytes:,}"
            item = Rejected("too_large", item.url, detail)
        if isinstance(item, Rejected):
            unit.drop(item.reason, {"source": source.name, "url": item.url, "text": item.detail})
            continue
        rows.append(_row(source, item))
        size += len(item.content)
        if len(rows) >= config.shard_pages or size >= config.shard_bytes:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _row(source: SourceConfig, page: Page) -> dict[str, Any]:
    return {
        "id": document_id(source.name, page.url, page.content),
        "url": page.url,
        "source": source.name,
        "licence": page.licence or source.licence,
        "language_hint": source.language_hint,
        "content_type": page.content_type,
        "content": page.content,
        "crawl_time": page.crawl_time,
    }


MIRROR = Stage(
    name="mirror",
    version="1",
    run=run,
    code=("tasks.ingest.decode", "tasks.ingest.mirror", "tasks.ingest.sources", "tasks.records", "tasks.shards"),
)
