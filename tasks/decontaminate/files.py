"""Files of benchmark items: JSON lines, JSON, tables and plain lines, packed or not, at any URL."""

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import zstandard

from tasks.errors import ConfigError, DataFault
from tasks.storage import storage_for

FORMATS = (".jsonl", ".json", ".tsv", ".csv", ".txt")
_PACKED = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": lambda data: zstandard.ZstdDecompressor().stream_reader(data).read(),
}
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, UnicodeDecodeError, ValueError)


def suffix_of(url: str) -> str:
    """The suffix that tells the format, without that of the packing; .ndjson is .jsonl."""
    suffixes = PurePosixPath(url).suffixes
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return {".ndjson": ".jsonl"}.get(suffixes[-1], suffixes[-1]) if suffixes else ""


def digest_of(url: str) -> str:
    """sha256 of the file as it lies there.

    Raises:
        ConfigError: it is not there.
    """
    return hashlib.sha256(_read(url)).hexdigest()


def read_items(url: str, fields: Sequence[str], id_field: str = "") -> Iterator[tuple[str, str]]:
    """Id and text of each item, in order; an item with several texts has an id for each (ID/FIELD, ID/FIELD/2, …).

    Raises:
        ConfigError: the file is not there, or a field is in none of its rows.
        DataFault: it is damaged, or a row has no name where `id_field` names one.
    """
    data = _read(url)
    try:
        rows = _rows(url, data, is_named=not all(field.isdigit() for field in fields))
    except _BROKEN as error:
        raise DataFault(
            f"items {url}: {type(error).__name__}: {error}. A file of items that is read in part leaves the rest "
            "unprotected. Fetch it again, or correct its name if it has another format."
        ) from error
    seen: set[str] = set()
    for number, row in enumerate(rows):
        if isinstance(row, str):
            yield str(number), row
            continue
        name = next(iter(_texts(row, id_field.split("."))), None) if id_field else str(number)
        if name is None:
            raise DataFault(
                f"items {url}: row {number} has no {id_field!r} among {_names(row)}: every item needs a name to be "
                "shown as evidence. Correct id_field, or leave it blank to number the items."
            )
        for field in fields:
            for count, text in enumerate(_texts(row, field.split(".")), 1):
                seen.add(field)
                yield f"{name}/{field}" + (f"/{count}" if count > 1 else ""), text
    if missing := sorted(set(fields) - seen):
        raise ConfigError(
            f"items {url}: no row has a text in {', '.join(missing)}; the first one has "
            f"{_names(rows[0]) if rows else 'nothing, the file is empty'}. Items without text protect nothing. "
            "Correct the fields."
        )


def _rows(url: str, data: bytes, *, is_named: bool) -> list[Any]:
    """Rows as texts or objects; a table of which columns are named starts with a line of names."""
    suffix = PurePosixPath(url).suffixes[-1]
    text = _PACKED.get(suffix, bytes)(data).decode("utf-8-sig")
    kind = suffix_of(url)
    if kind == ".txt":
        return [line for line in text.splitlines() if line.strip()]
    if kind == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    if kind == ".json":
        found = json.loads(text)
        return found if isinstance(found, list) else [found]
    quoting = csv.QUOTE_NONE if kind == ".tsv" else csv.QUOTE_MINIMAL
    csv.field_size_limit(1 << 30)
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t" if kind == ".tsv" else ",", quoting=quoting))
    if is_named:
        return [dict(zip(lines[0], line, strict=False)) for line in lines[1:] if line]
    return [{str(i): cell for i, cell in enumerate(line)} for line in lines if line]


def _texts(row: Any, path: Sequence[str]) -> Iterator[str]:
    """The texts at a dotted path; `*` is every field. Lists, and objects past the end of the path, are entered."""
    if isinstance(row, list):
        for entry in row:
            yield from _texts(entry, path)
    elif path:
        if isinstance(row, Mapping):
            for entry in row.values() if path[0] == "*" else [row[path[0]]] if path[0] in row else []:
                yield from _texts(entry, path[1:])
    elif isinstance(row, Mapping):
        for entry in row.values():
            yield from _texts(entry, path)
    elif isinstance(row, (str, int)) and not isinstance(row, bool) and str(row).strip():
        yield str(row)


def _names(row: Any) -> str:
    return ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__


def _read(url: str) -> bytes:
    try:
        return storage_for(url).read(url)
    except FileNotFoundError as error:
        raise ConfigError(
            f"items {url} are not there: without them the benchmark would be called unseen without a look. "
            "Correct the url, or leave the file out."
        ) from error
