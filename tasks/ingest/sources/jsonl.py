"""JSON lines, plain, .gz or .zst: one document a line. A line that is not one is a reject that names file and line."""

import json
from collections.abc import Iterator
from pathlib import Path

from tasks.ingest.sources.compressed import BROKEN, open_stream
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

PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.jsonl.zst", "*.ndjson", "*.ndjson.gz", "*.ndjson.zst")
URL_FIELDS = ("url", "path", "id")  # the first that is there names the page
MAX_LINE_BYTES = 1 << 30


def parts(config: SourceConfig) -> list[Part]:
    """One part a file."""
    return [Part(relative(config, path), (str(path),)) for path in list_files(config, PATTERNS)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a line, in order; the rest of a file that ends in the middle is one reject."""
    return limited(config, _lines(config, part.key, Path(part.items[0])))


def _lines(config: SourceConfig, name: str, path: Path) -> Iterator[Page | Rejected]:
    number = 0
    try:
        with open_stream(path) as handle:
            while line := handle.readline(MAX_LINE_BYTES):
                number += 1
                if line.strip():
                    yield _page(config, f"{name}#{number}", line)
    except BROKEN as error:
        yield Rejected("truncated", f"{name}#{number + 1}", f"{type(error).__name__}: {error}")


def _page(config: SourceConfig, origin: str, line: bytes) -> Page | Rejected:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Rejected("invalid_json", origin, f"{error}: {line[:200]!r}")
    if not isinstance(row, dict) or not isinstance(row.get(config.text_field), str):
        return Rejected("no_text_field", origin, f"no text in {config.text_field!r}: {line[:200]!r}")
    url = next((str(row[field]) for field in URL_FIELDS if row.get(field)), origin)
    content = row[config.text_field].encode("utf-8", "replace")
    return Page(url, content, "text/plain; charset=utf-8", str(row.get("crawl_time") or ""))


SOURCE = Source(parts, read, lambda config: files_state(config, PATTERNS), declared_notice)
