"""The stage DECONTAMINATE: rows that hold an item of a benchmark go, all others stay as they are.

A row is judged by itself, so neither the order of shards nor what stands beside it shows in the result. Held-out rows
are what the benchmarks are made from: they pass.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from tasks.artifact import Artifact, Stage, Unit, Workspace
from tasks.decontaminate.config import DecontaminateConfig
from tasks.decontaminate.index import Index, Widths, build
from tasks.decontaminate.items import HELDOUT, gather
from tasks.decontaminate.paraphrase import Closest, closest_to, passages_of
from tasks.decontaminate.search import Counts, Found, Rules, common_phrases, search
from tasks.errors import ConfigError
from tasks.progress import track
from tasks.shard_workers import require_every_row
from tasks.shards import read_batches
from tasks.storage import storage_for

REASON = "contaminated"
COMMON = "common_phrases"
TRAINING = ("train/", "docs/")  # what dedup and instruct write; what synth writes
EVIDENCE_CHARS = 200

Judge = Callable[[Sequence[dict[str, Any]]], list[Found | None]]


def run(workspace: Workspace, config: DecontaminateConfig, inputs: dict[str, Artifact]) -> None:
    """Write the shards of the input without the rows that hold an item, a unit of work for each shard.

    Raises:
        ConfigError: there is nothing to look in or to look for.
    """
    docs = inputs["docs"]
    heldout = [artifact for role, artifact in inputs.items() if role.startswith("heldout.")]
    index = build(gather(config, [docs, *heldout]), widths_of(config))
    shards = _shards(docs)
    kept = [entry.path for entry in docs.files(HELDOUT)]
    workspace.expect_units(len(shards) + len(kept) + bool(config.max_documents))
    if config.max_documents:
        index = _without_common(workspace, index, docs, shards, config.max_documents)
    _require_items(index, config)
    todo = [path for path in shards if workspace.unit_record(path) is None]
    with track(f"decontaminate {workspace.name}", len(shards), "shards") as bar, _judge(config, index, todo) as judge:
        bar.resume(len(shards) - len(todo))
        for path in todo:
            with workspace.unit(path) as unit:
                _clear(unit, docs, judge)
            bar.advance()
    for path in kept:
        if workspace.unit_record(path) is None:
            with workspace.unit(path) as unit:
                rows = docs.entry(path).rows or 0
                _copy(unit, docs)
                unit.count(rows_in=rows, rows_out=rows)
    expected = sum(docs.entry(path).rows or 0 for path in (*shards, *kept))
    require_every_row(f"decontaminate {workspace.name}", expected, workspace.units())
    workspace.note(**figures(config, index, [record.facts for record in workspace.units()]))


def _shards(docs: Artifact) -> list[str]:
    found = [e.path for e in docs.files() if e.path.startswith(TRAINING) and e.path.endswith(".parquet")]
    if not found:
        raise ConfigError(
            f"{docs.url} has no *.parquet under {' or '.join(TRAINING)}, its files are "
            f"{[entry.path for entry in docs.files()][:5]}: documents and conversations lie there. "
            "Give the reference of a dedup, synth or instruct step, for example ingest/tiny:ja."
        )
    return sorted(found)


def widths_of(config: DecontaminateConfig) -> dict[Any, Widths]:
    """The windows of a config."""
    return {
        "words": Widths(config.word_ngram, config.min_words),
        "characters": Widths(config.char_ngram, config.min_chars),
    }


def text_of(row: Mapping[str, Any]) -> str:
    """What of a row is searched: a document's text, or all that is said in a conversation."""
    if "text" in row:
        return row["text"]
    return "\n".join(str(message["content"]) for message in json.loads(row["messages"]))


def figures(config: DecontaminateConfig, index: Index, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the model card says: of each benchmark the items looked for and the rows dropped, by rule and source."""
    sums: dict[str, dict[str, Counter[str]]] = {}
    for fact in facts:
        for benchmark, by in fact.get("dropped", {}).items():
            found = sums.setdefault(benchmark, {"rules": Counter(), "sources": Counter(), "items": Counter()})
            for key, counter in found.items():
                counter.update(by[key])
    names = (*config.benchmarks, *(file.name for file in config.files))
    made: dict[str, dict[str, Any]] = {name: {"items": 0, "too_short": 0, "common": 0} for name in names}
    used = index.is_used
    for number, item in enumerate(index.items):
        one = made[item.benchmark]
        one["items"] += 1
        one["too_short"] += index.forms[number] is None and not index.windows[number]
        one["common"] += index.forms[number] is not None and not bool(used[number])
    for name, one in made.items():
        found = sums.get(name, {"rules": Counter(), "sources": Counter(), "items": Counter()})
        one |= {"rows": sum(found["rules"].values()), "items_found": len(found["items"])}
        one |= {key: dict(sorted(found[key].items())) for key in ("rules", "sources")}
    return {"benchmarks": made}


@contextlib.contextmanager
def _judge(config: DecontaminateConfig, index: Index, todo: Sequence[str]) -> Iterator[Judge]:
    """What each row of a batch holds, by all rules of the config."""
    rules = Rules(config.min_share, config.min_similarity)
    with contextlib.ExitStack() as stack:
        near: Closest | None = None
        used = [item for item, is_used in zip(index.items, index.is_used, strict=True) if is_used]
        if config.paraphrases and todo and used:
            near = stack.enter_context(closest_to(used, config.paraphrases))

        def judge(rows: Sequence[dict[str, Any]]) -> list[Found | None]:
            found = search(index, rules, [text_of(row) for row in rows])
            if near is not None:
                rest = [i for i, one in enumerate(found) if one is None]
                for i, one in zip(rest, near([passages_of(rows[i]) for i in rest]), strict=True):
                    found[i] = one
            return found

        yield judge


def _clear(unit: Unit, docs: Artifact, judge: Judge) -> None:
    """One shard: rows that hold an item are rejects, the others are written unchanged."""
    kept: list[pa.RecordBatch] = []
    dropped: dict[str, dict[str, Counter[str]]] = {}
    for batch in read_batches(docs.file_url(unit.key)):
        verdicts = judge(_said(batch))
        kept.append(batch.filter(pa.array([verdict is None for verdict in verdicts], pa.bool_())))
        unit.count(rows_in=batch.num_rows, rows_out=kept[-1].num_rows)
        for number, found in enumerate(verdicts):
            if found is not None:
                (row,) = batch.slice(number, 1).to_pylist()
                unit.drop(f"{REASON}:{found.item.benchmark}", row | _evidence(found))
                by = dropped.setdefault(
                    found.item.benchmark, {"rules": Counter(), "sources": Counter(), "items": Counter()}
                )
                by["rules"][found.rule] += 1
                by["sources"][row["source"]] += 1
                by["items"][found.item.id] += 1
    if dropped:
        unit.write_parquet(unit.key, pa.Table.from_batches(kept))
    else:
        _copy(unit, docs)
    unit.note(dropped=dropped)


def _copy(unit: Unit, docs: Artifact) -> None:
    """A shard as it is: most hold no item, and to write one again costs more than to search it."""
    data = storage_for(docs.url).read(docs.file_url(unit.key))
    unit.write_bytes(unit.key, data, rows=docs.entry(unit.key).rows)


def _said(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows with the one column that is searched."""
    return batch.select(["text" if "text" in batch.schema.names else "messages"]).to_pylist()


def _evidence(found: Found) -> dict[str, Any]:
    return {
        "benchmark": found.item.benchmark,
        "item": found.item.id,
        "rule": found.rule,
        "similarity": round(found.similarity, 4),
        "evidence": found.evidence[:EVIDENCE_CHARS],
        "item_text": found.item.text[:EVIDENCE_CHARS],
    }


def _without_common(workspace: Workspace, index: Index, docs: Artifact, shards: Sequence[str], most: int) -> Index:
    """The index without what more than `most` rows hold; what that is stands in common_phrases.json."""
    counts = Counts(index)
    with track(f"decontaminate {workspace.name}: common phrases", len(shards), "shards") as bar:
        for path in shards:
            for batch in read_batches(docs.file_url(path)):
                counts.add([text_of(row) for row in _said(batch)])
            bar.advance()
    common = common_phrases(index, counts, most)
    if workspace.unit_record(COMMON) is None:
        with workspace.unit(COMMON) as unit:
            listed: dict[str, int] = {}
            for kind, units in common.windows.items():
                side = index.sides[kind]
                for window in units.tolist():
                    listed[side.units.text(window, side.widths.full)] = int(counts.windows[kind][window])
            for number in common.items.nonzero()[0].tolist():
                listed[index.items[number].text] = int(counts.items[number])
            unit.write_json(f"{COMMON}.json", listed)
    workspace.note(common_phrases=int(sum(map(len, common.windows.values())) + common.items.sum()))
    return index.without(common)


def _require_items(index: Index, config: DecontaminateConfig) -> None:
    if index.items and not index.is_used.any():
        raise ConfigError(
            f"none of {len(index.items)} items can be looked for: all are shorter than {config.min_words} words or "
            f"{config.min_chars} letters, or common phrases. Every row would be called clean without a look. Lower "
            "min_words or min_chars, raise max_documents, or give the items' context too."
        )


DECONTAMINATE = Stage(
    name="decontaminate",
    version="1",
    run=run,
    code=("tasks.decontaminate", "tasks.eval.benchmarks", "tasks.records", "tasks.shards"),
)
