"""Where raw pages come from. A new kind is one file here and one line in SOURCES."""

from tasks.ingest.sources import (
    cirrussearch,
    debian,
    documentation,
    html,
    huggingface,
    jsonl,
    mediawiki,
    parallel,
    parquet,
    python_source,
    source_tree,
    warc,
    warc_index,
)
from tasks.ingest.sources.source import Source

SOURCES: dict[str, Source] = {
    "debian": debian.SOURCE,
    "html": html.SOURCE,
    "warc": warc.SOURCE,
    "warc_index": warc_index.SOURCE,
    "jsonl": jsonl.SOURCE,
    "parquet": parquet.SOURCE,
    "huggingface": huggingface.SOURCE,
    "mediawiki": mediawiki.SOURCE,
    "cirrussearch": cirrussearch.SOURCE,
    "documentation": documentation.SOURCE,
    "source_tree": source_tree.SOURCE,
    "python_source": python_source.SOURCE,
    "parallel": parallel.SOURCE,
}
