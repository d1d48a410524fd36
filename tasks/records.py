"""What stages exchange: the fixed schemas of documents and conversations, and how their ids are made."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

DOCUMENT = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("crawl_time", pa.string(), nullable=False),  # ISO 8601, or "" when unknown
        pa.field("meta", pa.string(), nullable=False),  # a JSON object
    ]
)

CHAT = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("messages", pa.string(), nullable=False),  # JSON list of {role: user|assistant, content}
        pa.field("language", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("meta", pa.string(), nullable=False),  # a JSON object
    ]
)


def document_id(source: str, url: str, content: str | bytes) -> str:
    """The id of a document: 16 hex digits that depend on source, URL and content, each with its length."""
    body = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    parts = [source.encode("utf-8", "surrogatepass"), url.encode("utf-8", "surrogatepass"), body]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of exactly this schema.

    Raises:
        ValueError: a row lacks a column or has one that the schema lacks.
    """
    names = set(schema.names)
    for index, row in enumerate(rows):
        if row.keys() != names:
            raise ValueError(
                f"row {index} has columns {sorted(row)}, the schema has {sorted(names)}: stages exchange fixed "
                "schemas, so that a reader never guesses. "
                "Fill the missing columns ('' or '{}') and put the rest in meta."
            )
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def meta_json(**facts: Any) -> str:
    """The `meta` column: a JSON object with sorted keys, so that equal facts give equal bytes."""
    return json.dumps(facts, ensure_ascii=False, sort_keys=True)
