"""The engine: whatever the steps drop, each row is kept or dropped once, in order, and all of it is written."""

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifact import Artifact, ConservationError, Stage, Workspace, produce
from tasks.config import StageConfig
from tasks.ingest.engine import BATCH_ROWS, ROW, Batch, Parts, Plan, Reasons, in_order, run_batch, run_shard
from tasks.shards import read_table

ROWS = pa.schema([("text", pa.string())])
VERDICTS = pa.schema([("text", pa.string()), ("reason", pa.string())])


def batch_of(texts: Sequence[str]) -> Batch:
    return Batch({ROW: np.arange(len(texts)), "text": list(texts)})


def without_letter(batch: Batch, letter: str) -> tuple[Batch, Reasons]:
    """Appends the letter to each text, and drops those that had it."""
    texts = batch["text"]
    return batch.with_columns({"text": [text + letter for text in texts]}), [
        letter if letter in t else None for t in texts
    ]


def tables(kept: Batch, dropped: Parts) -> dict[str, pa.Table]:
    parts = [(kept, [None] * len(kept))] * bool(len(kept)) + dropped
    rows = sorted(
        (int(place), text, reason)
        for part, reasons in parts
        for place, text, reason in zip(part[ROW], part["text"], reasons, strict=True)
    )
    return {
        "rows": pa.table({"text": pa.array(kept["text"] if len(kept) else [], pa.string())}),
        "verdicts": pa.table([[row[1] for row in rows], [row[2] for row in rows]], schema=VERDICTS),
    }


def plan(letters: str) -> Plan:
    return Plan(
        steps=tuple(functools.partial(without_letter, letter=letter) for letter in letters),
        outputs={"rows": ROWS, "verdicts": VERDICTS},
        tables=tables,
        reject=lambda batch: [{"text": text} for text in batch["text"]],
    )


def one_by_one(text: str, letters: str) -> tuple[str, str | None]:
    """The oracle: one text through all steps."""
    for letter in letters:
        had = letter in text
        text += letter
        if had:
            return text, letter
    return text, None


@settings(max_examples=60)
@given(st.lists(st.text("abcdé漢\U0001f600", max_size=4), max_size=20), st.text("abcd", max_size=4))
def test_each_row_meets_the_fate_it_has_alone_and_the_order_stays(texts, letters):
    kept, dropped = run_batch(batch_of(texts), plan(letters).steps)
    alone = [one_by_one(text, letters) for text in texts]
    assert (kept["text"] if len(kept) else []) == [text for text, reason in alone if reason is None]
    assert in_order(dropped, lambda part: part["text"]) == [(r, text) for text, r in alone if r is not None]
    assert len(kept) + sum(len(part) for part, _ in dropped) == len(texts)


def one_fewer(batch: Batch) -> tuple[Batch, Reasons]:
    return batch.take(range(1, len(batch))), [None] * (len(batch) - 1)


def one_reason_fewer(batch: Batch) -> tuple[Batch, Reasons]:
    return batch, [None] * (len(batch) - 1)


def turned_round(batch: Batch) -> tuple[Batch, Reasons]:
    return batch.take(range(len(batch) - 1, -1, -1)), [None] * len(batch)


@pytest.mark.parametrize("step", [one_fewer, one_reason_fewer, turned_round])
def test_a_step_that_loses_or_moves_rows_is_stopped(step):
    with pytest.raises(ConservationError, match=r"3 rows in, [23] rows and [23] reasons out"):
        run_batch(batch_of(["a", "b", "c"]), [step])


class EngineConfig(StageConfig):
    """Knobs of a tiny stage on the engine."""

    texts: tuple[str, ...]
    letters: str
    forget: bool = False


def work(workspace: Workspace, config: EngineConfig, inputs: dict[str, Artifact]) -> None:
    """Writes its texts as a shard, then runs the steps over it."""
    del inputs
    with workspace.unit("source") as unit:
        unit.write_parquet("source/0.parquet", pa.table({"text": list(config.texts)}))
        unit.count(0, 0)
    own = plan(config.letters)
    if config.forget:
        own = Plan(own.steps, own.outputs, lambda kept, dropped: {"rows": ROWS.empty_table()}, own.reject)
    with workspace.unit("shard") as unit:
        run_shard(unit, f"{workspace.url}/data/source/0.parquet", own, "0.parquet")


ENGINE = Stage("engine", "1", work, ("tests.tasks.ingest.test_engine",))


def test_a_shard_of_several_batches_is_written_whole_and_counted(tmp_path):
    texts = tuple("abc"[i % 3] * (i % 5) for i in range(2 * BATCH_ROWS + 1))
    made = produce(str(tmp_path), ENGINE, "x", EngineConfig(texts=texts, letters="ba"), {})
    alone = [one_by_one(text, "ba") for text in texts]
    assert read_table(made, "rows/").column("text").to_pylist() == [text for text, reason in alone if not reason]
    assert read_table(made, "verdicts/").to_pylist() == [{"text": text, "reason": reason} for text, reason in alone]
    assert made.manifest.counts.in_ == len(texts)
    assert made.manifest.counts.dropped == {letter: sum(r == letter for _, r in alone) for letter in "ab"}
    assert {entry.path: entry.rows for entry in made.files("verdicts/")} == {"verdicts/0.parquet": len(texts)}


def test_kept_rows_that_are_not_written_stop_the_run(tmp_path):
    config = EngineConfig(texts=("c", "c", "a"), letters="a", forget=True)
    with pytest.raises(ConservationError, match=r"3 rows in, 0 out, 1 dropped \(a 1\); \+2 unaccounted for"):
        produce(str(tmp_path), ENGINE, "x", config, {})
