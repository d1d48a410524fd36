"""Where raw pages come from. A new kind is one file here and one line in SOURCES."""

from tasks.ingest.sources import debian, html, jsonl, python_source, warc
from tasks.ingest.sources.source import Source

SOURCES: dict[str, Source] = {
    "debian": debian.SOURCE,
    "html": html.SOURCE,
    "warc": warc.SOURCE,
    "jsonl": jsonl.SOURCE,
    "python_source": python_source.SOURCE,
}
