"""Rows of JSON-lines and Parquet files to pages: what jsonl, parquet, huggingface and parallel have in common."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.ingest.sources.compressed import BROKEN, open_stream
from tasks.ingest.sources.source import Page, Rejected, SourceConfig

_PACKED = ("", ".gz", ".zst", ".bz2")
JSONL = tuple(f"*.{kind}{packed}" for kind in ("jsonl", "ndjson") for packed in _PACKED)
PARQUET = ("*.parquet",)
URL_FIELDS = ("url", "path", "id")  # the first that is there names the page
MAX_LINE_BYTES = 1 << 30
BATCH_ROWS = 64  # a row may be a book


def rows(name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]] | Rejected]:
    """Origin (`FILE#ROW`) and fields of each row, in order; what is no row is a reject, and so is a damaged rest."""
    return _parquet(name, path) if name.endswith(".parquet") else _json(name, path)


def pages(config: SourceConfig, name: str, path: Path) -> Iterator[Page | Rejected]:
    """One page a row with a text in the source's `text_field`."""
    for found in rows(name, path):
        yield found if isinstance(found, Rejected) else _page(config, *found)


def _page(config: SourceConfig, origin: str, row: dict[str, Any]) -> Page | Rejected:
    text = row.get(config.text_field)
    if not isinstance(text, str):
        return Rejected("no_text_field", origin, f"no text in {config.text_field!r}: {str(row)[:200]}")
    url = next((str(row[field]) for field in URL_FIELDS if row.get(field)), origin)
    content = text.encode("utf-8", "replace")
    return Page(url, content, "text/plain; charset=utf-8", str(row.get("crawl_time") or row.get("timestamp") or ""))


def _json(name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]] | Rejected]:
    number = 0
    try:
        with open_stream(path) as handle:
            while line := handle.readline(MAX_LINE_BYTES):
                number += 1
                if line.strip():
                    yield _parsed(f"{name}#{number}", line)
    except BROKEN as error:
        yield Rejected("truncated", f"{name}#{number + 1}", f"{type(error).__name__}: {error}")


def _parsed(origin: str, line: bytes) -> tuple[str, dict[str, Any]] | Rejected:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Rejected("invalid_json", origin, f"{error}: {line[:200]!r}")
    if not isinstance(row, dict):
        return Rejected("no_text_field", origin, f"a row is an object of fields: {line[:200]!r}")
    return origin, row


def _parquet(name: str, path: Path) -> Iterator[tuple[str, dict[str, Any]] | Rejected]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}#{number}", row
    except (pa.ArrowException, OSError) as error:
        yield Rejected("truncated", f"{name}#{number + 1}", f"{type(error).__name__}: {error}")
