"""Single pages out of Common Crawl by its index: each row names a file and a byte range, and only that is fetched.

`location` is what a query of the index gave: Parquet (the columnar index, by Athena or DuckDB) or lines of the CDX API
(JSON, or `KEY TIMESTAMP JSON`), plain or packed. Rows are chosen by `languages`, and by `include` and `exclude` on the
URL; `base_url` says where the archives are (https or s3).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks.ingest.sources import places
from tasks.ingest.sources.archives import record
from tasks.ingest.sources.compressed import open_stream
from tasks.ingest.sources.source import Page, Part, Rejected, Source, SourceConfig, declared_notice, limited
from tasks.storage import is_local, join

_PACKED = ("", ".gz", ".zst")
PATTERNS = ("*.parquet", *(f"*.{kind}{packed}" for kind in ("cdx", "cdxj", "jsonl", "json") for packed in _PACKED))
REQUESTS = 64  # ranges that are asked for at a time
MAX_RANGE_BYTES = 1 << 27
_COLUMNS = {  # of the columnar index -> of the CDX API
    "url": "url",
    "warc_filename": "filename",
    "warc_record_offset": "offset",
    "warc_record_length": "length",
    "fetch_status": "status",
    "content_languages": "languages",
}


@dataclass(frozen=True)
class Entry:
    """A record and where it lies."""

    url: str
    archive: str
    offset: int
    length: int


def parts(config: SourceConfig) -> list[Part]:
    """One part a file of the index.

    Raises:
        ValueError: there is none, or no revision names the snapshot.
    """
    if not is_local(config.base_url):
        places.needs_revision(config)
    return [Part(places.key_of(config, url), (url,)) for url in places.files(_of_files(config), PATTERNS)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a row that was chosen, in the order of the index. Rows of other languages and URLs are not counted.

    Raises:
        HostFault: the archives cannot be reached.
    """
    with places.fetched(part.items[0]) as path:
        yield from limited(config, _fetched(config, _entries(config, part.key, path)))


def state(config: SourceConfig) -> dict[str, Any]:
    """What the index says, and where its archives are."""
    return places.state(_of_files(config), PATTERNS) | {"base_url": config.base_url}


def _of_files(config: SourceConfig) -> SourceConfig:
    """The source as its files are listed: `include` and `exclude` choose pages, not them."""
    return config.with_changes({"include": (), "exclude": ()})


def _fetched(config: SourceConfig, entries: Iterator[Entry | Rejected]) -> Iterator[Page | Rejected]:
    waiting: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Entry):
            waiting.append(entry)
        if len(waiting) == REQUESTS or isinstance(entry, Rejected):
            yield from _answers(config, waiting)
            waiting = []
        if isinstance(entry, Rejected):
            yield entry
    yield from _answers(config, waiting)


def _answers(config: SourceConfig, entries: list[Entry]) -> Iterator[Page | Rejected]:
    if not entries:
        return
    found = places.ranges(
        [join(config.base_url, entry.archive) for entry in entries],
        [entry.offset for entry in entries],
        [entry.offset + entry.length for entry in entries],
    )
    for entry, packed in zip(entries, found, strict=True):
        if isinstance(packed, Exception):
            yield Rejected("unreadable", entry.url, f"{entry.archive}: {type(packed).__name__}")
        elif len(packed) < entry.length:
            yield Rejected("truncated", entry.url, f"{len(packed):,} of {entry.length:,} bytes of {entry.archive}")
        else:
            yield record(entry.url, packed)


def _entries(config: SourceConfig, name: str, path: Path) -> Iterator[Entry | Rejected]:
    rows = _columnar(path) if name.endswith(".parquet") else _lines(path)
    for number, row in rows:
        origin = f"{name}#{number}"
        if not isinstance(row, dict):
            yield Rejected("invalid_json", origin, str(row)[:200])
            continue
        try:
            entry = Entry(str(row["url"]), str(row["filename"]), int(row["offset"]), int(row["length"]))
        except (KeyError, TypeError, ValueError) as error:
            yield Rejected("no_range", origin, f"{type(error).__name__}: {error}: {str(row)[:200]}")
            continue
        if not (entry.offset >= 0 and 0 < entry.length <= MAX_RANGE_BYTES):
            yield Rejected("no_range", origin, f"offset={entry.offset}, length={entry.length}")
        elif str(row.get("status") or 200) != "200":
            yield Rejected("http_status", entry.url, f"status {row['status']}")
        elif _is_chosen(config, entry.url, str(row.get("languages") or "")):
            yield entry


def _is_chosen(config: SourceConfig, url: str, languages: str) -> bool:
    """Common Crawl writes the languages of a page with the most frequent one first: `jpn,eng`."""
    return config.takes(url, ("*",)) and (not config.languages or languages.split(",")[0] in config.languages)


def _columnar(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    with pq.ParquetFile(path) as file:
        known = {column: name for column, name in _COLUMNS.items() if column in file.schema_arrow.names}
        for batch in file.iter_batches(batch_size=1024, columns=list(known)):
            for row in batch.rename_columns(list(map(known.__getitem__, batch.schema.names))).to_pylist():
                number += 1
                yield number, row


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with open_stream(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            start = line.find(b"{")
            try:
                yield number, json.loads(line[max(start, 0) :])
            except (ValueError, RecursionError):
                yield number, line


SOURCE = Source(parts, read, state, declared_notice)
