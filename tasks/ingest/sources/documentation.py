"""Documentation in Markdown, reStructuredText or AsciiDoc: a directory, or a git repository at a revision.

Text is kept as its authors wrote it; see `markup` for the little that is taken out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.ingest.decode import decode
from tasks.ingest.sources.markup import CLEANERS
from tasks.ingest.sources.repository import checkout, is_git, parts_of
from tasks.ingest.sources.source import (
    Page,
    Part,
    Rejected,
    Source,
    SourceConfig,
    declared_notice,
    files_state,
    limited,
    root_of,
)

PATTERNS = tuple(f"*{suffix}" for suffix in CLEANERS)


def parts(config: SourceConfig) -> list[Part]:
    """Runs of files in the order of their paths. `max_pages` holds for the whole tree."""
    return parts_of(config, PATTERNS)


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a file; a file that cannot be read, is no text, or holds nothing but markup is a reject."""
    found = checkout(config)
    root = root_of(found)
    return limited(config, (_page(root, name) for name in part.items))


def state(config: SourceConfig) -> dict[str, Any]:
    """What the files hold; of a repository, its address (the revision is part of the config)."""
    return {"location": config.location} if is_git(config.location) else files_state(config, PATTERNS)


def notice(config: SourceConfig) -> str:
    """What the source declares, and the licence files at the root of the tree."""
    return declared_notice(checkout(config))


def _page(root: Path, name: str) -> Page | Rejected:
    path = root if root.is_file() else root / name
    try:
        decoded = decode(path.read_bytes(), "text/plain")
    except OSError as error:
        return Rejected("unreadable", name, str(error))
    if decoded is None:
        return Rejected("garbage", name, "bytes that are not text")
    text = CLEANERS.get(path.suffix.lower(), str.strip)(decoded.text)
    if not text:
        return Rejected("empty", name)
    return Page(name, text.encode("utf-8", "replace"), "text/plain; charset=utf-8")


SOURCE = Source(parts, read, state, notice)
