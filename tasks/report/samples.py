"""Rows to look at: what was dropped and why, what the teacher wrote, what each model answered.

Which rows are shown depends on their content alone (the least digests), never on file order, worker count or clock. At
most FILE_BUDGET files of an artifact are opened, evenly spread, so that the page of a web-scale run costs no more.
"""

import hashlib
import heapq
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
import zstandard

from tasks.artifact.manifest import FileEntry
from tasks.report.lineage import Node
from tasks.storage import join, storage_for

FILE_BUDGET = 16
ROW_BUDGET = 5_000  # of one file
SYNTHETIC_STAGES = ("synth", "instruct")
TEXT_FIELDS = ("text", "answer", "completion", "content", "body", "document")
FIRST_FACTS = ("url", "source", "language", "teacher", "licence", "id")
NO_FACTS = {*TEXT_FIELDS, "prompt", "messages", "reason", "unit", "meta", "crawl_time"}
FACT_CHARS = 200


@dataclass(frozen=True)
class Sample:
    """One row: turns of a conversation (a plain text is a single turn without a speaker) and where it is from."""

    turns: tuple[tuple[str, str], ...]  # (speaker, text)
    facts: tuple[tuple[str, str], ...]
    language: str
    cut_chars: int  # of the texts, not shown


@dataclass(frozen=True)
class Group:
    """Samples of one kind."""

    node: Node
    reason: str  # "" for rows that were kept
    rows: int  # how many there are in all
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Answer:
    """What the models said to one prompt."""

    prompt: str
    reference: str
    answers: tuple[tuple[str, str], ...]  # (model, answer), in the order of the models


def dropped(nodes: Sequence[Node], count: int, chars: int) -> list[Group]:
    """Samples of dropped rows for every stage and reason, most rows first within a stage."""
    groups: list[Group] = []
    for node in nodes:
        if node.manifest is None or not node.manifest.counts.dropped:
            continue
        rows = _least(_rejects(node), count)
        for reason, total in sorted(node.manifest.counts.dropped.items(), key=lambda item: (-item[1], item[0])):
            if total:
                found = tuple(sample(row, chars) for row in rows.get(reason, ()))
                groups.append(Group(node, reason, total, found))
    return groups


def synthetic(nodes: Sequence[Node], count: int, chars: int) -> list[Group]:
    """Samples of the rows that the synthesis stages kept."""
    groups: list[Group] = []
    for node in nodes:
        if node.stage in SYNTHETIC_STAGES and node.manifest is not None:
            found = _least((("", row) for row in _kept(node)), count).get("", [])
            groups.append(Group(node, "", node.manifest.counts.out, tuple(sample(row, chars) for row in found)))
    return [group for group in groups if group.rows]


def answers(nodes: Sequence[Node], count: int, chars: int) -> list[Answer]:
    """Prompts with each model's answer, from every generations.jsonl of the lineage."""
    by_prompt: dict[str, dict[str, str]] = {}
    references: dict[str, str] = {}
    models: list[str] = []
    for node in nodes:
        for entry in node.artifact.files() if node.artifact else ():
            if node.artifact is None or entry.path != "generations.jsonl":
                continue
            for row in _json_lines(node.artifact.read_bytes(entry.path).splitlines()):
                prompt = _shown(row.get("prompt"))
                model = str(row.get("model", "?"))
                by_prompt.setdefault(prompt, {})[model] = _cut(_shown(row.get("answer")), chars)[0]
                references.setdefault(prompt, _shown(row.get("reference")))
                if model not in models:
                    models.append(model)
    # Prompts that more models answered come first: those compare.
    chosen = sorted(by_prompt, key=lambda prompt: (-len(by_prompt[prompt]), _digest(prompt)))[: 2 * count]
    return [
        Answer(
            _cut(prompt, chars)[0],
            _cut(references[prompt], chars)[0],
            tuple((model, by_prompt[prompt][model]) for model in models if model in by_prompt[prompt]),
        )
        for prompt in chosen
    ]


def sample(row: Mapping[str, Any], chars: int) -> Sample:
    """A row as it is shown: its conversation or its text, and its other fields as facts."""
    turns = _turns(row)
    shown: list[tuple[str, str]] = []
    left = 0
    for speaker, text in turns:
        kept, cut = _cut(text, chars)
        shown.append((speaker, kept))
        left += cut
    names = [*(name for name in FIRST_FACTS if name in row), *sorted(row.keys() - {*FIRST_FACTS, *NO_FACTS})]
    facts = [(name, _cut(_shown(row[name]), FACT_CHARS)[0]) for name in names if row[name] not in (None, "")]
    return Sample(tuple(shown), tuple(facts), str(row.get("language") or ""), left)


def _turns(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    messages = row.get("messages")
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except ValueError:
            return [("", str(row["messages"]))]
    if isinstance(messages, list) and messages and all(isinstance(turn, dict) for turn in messages):
        return [(str(turn.get("role", "")), _shown(turn.get("content"))) for turn in messages]
    text = next((_shown(row[name]) for name in TEXT_FIELDS if row.get(name) not in (None, "")), None)
    prompt = row.get("prompt")
    if prompt not in (None, ""):
        return [("prompt", _shown(prompt)), *([("answer", text)] if text is not None else [])]
    return [("", text)] if text is not None else []


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _cut(text: str, chars: int) -> tuple[str, int]:
    return (text, 0) if len(text) <= chars else (text[:chars], len(text) - chars)


def _rejects(node: Node) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if node.artifact is not None:
        for row in _rows(node.artifact.url, "rejects", node.artifact.manifest.rejects):
            yield str(row.get("reason", "")), row


def _kept(node: Node) -> Iterator[Mapping[str, Any]]:
    if node.artifact is None:
        return
    entries = [
        entry for entry in node.artifact.manifest.files if entry.path.startswith(("docs/", "train/", "heldout/"))
    ]
    yield from _rows(node.artifact.url, "data", entries)


def _rows(url: str, section: str, entries: Sequence[FileEntry]) -> Iterator[Mapping[str, Any]]:
    readable = sorted((e for e in entries if e.path.endswith((".parquet", ".jsonl.zst"))), key=lambda e: e.path)
    step = max(1, len(readable) // FILE_BUDGET)
    for entry in readable[::step][:FILE_BUDGET]:
        data = storage_for(url).read(join(url, section, entry.path))
        rows = _parquet_rows(data) if entry.path.endswith(".parquet") else _json_lines(_unpacked(data))
        yield from itertools.islice(rows, ROW_BUDGET)


def _parquet_rows(data: bytes) -> Iterator[Mapping[str, Any]]:
    for batch in pq.ParquetFile(io.BytesIO(data)).iter_batches(batch_size=1024):
        yield from batch.to_pylist()


def _unpacked(data: bytes) -> Iterator[bytes]:
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        yield from io.BufferedReader(reader)


def _json_lines(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _least(rows: Iterable[tuple[str, Mapping[str, Any]]], count: int) -> dict[str, list[Mapping[str, Any]]]:
    """For each key the `count` rows with the least digests: a fair sample that any order of rows gives alike."""
    heaps: dict[str, list[tuple[int, str, Mapping[str, Any]]]] = {}
    for key, row in rows:
        body = json.dumps(row, ensure_ascii=False, sort_keys=True, default=str)
        rank = -int(_digest(body), 16)
        heap = heaps.setdefault(key, [])
        if any(shown == body for _, shown, _ in heap):
            continue  # the same row twice shows nothing new
        if len(heap) < count:
            heapq.heappush(heap, (rank, body, row))
        elif heap and rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, body, row))
    return {
        key: [row for _, _, row in sorted(heap, key=lambda item: (-item[0], item[1]))] for key, heap in heaps.items()
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
