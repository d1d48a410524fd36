"""Looks for words in an artifact, shard after shard, until there are enough hits or the time is over."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute

from tasks.browse.shelf import Place, Shelf
from tasks.errors import ConfigError

compute: Any = pyarrow.compute  # its functions are made as it is imported, unseen by a type checker
MAX_HITS = 20  # of one answer
SECONDS = 5.0  # of one answer
CONTEXT_BYTES = 160  # shown at each side of a hit
QUERY_CHARS = 500
SHOWN_CHARS = 300  # of a hit


@dataclass(frozen=True)
class Query:
    """What to look for. A regular expression is RE2's: its time grows with the text alone, whatever the pattern."""

    words: str
    is_regex: bool = False
    match_case: bool = False
    column: str = "text"

    @property
    def pattern(self) -> str:
        """The same as a regular expression, in a group of its own."""
        inner = self.words if self.is_regex else re.escape(self.words)
        return f"(?P<hit>{'' if self.match_case else '(?i)'}{inner})"

    def check(self, shelf: Shelf) -> None:
        """Refuse what cannot be looked for.

        Raises:
            ConfigError: nothing to look for, too much, no such column, or no regular expression.
        """
        if not 0 < len(self.words) <= QUERY_CHARS:
            raise ConfigError(
                f"a search of {len(self.words):,} characters: it needs 1 to {QUERY_CHARS}, because it is held against "
                "every row. Write some words."
            )
        if self.column not in shelf.columns:
            raise ConfigError(
                f"column {self.column[:80]!r}: the rows have {', '.join(shelf.columns) or 'none'}, and a search reads "
                "one of them. Choose one."
            )
        try:
            compute.match_substring_regex(pa.array([""]), self.pattern)
        except pa.ArrowInvalid as error:
            raise ConfigError(
                f"{self.words[:120]!r} is no regular expression ({error}): RE2's are understood, which have no "
                "backreferences and no look-around, so that no pattern can hang. Correct it, or search for plain words."
            ) from error


@dataclass(frozen=True)
class Hit:
    """A row that matches, and its first match with what stands around it."""

    place: Place
    id: str
    source: str
    before: str
    match: str
    after: str


@dataclass(frozen=True)
class Found:
    """The answer to a search: hits in the order of the rows, and how far it came."""

    hits: tuple[Hit, ...]
    rows: int  # that were read
    next: Place | None  # where to go on; None = everything was read


def search(
    shelf: Shelf, query: Query, start: Place | None = None, *, max_hits: int = MAX_HITS, seconds: float = SECONDS
) -> Found:
    """Rows that match, from a place on. Stops after the batch in which a limit is reached, and says where to go on.

    Raises:
        ConfigError: see `Query.check`; the place is in no shard that is searched.
    """
    query.check(shelf)
    ends = time.monotonic() + seconds
    hits: list[Hit] = []
    rows = 0
    columns = list(dict.fromkeys([query.column, "id", *({"source"} & set(shelf.columns))]))
    for path, skip in _from(shelf, start):
        for first, batch in shelf.batches(path, columns, skip):
            skipped = max(0, skip - first)
            part = batch.slice(skipped)
            for hit in _hits(path, first + skipped, part, query):
                if len(hits) == max_hits:
                    return Found(tuple(hits), rows + hit.place.row - first - skipped, hit.place)
                hits.append(hit)
            rows += part.num_rows
            if time.monotonic() > ends:
                return Found(tuple(hits), rows, shelf.after(path, first + batch.num_rows))
    return Found(tuple(hits), rows, None)


def _from(shelf: Shelf, start: Place | None) -> Iterator[tuple[str, int]]:
    """The shards from a place on, each with the row to begin at."""
    if start is not None and start.path not in shelf.shards:
        raise ConfigError(
            f"place {start}: a search goes over {', '.join(shelf.folders)} and starts in one of their shards. Search "
            "from the beginning."
        )
    for path in shelf.shards:
        if start is None or path == start.path:
            yield path, start.row if start else 0
            start = None


def _hits(path: str, first: int, batch: pa.RecordBatch, query: Query) -> Iterator[Hit]:
    texts = batch[query.column]
    matching = compute.fill_null(compute.match_substring_regex(texts, query.pattern), False)
    for row in compute.indices_nonzero(matching).to_pylist():
        one = texts.slice(row, 1)
        at = compute.find_substring_regex(one, query.pattern)[0].as_py()
        match = compute.extract_regex(one, query.pattern)[0].as_py()["hit"]
        encoded = one[0].as_py().encode()
        end = at + len(match.encode())
        yield Hit(
            place=Place(path, first + row),
            id=batch["id"][row].as_py(),
            source=batch["source"][row].as_py() if "source" in batch.schema.names else "",
            before=encoded[max(0, at - CONTEXT_BYTES) : at].decode(errors="ignore"),
            match=match[:SHOWN_CHARS],
            after=encoded[end : end + CONTEXT_BYTES].decode(errors="ignore"),
        )
