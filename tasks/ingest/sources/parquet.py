"""Parquet files: one document a row, its text in `text_field`. A damaged file is read to its last good row group."""

from collections.abc import Iterator

from tasks.ingest.sources import places, rows
from tasks.ingest.sources.source import Page, Part, Rejected, Source, SourceConfig, declared_notice, limited

PATTERNS = rows.PARQUET


def parts(config: SourceConfig) -> list[Part]:
    """One part a file."""
    return [Part(places.key_of(config, url), (url,)) for url in places.files(config, PATTERNS)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a row, in order. Memory holds a row group's pages of the columns and BATCH_ROWS rows."""
    with places.fetched(part.items[0]) as path:
        yield from limited(config, rows.pages(config, part.key, path))


SOURCE = Source(parts, read, lambda config: places.state(config, PATTERNS), declared_notice)
