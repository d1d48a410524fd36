"""A corpus of a few documents, and what the stage makes of it."""

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from tasks.artifact import Artifact, Stage, produce
from tasks.config import StageConfig
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.dedup.stage import DEDUP
from tasks.records import DOCUMENT, table
from tasks.shards import read_documents

CONFIG = DedupConfig(
    bands=20, rows=5, min_jaccard=0.8, heldout_fraction=0.1, max_source_loss=1.0, recall_pairs=0, workers=1
)
NO_HELDOUT = CONFIG.with_changes({"heldout_fraction": 0.0})


def document(number: int, text: str, source: str = "docs", crawl_time: str = "") -> dict[str, str]:
    fixed = {"url": f"u{number}", "language": "ja", "licence": "MIT", "crawl_time": crawl_time, "meta": "{}"}
    return {"id": f"{number:016d}", "text": text, "source": source} | fixed


def prose(seed: int, size: int = 300) -> str:
    rng = random.Random(seed)
    return "".join(chr(0x4E00 + rng.randrange(3000)) for _ in range(size))


def edited(text: str, seed: int, edits: int) -> str:
    rng = random.Random(seed)
    letters = list(text)
    for position in rng.sample(range(len(letters)), edits):
        letters[position] = chr(0x3041 + rng.randrange(80))
    return "".join(letters)


def documents(store: Path, rows: Sequence[dict[str, str]], shards: int = 1) -> Artifact:
    """A finished artifact of clean documents, made by a stage that only writes."""

    def run(workspace: Any, config: Any, inputs: Any) -> None:
        for number in range(shards):
            with workspace.unit(str(number)) as unit:
                part = rows[number::shards]
                unit.count(rows_in=len(part), rows_out=len(part))
                unit.write_parquet(f"docs/{number:05d}.parquet", table(part, DOCUMENT))

    return produce(str(store), Stage("docs", "1", run, ("tasks.records",)), "x", StageConfig(), {})


def dedup(
    store: Path,
    rows: Sequence[dict[str, str]],
    config: DedupConfig = CONFIG,
    shards: int = 1,
    against: Sequence[Artifact] = (),
) -> Artifact:
    """The artifact of the stage."""
    inputs = {"docs": documents(store, rows, shards)} | {f"against.{i}": old for i, old in enumerate(against)}
    return produce(str(store), DEDUP, "x", config, inputs)


def ids(artifact: Artifact, part: str) -> list[str]:
    return [name for batch in read_documents(artifact, part, ["id"]) for name in batch.column("id").to_pylist()]


def rejects(artifact: Artifact) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(Path(artifact.url, "rejects").glob("*.zst")):
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as reader:
            found += [json.loads(line) for line in io.TextIOWrapper(reader, encoding="utf-8")]
    return found


def outcomes(artifact: Artifact) -> dict[str, str]:
    """id -> 'train', 'heldout' or the reason of the drop."""
    found = {row["id"]: row["reason"] for row in rejects(artifact)}
    found |= dict.fromkeys(ids(artifact, "train/"), "train") | dict.fromkeys(ids(artifact, "heldout/"), "heldout")
    return dict(sorted(found.items()))
