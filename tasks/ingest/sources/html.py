"""A directory of HTML or text pages (or one such file), read in the order of their paths."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from tasks.ingest.sources.source import (
    Page,
    Part,
    Rejected,
    Source,
    SourceConfig,
    declared_notice,
    files_state,
    limited,
    list_files,
    relative,
)

PATTERNS = ("*.html", "*.htm", "*.xhtml", "*.html.gz", "*.htm.gz")
FILES_PER_PART = 1000


def parts(config: SourceConfig) -> list[Part]:
    """Runs of FILES_PER_PART files. `max_pages` holds for the whole directory."""
    files = [str(path) for path in list_files(config, PATTERNS)]
    files = files[: config.max_pages] if config.max_pages else files
    runs = [files[start : start + FILES_PER_PART] for start in range(0, len(files), FILES_PER_PART)]
    return [Part(f"{index:05d}", tuple(run)) for index, run in enumerate(runs)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a file; a file that cannot be read or unpacked is a reject."""
    return limited(config, (_page(config, Path(name)) for name in part.items))


def _page(config: SourceConfig, path: Path) -> Page | Rejected:
    url = relative(config, path)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        return Rejected("unreadable", url, str(error))
    return Page(url, content, content_type_of(url))


def content_type_of(path: str) -> str:
    """The content type that a file's name says."""
    name = path.removesuffix(".gz").lower()
    return "text/html" if name.endswith((".html", ".htm", ".xhtml")) else "text/plain"


SOURCE = Source(parts, read, lambda config: files_state(config, PATTERNS), declared_notice)
