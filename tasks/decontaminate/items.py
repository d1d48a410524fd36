"""The items that are looked for: those of the registered benchmarks, made from held-out rows, and those of files."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from tasks.artifact import Artifact
from tasks.decontaminate.config import DecontaminateConfig
from tasks.decontaminate.files import read_items
from tasks.decontaminate.index import Item
from tasks.eval.benchmarks import BENCHMARKS
from tasks.eval.config import EvalConfig
from tasks.eval.requests import Material, Settings
from tasks.shards import read_documents

log = logging.getLogger(__name__)

HELDOUT = "heldout/"


def gather(config: DecontaminateConfig, heldout: Sequence[Artifact]) -> list[Item]:
    """All items of the config. A benchmark that the held-out rows make no item of is said in the log and has none.

    Raises:
        ConfigError, DataFault: a file cannot be read as declared.
    """
    material = material_of(heldout) if config.benchmarks else Material()
    return [
        *(item for name in config.benchmarks for item in _registered(name, material, config)),
        *(
            Item(file.name, name, text)
            for file in config.files
            for name, text in read_items(file.url, file.fields, file.id_field)
        ),
    ]


def material_of(heldout: Sequence[Artifact]) -> Material:
    """Held-out documents and conversations by language, in order of id, as the evaluation takes them."""
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = {"text": {}, "messages": {}}
    for artifact in heldout:
        for batch in read_documents(artifact, HELDOUT):
            column = "text" if "text" in batch.schema.names else "messages"
            for row in batch.select(["id", column, "language"]).to_pylist():
                found[column].setdefault(row["language"], {})[row["id"]] = row
    documents, conversations = (
        {language: [rows[key] for key in sorted(rows)] for language, rows in found[column].items()}
        for column in ("text", "messages")
    )
    return Material(documents, conversations)


def _registered(name: str, material: Material, config: DecontaminateConfig) -> Iterator[Item]:
    benchmark = BENCHMARKS[name]
    settings = Settings(
        context_tokens=1, max_new_tokens=1, max_document_chars=EvalConfig.model_fields["max_document_chars"].default
    )
    count = 0
    for language in sorted({*material.documents, *material.instructions}):
        for item in benchmark.load(material, language, config.max_items, settings):
            count += 1
            for number, text in enumerate(benchmark.texts(item), 1):
                yield Item(name, f"{item.id}/{number}", text)
    if not count:
        log.warning(
            "benchmark %s has no item here and is not looked for: %d held-out documents and %d conversations make none",
            name,
            sum(map(len, material.documents.values())),
            sum(map(len, material.instructions.values())),
        )
