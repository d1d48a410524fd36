"""Search-index dumps of Wikimedia wikis (CirrusSearch): pairs of JSON lines, the second of which holds the plain text.

The recommended form of a wiki: templates are already resolved, tables and references gone. Only articles (namespace 0)
are pages. Files are `jawiki-20240520-cirrussearch-content.json.gz` and, since 2025, `.json.bz2`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.ingest.sources import places
from tasks.ingest.sources.compressed import BROKEN, open_stream
from tasks.ingest.sources.source import Page, Part, Rejected, Source, SourceConfig, declared_notice, limited

_PACKED = ("", ".gz", ".bz2", ".zst")
PATTERNS = tuple(f"*{kind}{packed}" for kind in ("cirrussearch*.json", "-content.json") for packed in _PACKED)
MAX_LINE_BYTES = 1 << 28
_WIKI = re.compile(r"([a-z_-]{2,20}?)(wiki|wiktionary|wikibooks|wikinews|wikiquote|wikisource|wikiversity|wikivoyage)")


def parts(config: SourceConfig) -> list[Part]:
    """One part a file of the dump."""
    return [Part(places.key_of(config, url), (url,)) for url in places.files(config, PATTERNS)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page an article: its title, a blank line, its text. What is no article is a reject."""
    with places.fetched(part.items[0]) as path:
        yield from limited(config, _articles(part.key, path))


def _articles(name: str, path: Path) -> Iterator[Page | Rejected]:
    number = 0
    try:
        with open_stream(path) as lines:
            while line := lines.readline(MAX_LINE_BYTES):
                number += 1
                item = _article(f"{name}#{number}", line)
                if item is not None:
                    yield item
    except BROKEN as error:
        yield Rejected("truncated", f"{name}#{number + 1}", f"{type(error).__name__}: {error}")


def _article(origin: str, line: bytes) -> Page | Rejected | None:
    """The page of a line; None for the line before it, which only names it."""
    if not line.strip():
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Rejected("invalid_json", origin, f"{error}: {line[:200]!r}")
    if not isinstance(row, dict):
        return Rejected("no_text_field", origin, f"{line[:200]!r}")
    if "index" in row and "text" not in row:
        return None
    title, text = row.get("title"), row.get("text")
    if row.get("namespace", 0) != 0:
        return Rejected("namespace", origin, f"namespace {row.get('namespace')}: {title}")
    if not isinstance(title, str) or not isinstance(text, str) or not text.strip():
        return Rejected("no_text_field", origin, f"{title}: {line[:200]!r}")
    content = f"{title}\n\n{text}".encode("utf-8", "replace")
    return Page(_url(row, title), content, "text/plain; charset=utf-8", str(row.get("timestamp") or ""))


def _url(row: dict[str, Any], title: str) -> str:
    """The article's address, from the name of its wiki: `jawiki` is ja.wikipedia.org."""
    page = quote(title.replace(" ", "_"), safe="/:()',!*")
    found = _WIKI.fullmatch(str(row.get("wiki") or ""))
    if found is None:
        return f"wiki:{row.get('wiki') or ''}/{page}"
    language, project = found[1].replace("_", "-"), "wikipedia" if found[2] == "wiki" else found[2]
    return f"https://{language}.{project}.org/wiki/{page}"


SOURCE = Source(parts, read, lambda config: places.state(config, PATTERNS), declared_notice)
