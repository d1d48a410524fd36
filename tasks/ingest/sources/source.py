"""What a source of raw pages is: its declaration, its pages, and the parts it is read in."""

import fnmatch
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator

from tasks.config import StageConfig, operational_field
from tasks.licences import licence
from tasks.storage import is_local, local_path

PAGE = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("language_hint", pa.string(), nullable=False),  # "" when the source does not say
        pa.field("content_type", pa.string(), nullable=False),  # as HTTP writes it, charset included when declared
        pa.field("content", pa.large_binary(), nullable=False),
        pa.field("crawl_time", pa.string(), nullable=False),  # ISO 8601, or "" when unknown
    ]
)


class SourceConfig(StageConfig):
    """One source of raw pages. It says under which licence its pages are, and whom to name."""

    kind: str = Field(description="Reader: one of SOURCES in tasks/ingest/sources.")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$", description="Name of the source in documents and mixtures.")
    licence: str = Field(min_length=1, description="Licence id of the pages, from the table in tasks/licences.py.")
    attribution: str = Field(min_length=1, description="Whom to name, and where the pages come from.")
    language_hint: str = Field(default="", description="Language the pages are said to be in; blank = unknown.")
    location: str = operational_field(
        "Directory, file or URL to read; of huggingface a repository OWNER/NAME. What a local one holds is part of "
        "the identity, where it is is not; a remote one is where it is, at its revision.",
        default="",
    )
    packages: tuple[str, ...] = Field(default=(), description="Debian packages, NAME or NAME=VERSION (debian).")
    include: tuple[str, ...] = Field(
        default=(), description="Globs on the path; a page is taken when one matches. Blank = the reader's own."
    )
    exclude: tuple[str, ...] = Field(default=(), description="Globs on the path; a page is left out when one matches.")
    max_pages: int = Field(default=0, ge=0, description="At most so many pages of each part (package, file); 0 = all.")
    text_field: str = Field(
        default="text", description="Field that holds the text of a row (jsonl, parquet, huggingface)."
    )
    base_url: str = Field(
        default="https://data.commoncrawl.org",
        description="Where the paths of a list or of an index begin (warc, warc_index).",
    )
    languages: tuple[str, ...] = Field(
        default=(), description="Codes as an index writes them (jpn); pages of others are not read (warc_index)."
    )
    permitted: tuple[str, ...] = Field(
        default=(), description="Licence ids that a file may be under; blank = `licence` alone (source_tree)."
    )
    pair_fields: tuple[str, str] = Field(
        default=("ja", "en"), description="Fields, or numbers of columns from 0, of the two sides (parallel)."
    )
    pairs_per_page: int = Field(default=1, gt=0, description="Pairs that make one page (parallel).")
    revision: str = Field(
        default="", description="Name of the state of the source; blank = digest of all its bytes, read at every plan."
    )
    cache_dir: str = operational_field(
        "Where packages (debian) and repositories (documentation, source_tree) are kept between runs.",
        default=".cache/debian",
    )

    @field_validator("licence")
    @classmethod
    def _is_in_the_table(cls, value: str) -> str:
        licence(value)
        return value

    @field_validator("permitted")
    @classmethod
    def _are_in_the_table(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for licence_id in value:
            licence(licence_id)
        return value

    def licences(self) -> tuple[str, ...]:
        """Every licence that a page of this source may be under."""
        return tuple(dict.fromkeys((self.licence, *self.permitted)))

    def takes(self, path: str, include: tuple[str, ...], exclude: tuple[str, ...] = ()) -> bool:
        """Whether a path passes the globs of the config, or those given here where the config has none."""
        included = any(fnmatch.fnmatchcase(path, glob) for glob in self.include or include)
        return included and not any(fnmatch.fnmatchcase(path, glob) for glob in self.exclude or exclude)


@dataclass(frozen=True)
class Page:
    """One raw page, as it was found."""

    url: str
    content: bytes
    content_type: str
    crawl_time: str = ""
    licence: str = ""  # where it is another than the source's


@dataclass(frozen=True)
class Rejected:
    """Something that should have been a page: why it is none, and where it was."""

    reason: str
    url: str
    detail: str = ""


@dataclass(frozen=True)
class Part:
    """A piece of a source that is read in one go: a unit of work. `items` are what the reader needs to find it."""

    key: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A kind of source. All functions are deterministic; `read` is lazy and holds one page in memory."""

    parts: Callable[[SourceConfig], list[Part]]  # raises ValueError when there is nothing to read
    read: Callable[[SourceConfig, Part], Iterator[Page | Rejected]]
    state: Callable[[SourceConfig], Any]  # what the pages depend on beside the config; part of the identity
    notice: Callable[[SourceConfig], str]  # copyright notices of the pages, to be passed on with what is made of them


def list_files(config: SourceConfig, default: tuple[str, ...]) -> list[Path]:
    """The files a local source consists of, sorted; a single file is a source too.

    Raises:
        ValueError: the place does not exist, or holds no such file.
    """
    if not config.location:
        raise ValueError(
            f"source {config.name!r} of kind {config.kind!r} has no location: this kind reads files. "
            "Set its location to a directory or a file."
        )
    root = root_of(config)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ValueError(
            f"source {config.name!r}: location={config.location!r} does not exist (looked at {root}): "
            "a source that is not there would give an empty corpus. Correct the path, or remove the source."
        )
    found = sorted(
        path for path in root.rglob("*") if path.is_file() and config.takes(path.relative_to(root).as_posix(), default)
    )
    if not found:
        raise ValueError(
            f"source {config.name!r}: location={config.location!r} holds no file that matches "
            f"{list(config.include or default)}: a source without pages would give an empty corpus. "
            "Put pages there, correct the path or the include globs, or remove the source."
        )
    return found


def root_of(config: SourceConfig) -> Path:
    """The directory or file of a local source."""
    return local_path(config.location)


def relative(config: SourceConfig, path: Path) -> str:
    """The path of a file inside its source, which does not depend on where the source is."""
    root = root_of(config)
    return path.name if root.is_file() else path.relative_to(root).as_posix()


def files_state(config: SourceConfig, default: tuple[str, ...]) -> dict[str, Any]:
    """Number, size and digest of a local source's files; only the revision where one is declared."""
    if config.revision:
        return {}
    files = list_files(config, default)
    digest = hashlib.sha256()
    size = 0
    for path in files:
        with path.open("rb") as handle:
            inner = hashlib.file_digest(handle, "sha256").hexdigest()
        size += path.stat().st_size
        digest.update(f"{relative(config, path)}\0{inner}\n".encode("utf-8", "surrogateescape"))
    return {"files": len(files), "bytes": size, "sha256": digest.hexdigest()}


def declared_notice(config: SourceConfig) -> str:
    """The notice of a source that brings no text of its own, plus whatever notice files lie beside its pages."""
    lines = [f"{config.name}: {config.attribution}", f"Licence: {config.licence}", ""]
    if config.location and is_local(config.location):
        root = root_of(config)
        folder = root if root.is_dir() else root.parent
        for path in sorted(folder.glob("*")):
            if path.is_file() and path.stem.upper() in ("LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT"):
                lines += [f"--- {path.name}", path.read_text("utf-8", "replace"), ""]
    return "\n".join(lines)


def limited(config: SourceConfig, found: Iterator[Page | Rejected]) -> Iterator[Page | Rejected]:
    """Stop after `max_pages` pages; rejects do not count."""
    pages = 0
    for item in found:
        yield item
        pages += isinstance(item, Page)
        if config.max_pages and pages >= config.max_pages:
            return
