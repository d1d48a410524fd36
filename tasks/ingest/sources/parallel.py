"""Sentence pairs of two languages, TSV or JSON lines, as plain text: each pair on two lines, pairs a blank line apart.

`pair_fields` names the fields, or the columns from 0 of TSV without a head; the first side comes first. Source: pairs
are put into the mix as plain text by Swallow (Laboro ParaCorpus, recipes 1.2); the layout is ours.
"""

from collections.abc import Iterator
from pathlib import Path

from tasks.ingest.sources import places, rows
from tasks.ingest.sources.compressed import BROKEN, open_stream
from tasks.ingest.sources.source import Page, Part, Rejected, Source, SourceConfig, declared_notice, limited

_PACKED = ("", ".gz", ".zst", ".bz2")
PATTERNS = (*(f"*.{kind}{packed}" for kind in ("tsv", "txt") for packed in _PACKED), *rows.JSONL, *rows.PARQUET)
MAX_LINE_BYTES = 1 << 24
Pair = tuple[str, str, str]  # origin, first side, second side


def parts(config: SourceConfig) -> list[Part]:
    """One part a file.

    Raises:
        ValueError: the two sides are the same field, or there is no file.
    """
    if config.pair_fields[0] == config.pair_fields[1]:
        raise ValueError(
            f"source {config.name!r}: pair_fields={list(config.pair_fields)} are one field: a pair has two sides. "
            "Name the fields of both languages."
        )
    return [Part(places.key_of(config, url), (url,)) for url in places.files(config, PATTERNS)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a run of `pairs_per_page` pairs, in order; a line that is no pair is a reject."""
    with places.fetched(part.items[0]) as path:
        is_table = any(
            part.key.endswith(suffix) for kind in ("tsv", "txt") for suffix in (f".{kind}{p}" for p in _PACKED)
        )
        pairs = _columns(config, part.key, path) if is_table else _fields(config, part.key, path)
        yield from limited(config, _pages(config, pairs))


def _pages(config: SourceConfig, pairs: Iterator[Pair | Rejected]) -> Iterator[Page | Rejected]:
    waiting: list[Pair] = []
    for pair in pairs:
        if isinstance(pair, Rejected):
            yield pair
            continue
        waiting.append(pair)
        if len(waiting) == config.pairs_per_page:
            yield _page(waiting)
            waiting = []
    if waiting:
        yield _page(waiting)


def _page(pairs: list[Pair]) -> Page:
    text = "\n\n".join(f"{first}\n{second}" for _, first, second in pairs)
    return Page(pairs[0][0], text.encode("utf-8", "replace"), "text/plain; charset=utf-8")


def _fields(config: SourceConfig, name: str, path: Path) -> Iterator[Pair | Rejected]:
    for found in rows.rows(name, path):
        if isinstance(found, Rejected):
            yield found
            continue
        origin, row = found
        # Hub datasets often keep both sides in one field: {"translation": {"ja": …, "en": …}}.
        inner = row.get("translation")
        sides = [(inner if isinstance(inner, dict) else row).get(field) for field in config.pair_fields]
        yield _pair(origin, sides, str(row))


def _columns(config: SourceConfig, name: str, path: Path) -> Iterator[Pair | Rejected]:
    number = 0
    places_of: list[int] | None = None
    if all(field.isdecimal() for field in config.pair_fields):
        places_of = [int(field) for field in config.pair_fields]
    try:
        with open_stream(path) as lines:
            while line := lines.readline(MAX_LINE_BYTES):
                number += 1
                cells = line.decode("utf-8", "replace").rstrip("\r\n").split("\t")
                if places_of is None:
                    if not set(config.pair_fields) <= set(cells):
                        yield Rejected("no_pair_fields", name, f"the head {cells[:10]} lacks {config.pair_fields}")
                        return
                    places_of = [cells.index(field) for field in config.pair_fields]
                elif line.strip():
                    sides = [cells[place] if place < len(cells) else None for place in places_of]
                    yield _pair(f"{name}#{number}", sides, line[:200].decode("utf-8", "replace"))
    except BROKEN as error:
        yield Rejected("truncated", f"{name}#{number + 1}", f"{type(error).__name__}: {error}")


def _pair(origin: str, sides: list[object], shown: str) -> Pair | Rejected:
    """A pair on one line a side; a side without text, or with broken characters, makes it none."""
    first, second = (" ".join(side.split()) if isinstance(side, str) else "" for side in sides)
    if not first or not second:
        return Rejected("no_pair", origin, shown[:200])
    if "\ufffd" in first + second:
        return Rejected("garbage", origin, shown[:200])
    return origin, first, second


SOURCE = Source(parts, read, lambda config: places.state(config, PATTERNS), declared_notice)
