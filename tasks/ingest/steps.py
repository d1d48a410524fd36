"""The steps of cleaning, each over a batch of pages, and what is written of the rows: see `plan_of` for their order.

Columns on the way: those of PAGE, then `text` (what is known of it so far), `title`, `encoding`, `reason`
(from the filters on) with one column for each number measured or counted, and at last `document_id`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.artifact.workspace import REJECT_TEXT_CHARS
from tasks.ingest.config import CleanConfig
from tasks.ingest.edits.edit import Moment
from tasks.ingest.edits.revise import revise
from tasks.ingest.engine import ROW, Batch, Parts, Plan, Reasons
from tasks.ingest.extract import Extracted, Extractor
from tasks.ingest.filters.verdicts import columns_of, judge
from tasks.ingest.gate import passes_gate
from tasks.ingest.language import identify_all
from tasks.ingest.languages import LANGUAGES
from tasks.ingest.texts import Texts
from tasks.records import DOCUMENT, document_id, meta_json

CONTEXT_CHARS = 100  # beyond what a reject keeps, so that a name at its end is seen whole when it is masked


def plan_of(config: CleanConfig, extractor: Extractor) -> Plan:
    """The steps of a config in their order, and what they write."""
    sidecar = annotation_schema(config)
    return Plan(
        steps=(
            partial(of_a_kind, config=config),
            partial(gated, config=config),
            partial(extracted, extractor=extractor),
            partial(revised, config=config, moment="extracted"),
            partial(normalised, config=config),
            partial(in_the_language, config=config),
            partial(revised, config=config, moment="identified"),
            partial(judged, config=config),
            partial(revised, config=config, moment="kept"),
            named,
        ),
        outputs={"docs": DOCUMENT, "annotations": sidecar},
        tables=lambda kept, dropped: {
            "docs": documents(kept, config),
            "annotations": annotations(kept, dropped, sidecar),
        },
        reject=partial(rejects, config=config),
    )


def of_a_kind(batch: Batch, config: CleanConfig) -> tuple[Batch, Reasons]:
    """Drops pages said to be in another language (`language:XX`) or of a type that holds no text (`content_type`)."""
    pack = LANGUAGES[config.language]
    reasons: list[str | None] = []
    for hint, content_type in zip(batch["language_hint"], batch["content_type"], strict=True):
        if hint and hint != pack.code:
            reasons.append(f"language:{hint}")
        else:
            bare = content_type.split(";")[0].strip().lower()
            reasons.append(None if bare in pack.content_types else "content_type")
    said = [
        kind if reason == "content_type" else "" for kind, reason in zip(batch["content_type"], reasons, strict=True)
    ]
    return batch.with_columns({"text": said}), reasons


def gated(batch: Batch, config: CleanConfig) -> tuple[Batch, Reasons]:
    """Drops pages whose head does not look Japanese (`language_gate`), where the config asks for it."""
    if not config.language_gate:
        return batch, [None] * len(batch)
    pages = zip(batch["content"], batch["content_type"], strict=True)
    return batch, [None if passes_gate(content, kind) else "language_gate" for content, kind in pages]


def extracted(batch: Batch, extractor: Extractor) -> tuple[Batch, Reasons]:
    """Content to text, title and encoding. Drops with the extractor's reasons, and the detail as text."""
    found = [_extract(extractor, *page) for page in zip(batch["content"], batch["content_type"], strict=True)]
    columns = {
        "text": [page.detail if page.reason else page.text for page in found],
        "title": [page.title for page in found],
        "encoding": [page.encoding for page in found],
    }
    return batch.without("content").with_columns(columns), [page.reason or None for page in found]


def _extract(extractor: Extractor, content: bytes, content_type: str) -> Extracted:
    found = extractor.extract(content, content_type)
    if found.reason != "extract_crash":
        return found
    return extractor.extract(content, content_type)  # killed from outside, or by the page: then it dies again


def revised(batch: Batch, config: CleanConfig, moment: Moment) -> tuple[Batch, Reasons]:
    """The edits of one moment, with a column for each count. Drops nothing."""
    texts, counts = revise(batch["text"], config.edited(), moment)
    return batch.with_columns({"text": texts, **counts}), [None] * len(batch)


def normalised(batch: Batch, config: CleanConfig) -> tuple[Batch, Reasons]:
    """The language pack's normaliser on text and title. Drops `empty` ones."""
    normalise = LANGUAGES[config.language].normalise
    texts = [normalise(text) for text in batch["text"]]
    columns = {"text": texts, "title": [normalise(title) for title in batch["title"]]}
    return batch.with_columns(columns), [None if text.strip() else "empty" for text in texts]


def in_the_language(batch: Batch, config: CleanConfig) -> tuple[Batch, Reasons]:
    """Drops texts in another language, as `language:XX`."""
    label = LANGUAGES[config.language].label
    if not label:
        return batch, [None] * len(batch)
    found = identify_all(
        batch["text"], min_kana_fraction=config.min_kana_fraction, min_probability=config.min_language_probability
    )
    return batch, [None if language == label else f"language:{language}" for language in found]


def judged(batch: Batch, config: CleanConfig) -> tuple[Batch, Reasons]:
    """Drops by the filters, and keeps what they measured."""
    found = judge(Texts(batch["text"], batch["url"]), config.applied())
    return batch.with_columns({"reason": found.reasons, **found.columns}), found.reasons


def named(batch: Batch) -> tuple[Batch, Reasons]:
    """Documents get their ids, which depend on the finished text."""
    parts = zip(batch["source"], batch["url"], batch["text"], strict=True)
    return batch.with_columns({"document_id": [document_id(*part) for part in parts]}), [None] * len(batch)


def documents(kept: Batch, config: CleanConfig) -> pa.Table:
    """Rows of docs/."""
    if not len(kept):
        return DOCUMENT.empty_table()
    titles, _ = revise(kept["title"], config.edited(), "kept")  # personal data is masked there, too
    facts = zip(kept["encoding"], titles, strict=True)
    meta = [_meta(encoding=encoding, title=title) for encoding, title in facts]
    own = {"id": kept["document_id"], "language": [config.language] * len(kept), "meta": meta}
    return pa.table({name: own[name] if name in own else kept[name] for name in DOCUMENT.names}, schema=DOCUMENT)


def annotation_schema(config: CleanConfig) -> pa.Schema:
    """The sidecar's columns: ids, the verdict, numbers of the filters (NaN = not measured), counts of the edits.

    `id` is that of the document, or of the page where the text was dropped: in rejects/ the same. A count is null where
    the edit was not applied, because a filter had dropped the text before.
    """
    counted = {
        name for moment in ("extracted", "identified", "kept") for name in revise([], config.edited(), moment)[1]
    }
    return pa.schema(
        [
            *(pa.field(name, pa.string(), nullable=False) for name in ("id", "url", "source")),
            pa.field("reason", pa.string()),  # null = kept
            *(pa.field(name, pa.float64(), nullable=False) for name in columns_of(config.applied())),
            *(pa.field(name, pa.int64()) for name in sorted(counted)),
        ]
    )


def annotations(kept: Batch, dropped: Parts, schema: pa.Schema) -> pa.Table:
    """Rows of annotations/, in the order of the pages: those that were judged, whatever the verdict."""
    parts = [part for part, _ in dropped if "reason" in part.columns] + ([kept] if len(kept) else [])
    if not parts:
        return schema.empty_table()
    order = np.argsort(np.concatenate([part[ROW] for part in parts]))
    return pa.concat_tables([_annotation(part, schema) for part in parts]).take(order)


def _annotation(part: Batch, schema: pa.Schema) -> pa.Table:
    columns: Mapping[str, Any] = {**part.columns, "id": part.columns.get("document_id", part["id"])}
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(len(part), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def rejects(dropped: Batch, config: CleanConfig) -> list[dict[str, Any]]:
    """What rejects/ keeps of dropped rows: the text as far as it came, cut and masked like a kept one."""
    texts, _ = revise([text[: REJECT_TEXT_CHARS + CONTEXT_CHARS] for text in dropped["text"]], config.edited(), "kept")
    rows = zip(dropped["id"], dropped["url"], dropped["source"], texts, strict=True)
    return [{"id": id_, "url": url, "source": source, "text": text} for id_, url, source, text in rows]


def _meta(**facts: Any) -> str:
    return meta_json(**{name: value for name, value in facts.items() if value})
