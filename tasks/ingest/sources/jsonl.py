"""JSON lines, plain, .gz, .zst or .bz2: one document a line. A line that is not one is a reject with file and line."""

from collections.abc import Iterator

from tasks.ingest.sources import places, rows
from tasks.ingest.sources.source import Page, Part, Rejected, Source, SourceConfig, declared_notice, limited

PATTERNS = rows.JSONL


def parts(config: SourceConfig) -> list[Part]:
    """One part a file."""
    return [Part(places.key_of(config, url), (url,)) for url in places.files(config, PATTERNS)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a line, in order; the rest of a file that ends in the middle is one reject."""
    with places.fetched(part.items[0]) as path:
        yield from limited(config, rows.pages(config, part.key, path))


SOURCE = Source(parts, read, lambda config: places.state(config, PATTERNS), declared_notice)
