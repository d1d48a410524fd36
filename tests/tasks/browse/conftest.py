"""A clean artifact as the contract of the sidecar says it, judged by the real filters, with hostile words in it."""

import hashlib
import json
import random
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from tasks.artifact import Artifact, Stage, produce
from tasks.config import StageConfig
from tasks.ingest.filters import FILTERS
from tasks.ingest.filters.verdicts import columns_of, judge
from tasks.ingest.texts import Texts
from tasks.records import DOCUMENT, table
from tests.tasks.training_data import document

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u202e"
FILTER_RULES = {"length": {"min_chars": 200}, "sentences": {}, "character_ngrams": {}}
RANDOM = random.Random(5)
WORDS = "これは,日本語,の,文章,で,ある,言葉,が,ならび,、,意味,を,なす,東京,へ,行き,ました,天気,は,とても,良い,です"
WORDS = WORDS.split(",")


def words(count: int) -> str:
    ends = RANDOM.randint(4, 40)
    return "".join(RANDOM.choice(WORDS) + ("。" if i % ends == ends - 1 else "") for i in range(count)) + "。"


def page(number: int) -> dict[str, str]:
    text = words(RANDOM.randint(20, 260))
    if number % 9 == 0:
        text += ("くり返し" * RANDOM.randint(1, 60)) + "。"
    if number % 7 == 0:
        text += f"\n{SCRIPT}"
    return document(text, "ja", ("alpha", "beta")[number % 3 == 0]) | {"url": f"https://example.org/{number}"}


PAGES = [page(number) for number in range(150)]
SHARDS = [PAGES[:60], PAGES[60:61], PAGES[61:150]]


class CleanLike(StageConfig):
    """What browse reads of a clean artifact's config."""

    filters: dict
    digest: str = hashlib.sha256(json.dumps(PAGES).encode()).hexdigest()


@dataclass(frozen=True)
class Made:
    artifact: Artifact
    filters: dict[str, StageConfig]


def write_shard(workspace, path, pages, applied):
    verdicts = judge(Texts([row["text"] for row in pages]), applied)
    kept = [row for row, reason in zip(pages, verdicts.reasons, strict=True) if reason is None]
    facts = {name: [row[name] for row in pages] for name in ("id", "url", "source")}
    numbers = {name: verdicts.columns[name].astype(np.float64) for name in columns_of(applied)}
    with workspace.unit(f"pages/{path}") as unit:
        unit.write_parquet(f"docs/{path}", table(kept, DOCUMENT))
        reasons = pa.array(verdicts.reasons, pa.string())
        unit.write_parquet(
            f"annotations/{path}",
            pa.table({**facts, "reason": reasons, **numbers, "edits.cut": pa.nulls(len(pages), pa.int64())}),
        )
        for row, reason in zip(pages, verdicts.reasons, strict=True):
            if reason:
                unit.drop(reason, {name: row[name] for name in ("id", "url", "source", "text")})
        unit.count(rows_in=len(pages), rows_out=len(kept))


def make_clean(store, rules=FILTER_RULES, shards=SHARDS) -> Made:
    applied = {name: FILTERS[name].rules.model_validate(said) for name, said in rules.items()}

    def run(workspace, config, inputs):
        for number, pages in enumerate(shards):
            write_shard(workspace, f"{number:05d}.parquet", pages, applied)

    config = CleanLike(filters={name: said.model_dump() for name, said in applied.items()})
    return Made(produce(str(store), Stage("clean", "1", run, ("tasks.records",)), "toy-ja", config, {}), applied)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    return make_clean(tmp_path_factory.mktemp("clean"))
