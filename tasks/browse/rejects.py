"""Every row that a stage dropped, by reason, page after page."""

import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zstandard

from tasks.artifact import Artifact
from tasks.errors import ConfigError
from tasks.storage import is_local, join, local_path, storage_for

ROWS = 20  # of one page
SECONDS = 5.0  # of one answer


@dataclass(frozen=True)
class Rejects:
    """Dropped rows, and where to go on: (file, line)."""

    rows: tuple[dict[str, Any], ...]
    read: int  # lines looked at
    next: tuple[int, int] | None


def reasons(artifact: Artifact) -> list[tuple[str, int]]:
    """Reason -> rows, most first; as counted in the manifest."""
    return sorted(artifact.manifest.counts.dropped.items(), key=lambda item: (-item[1], item[0]))


def rejects(
    artifact: Artifact,
    reason: str = "",
    words: str = "",
    start: tuple[int, int] = (0, 0),
    *,
    count: int = ROWS,
    seconds: float = SECONDS,
) -> Rejects:
    """Dropped rows from a place on, of one reason and with some words in them; empty ones mean any.

    Raises:
        ConfigError: there is no such place.
    """
    files = [entry.path for entry in artifact.manifest.rejects]
    if not 0 <= start[0] <= len(files) or start[1] < 0:
        raise ConfigError(f"place {start}: the artifact has {len(files)} files of rejects. Start from the first page.")
    ends = time.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    read = 0
    words = words.lower()
    for number in range(start[0], len(files)):
        skip = start[1] if number == start[0] else 0
        for line, text in enumerate(reject_lines(artifact, files[number])):
            if line < skip:
                continue
            if len(rows) == count or (read % 1000 == 999 and time.monotonic() > ends):
                return Rejects(tuple(rows), read, (number, line))
            read += 1
            row = json.loads(text)
            if (not reason or row["reason"] == reason) and any(words in str(value).lower() for value in row.values()):
                rows.append(row)
    return Rejects(tuple(rows), read, None)


def reject_lines(artifact: Artifact, path: str) -> Iterator[str]:
    """The lines of one file of rejects, JSON each, read as they are needed."""
    url = join(artifact.url, "rejects", path)
    raw = local_path(url).open("rb") if is_local(url) else io.BytesIO(storage_for(url).read(url))
    with raw, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as reader:
        # Only \n ends a line: JSON does not escape the other characters that str.splitlines would cut at.
        yield from io.TextIOWrapper(reader, encoding="utf-8", newline="\n")
