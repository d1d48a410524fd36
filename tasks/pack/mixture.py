"""Documents or conversations to ArrayRecord, measured in the tokens of the model that will read them.

First every shard is counted (`lengths/`), then the mixture decides how much of each source is needed, then the records
are written. The records stay text: the trainer tokenises them as it reads.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from tasks.artifact import Artifact, Stage, Workspace
from tasks.errors import ConfigError, DataFault
from tasks.pack.budget import Grant, grants
from tasks.pack.config import PackConfig, SourceShare
from tasks.pack.inputs import heldout_shards, rank, training_shards
from tasks.progress import track
from tasks.shards import read_batches
from tasks.tokens import TextTokenizer, tokenizer_prefix

log = logging.getLogger(__name__)

ARRAY_RECORD = "group_size:1,zstd:3"  # five to ten times faster random reads than groups, for 44 % more bytes
LENGTHS = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("rank", pa.uint64()),  # place in the order in which documents are taken for a part of a source
        pa.field("tokens", pa.int32()),
        pa.field("bytes", pa.int64()),
        pa.field("reason", pa.string()),  # why the row is dropped, or ""
    ]
)


@dataclass(frozen=True)
class Shard:
    """One input file of a source."""

    source: str
    url: str
    index: int

    @property
    def name(self) -> str:
        return f"{self.source}/{self.index:05d}"


def pack(workspace: Workspace, config: PackConfig, inputs: dict[str, Artifact]) -> None:
    """Write records, mixture.json and the held-out documents."""
    column = "text" if config.kind == "text" else "messages"
    own = inputs["tokenizer"]
    tokenizer = TextTokenizer(own.local_dir(tokenizer_prefix(entry.path for entry in own.files())))
    shards = {source.name: _shards(source, _input(inputs, source)) for source in config.sources}
    every = [shard for found in shards.values() for shard in found]
    with track(f"count {workspace.name}", len(every), unit="shards") as bar:
        for shard in every:
            _count(workspace, shard, column, tokenizer)
            bar.advance(1)
    by_source = {
        name: pa.concat_tables(_read_lengths(workspace, shard, ["rank", "tokens", "bytes"]) for shard in found)
        for name, found in shards.items()
    }
    held = [int(np.sum(by_source[source.name]["tokens"].to_numpy())) for source in config.sources]
    given = grants(config, held)
    keys = (_read_lengths(workspace, shard, ["id"])["id"] for shard in every)
    _require_disjoint(keys, _write_heldout(workspace, config, inputs))
    cuts = {
        source.name: cut(by_source[source.name], grant) for source, grant in zip(config.sources, given, strict=True)
    }
    with track(f"write {workspace.name}", len(every), unit="shards") as bar:
        for shard in every:
            _write_records(workspace, shard, column, cuts[shard.source])
            bar.advance(1)
    _write_mixture(workspace, config, inputs, by_source, given, cuts)


def cut(lengths: pa.Table, grant: Grant) -> int | None:
    """The rank up to which documents are kept, so that their tokens just fill the grant; None keeps all."""
    if grant.tokens >= grant.held:
        return None
    ranks, tokens = lengths["rank"].to_numpy(), lengths["tokens"].to_numpy()
    order = np.argsort(ranks, kind="stable")
    enough = int(np.searchsorted(np.cumsum(tokens[order], dtype=np.int64), grant.tokens))
    return int(ranks[order[enough]])


def record_bytes(key: str, column: str, value: str) -> bytes:
    """A training record: JSON {"id", "text"} or {"id", "messages"}."""
    content = value if column == "text" else json.loads(value)
    return json.dumps({"id": key, column: content}, ensure_ascii=False, separators=(",", ":")).encode()


def _input(inputs: dict[str, Artifact], source: SourceShare) -> Artifact:
    role = f"documents.{source.input}"
    if role not in inputs:
        raise ConfigError(
            f"source {source.name}: input={source.input}, but the inputs are {', '.join(sorted(inputs))}. "
            "Each source reads one of `documents`, counted from 0. Add the reference or correct the number."
        )
    return inputs[role]


def _shards(source: SourceShare, artifact: Artifact) -> list[Shard]:
    return [Shard(source.name, artifact.file_url(path), index) for index, path in enumerate(training_shards(artifact))]


def _count(workspace: Workspace, shard: Shard, column: str, tokenizer: TextTokenizer) -> None:
    if workspace.unit_record(f"lengths/{shard.name}") is not None:
        return
    measure = _text_tokens if column == "text" else _chat_tokens
    rows: list[dict[str, Any]] = []
    for batch in read_batches(shard.url, ["id", column]):
        texts: list[str] = batch[column].to_pylist()
        for key, text, (tokens, reason) in zip(batch["id"].to_pylist(), texts, measure(texts, tokenizer), strict=True):
            size = len(text.encode())
            rows.append({"id": key, "rank": rank(key), "tokens": tokens, "bytes": size, "reason": reason})
    with workspace.unit(f"lengths/{shard.name}") as unit:
        unit.write_parquet(f"lengths/{shard.name}.parquet", pa.Table.from_pylist(rows, schema=LENGTHS))


def _text_tokens(texts: list[str], tokenizer: TextTokenizer) -> list[tuple[int, str]]:
    counted = tokenizer.encode_batch(texts)
    return [(len(ids) + 2, "") if text.strip() else (0, "empty") for text, ids in zip(texts, counted, strict=True)]


def _chat_tokens(texts: list[str], tokenizer: TextTokenizer) -> list[tuple[int, str]]:
    return [_one_chat_tokens(text, tokenizer) for text in texts]


def _one_chat_tokens(text: str, tokenizer: TextTokenizer) -> tuple[int, str]:
    try:
        ids, turns = tokenizer.chat(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0, "bad_messages"
    return (len(ids), "") if any(turns) else (0, "no_answer")


def _read_lengths(workspace: Workspace, shard: Shard, columns: Sequence[str]) -> pa.Table:
    """What was counted of a shard. Of all documents at once only numbers are held, 20 bytes each."""
    schema = pa.schema([LENGTHS.field(name) for name in columns])
    return pa.Table.from_batches(read_batches(f"{workspace.url}/data/lengths/{shard.name}.parquet", columns), schema)


def _kept(lengths: pa.Table, last: int | None) -> np.ndarray:
    sound = np.asarray(lengths["tokens"].to_numpy() > 0)
    return sound if last is None else sound & (lengths["rank"].to_numpy() <= np.uint64(last))


def _write_records(workspace: Workspace, shard: Shard, column: str, last: int | None) -> None:
    if workspace.unit_record(f"records/{shard.name}") is not None:
        return
    lengths = _read_lengths(workspace, shard, LENGTHS.names)
    keeps = _kept(lengths, last).tolist()
    with workspace.unit(f"records/{shard.name}") as unit, contextlib.ExitStack() as stack:
        write: Callable[[bytes], Any] = len
        if any(keeps):
            path = unit.local_file(f"records/{shard.name}.arrayrecord", rows=sum(keeps))
            writer = array_record_module.ArrayRecordWriter(str(path), ARRAY_RECORD)
            stack.callback(writer.close)
            write = writer.write
        rows = (row for batch in read_batches(shard.url, ["id", column]) for row in batch.to_pylist())
        for row, keep, length in zip(rows, keeps, lengths.to_pylist(), strict=True):
            if keep:
                write(record_bytes(row["id"], column, row[column]))
            elif length["reason"]:
                unit.drop(length["reason"], row)
            else:
                unit.drop("over_budget", {"id": row["id"], "tokens": length["tokens"]})
        unit.count(rows_in=len(keeps), rows_out=sum(keeps))


def _write_heldout(workspace: Workspace, config: PackConfig, inputs: dict[str, Artifact]) -> set[str]:
    """Carry the held-out documents along, one file a language, and return their ids."""
    urls: dict[str, list[str]] = {}
    for source in config.sources:
        artifact = _input(inputs, source)
        found = urls.setdefault(source.language, [])
        found += [url for path in heldout_shards(artifact) if (url := artifact.file_url(path)) not in found]
    keys: set[str] = set()
    for language, found in sorted(urls.items()):
        batches = [batch for url in found for batch in read_batches(url)]
        if not batches:
            continue
        table = pa.Table.from_batches(batches)
        keys |= set(table["id"].to_pylist())
        if workspace.unit_record(f"heldout/{language}") is None:
            with workspace.unit(f"heldout/{language}") as unit:
                unit.write_parquet(f"heldout/{language}.parquet", table)
    return keys


def _require_disjoint(keys: Iterable[pa.ChunkedArray], heldout: set[str]) -> None:
    both = sorted({key for of_shard in keys for key in heldout.intersection(of_shard.to_pylist())})
    if both:
        raise DataFault(
            f"{len(both)} documents are both for training and held out, for example {both[:3]}: a score on text that "
            "was trained on says nothing. Make the inputs again with the dedup stage, which splits by document hash."
        )


def _write_mixture(
    workspace: Workspace,
    config: PackConfig,
    inputs: dict[str, Artifact],
    by_source: Mapping[str, pa.Table],
    given: list[Grant],
    cuts: Mapping[str, int | None],
) -> None:
    total = sum(grant.tokens for grant in given)
    paths = sorted(entry.path for unit in workspace.units() for entry in unit.outputs)
    sources: list[dict[str, Any]] = []
    for source, grant in zip(config.sources, given, strict=True):
        lengths = by_source[source.name]
        kept = _kept(lengths, cuts[source.name])
        tokens = int(np.sum(lengths["tokens"].to_numpy(), where=kept))
        sources.append(
            {
                "name": source.name,
                "language": source.language,
                "weight": grant.tokens / total,
                "budget_tokens": grant.tokens,
                "wanted_tokens": grant.wanted,
                "files": [path for path in paths if path.startswith(f"records/{source.name}/")],
                "records": int(np.sum(kept)),
                "tokens": tokens,
                "bytes": int(np.sum(lengths["bytes"].to_numpy(), where=kept)),
                "epochs": grant.tokens / tokens,
            }
        )
    facts = {
        "kind": config.kind,
        "sources": sources,
        "total_tokens": total,
        "missing_tokens": sum(grant.wanted for grant in given) - total,
        "tokenizer_digest": inputs["tokenizer"].manifest.content_digest,
    }
    if config.phases:
        facts["phases"] = [_phase(config, number, given) for number in range(len(config.phases))]
    if facts["missing_tokens"]:
        log.warning(
            "%s: %s of %s tokens are missing", workspace.name, facts["missing_tokens"], sum(g.wanted for g in given)
        )
    if workspace.unit_record("mixture") is None:
        with workspace.unit("mixture") as unit:
            unit.write_json("mixture.json", facts)
    workspace.note(tokens=sum(source["tokens"] for source in sources), missing_tokens=facts["missing_tokens"])


def _phase(config: PackConfig, number: int, given: list[Grant]) -> dict[str, Any]:
    """What mixture.json says of one phase; a source that is not in it has 0 tokens."""
    parts = {source.name: grant.phases[number] for source, grant in zip(config.sources, given, strict=True)}
    total = sum(part.tokens for part in parts.values())
    return {
        "name": config.phases[number].name,
        "total_tokens": total,
        "missing_tokens": sum(part.wanted for part in parts.values()) - total,
        "sources": {name: {"budget_tokens": part.tokens, "wanted_tokens": part.wanted} for name, part in parts.items()},
    }


PACK = Stage(
    name="pack",
    version="1",
    run=pack,
    code=(
        "tasks.pack.mixture",
        "tasks.pack.budget",
        "tasks.pack.inputs",
        "tasks.tokens",
        "tasks.turns",
        "tasks.shards",
    ),
)
