"""The standard library of the running interpreter: real, ordinary Python under the PSF licence, on every machine."""

import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tasks.ingest.sources.source import Page, Part, Rejected, Source, SourceConfig, limited

PATTERNS = ("*.py",)
NOT_LIBRARY = (  # what is left out unless `exclude` says otherwise
    "site-packages/*",
    "dist-packages/*",
    "test/*",
    "*/test/*",
    "*/tests/*",
    "lib2to3/*",
    "idlelib/*",
    "config-*",
    "_sysconfigdata*",
)
FILES_PER_PART = 1000
LICENCE_FILES = ("LICENSE.txt", "LICENSE")


def parts(config: SourceConfig) -> list[Part]:
    """Runs of FILES_PER_PART files in the order of their paths. `max_pages` holds for the whole library.

    Raises:
        ValueError: the interpreter comes without its source files.
    """
    root = _root()
    found = [
        name
        for path in sorted(root.rglob("*.py"))
        if path.is_file() and config.takes(name := path.relative_to(root).as_posix(), PATTERNS, NOT_LIBRARY)
    ]
    if not found:
        raise ValueError(
            f"source {config.name!r}: {root} holds no .py file that matches {list(config.include or PATTERNS)}: "
            "this interpreter comes without its source. Use another Python, or correct the include globs."
        )
    found = found[: config.max_pages] if config.max_pages else found
    runs = [found[start : start + FILES_PER_PART] for start in range(0, len(found), FILES_PER_PART)]
    return [Part(f"{index:05d}", tuple(run)) for index, run in enumerate(runs)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a file."""
    return limited(config, (_page(name) for name in part.items))


def state(config: SourceConfig) -> dict[str, str]:
    """The interpreter's version: it names the files' content."""
    return {"python": platform.python_version()}


def notice(config: SourceConfig) -> str:
    """The licence text that ships with the interpreter, under the source's own declaration."""
    roots = [_root(), Path(sysconfig.get_path("data")), _root().parent]
    texts = [
        path.read_text("utf-8", "replace")
        for root in roots
        for name in LICENCE_FILES
        if (path := root / name).is_file()
    ]
    head = f"{config.name}: {config.attribution}\nPython {platform.python_version()}\nLicence: {config.licence}\n"
    return "\n".join([head, *texts[:1]])


def _page(name: str) -> Page | Rejected:
    try:
        return Page(f"python:{name}", (_root() / name).read_bytes(), "text/x-python")
    except OSError as error:
        return Rejected("unreadable", f"python:{name}", str(error))


def _root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


SOURCE = Source(parts, read, state, notice)
