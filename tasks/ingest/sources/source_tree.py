"""Source code of a directory or a git repository at a revision: each file under the licence that was found for it.

A file says its licence by an SPDX line in its head; else the nearest LICENSE or COPYING file above it does. A file
without a permitted one is a reject. `licence` and `permitted` name those that are; the first in this order that a file
offers is the one it is taken under.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tasks.ingest.sources.licence_texts import Found, of_directory, of_head
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
    list_files,
    root_of,
)

CONTENT_TYPES = {
    ".py": "text/x-python",
    ".c": "text/x-c",
    ".h": "text/x-c",
    ".cc": "text/x-c++",
    ".cpp": "text/x-c++",
    ".cxx": "text/x-c++",
    ".hpp": "text/x-c++",
    ".cu": "text/x-cuda",
    ".go": "text/x-go",
    ".java": "text/x-java",
    ".js": "text/javascript",
    ".rb": "text/x-ruby",
    ".rs": "text/x-rust",
    ".sh": "text/x-sh",
    ".ts": "text/x-typescript",
}
PATTERNS = tuple(f"*{suffix}" for suffix in CONTENT_TYPES)


def parts(config: SourceConfig) -> list[Part]:
    """Runs of files in the order of their paths. `max_pages` holds for the whole tree."""
    return parts_of(config, PATTERNS)


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a file that is under a permitted licence; reasons are `no_licence`, `licence`, `unreadable`."""
    found = checkout(config)
    root = root_of(found)
    root = root.parent if root.is_file() else root
    above = functools.cache(lambda folder: of_directory(folder, root))
    return limited(config, (_page(config, root / name, name, above) for name in part.items))


def state(config: SourceConfig) -> dict[str, Any]:
    """What the files hold, licence texts included; of a repository, its address."""
    if is_git(config.location):
        return {"location": config.location}
    return files_state(config, PATTERNS) | {"licences": _texts(config)}


def notice(config: SourceConfig) -> str:
    """What the source declares, and the licence files at the root of the tree."""
    return declared_notice(checkout(config))


def _texts(config: SourceConfig) -> list[list[str]]:
    root = root_of(config)
    folders = sorted({path.parent for path in list_files(config, PATTERNS)})
    found = [(folder, of_directory(folder, root)) for folder in folders]
    return [[str(folder.relative_to(root)), *licence.ids] for folder, licence in found if licence and root.is_dir()]


def _page(config: SourceConfig, path: Path, name: str, above: Callable[[Path], Found | None]) -> Page | Rejected:
    try:
        content = path.read_bytes()
        found = of_head(content) or above(path.parent)
    except OSError as error:
        return Rejected("unreadable", name, str(error))
    if found is None:
        return Rejected("no_licence", name, "neither an SPDX line nor a LICENSE or COPYING file that is known")
    licence = _permitted(config, found)
    if not licence:
        return Rejected("licence", name, f"{' or '.join(found.ids)} ({found.where}), permitted: {config.licences()}")
    return Page(name, content, CONTENT_TYPES.get(path.suffix.lower(), "text/plain"), licence=licence)


def _permitted(config: SourceConfig, found: Found) -> str:
    return next((licence for licence in config.licences() if licence in found.ids), "")


SOURCE = Source(parts, read, state, notice)
