"""The engine of per-document stages: steps over batches of rows, fused into one pass over a shard.

A step is a pure function of a batch: the batch with new or other columns, and for each row a reason to drop it or None.
Steps run one after the other on a batch of BATCH_ROWS rows while it is warm, and a dropped row costs the later ones
nothing. What comes out is written as it comes, so memory holds a batch and a row group, never a shard of documents.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.artifact import ConservationError, Unit
from tasks.shards import ShardWriter, read_batches

BATCH_ROWS = 128  # numpy kernels over texts are fastest on 8-128 of them: beyond, their arrays leave the cache
ROW = "row"  # column: the place of a row in its shard

Column = Sequence[Any] | np.ndarray
Reasons = Sequence[str | None]


@dataclass(frozen=True)
class Batch:
    """Some rows of a shard, by column. Columns are lists or arrays of one length."""

    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def with_columns(self, columns: Mapping[str, Column]) -> "Batch":
        """This batch with columns added or replaced."""
        return Batch({**self.columns, **columns})

    def without(self, name: str) -> "Batch":
        """This batch without one column."""
        return Batch({own: column for own, column in self.columns.items() if own != name})

    def take(self, rows: Sequence[int]) -> "Batch":
        """These rows, in this order."""
        if len(rows) == len(self) and list(rows) == list(range(len(self))):
            return self
        return Batch({name: _take(column, rows) for name, column in self.columns.items()})


Step = Callable[[Batch], tuple[Batch, Reasons]]
Parts = list[tuple[Batch, Reasons]]


@dataclass(frozen=True)
class Plan:
    """What is done to each batch of a shard, and what is written of it. Pure functions all."""

    steps: tuple[Step, ...]
    outputs: Mapping[str, pa.Schema]  # folder -> schema of its shards; the first one holds the kept rows
    tables: Callable[[Batch, Parts], Mapping[str, pa.Table]]  # (kept, dropped) of a batch -> folder -> rows to add
    reject: Callable[[Batch], Sequence[Mapping[str, Any]]]  # what rejects/ keeps of each dropped row


def run_batch(batch: Batch, steps: Sequence[Step]) -> tuple[Batch, Parts]:
    """The rows that no step drops, and those that one does, with reasons, step by step.

    Raises:
        ConservationError: a step lost, doubled or invented rows.
    """
    dropped: Parts = []
    for step in steps:
        if not len(batch):
            break
        after, reasons = step(batch)
        if len(reasons) != len(batch) or not np.array_equal(after[ROW], batch[ROW]):
            raise ConservationError(
                f"step {getattr(step, 'func', step)}: {len(batch)} rows in, {len(after)} rows and {len(reasons)} "
                "reasons out, or in another order: a step keeps rows where they are and says which to drop, because "
                "silent loss is the most expensive fault. Return each row where it was, with a reason or None."
            )
        batch = after
        if any(reasons):
            gone = [row for row, reason in enumerate(reasons) if reason]
            dropped.append((batch.take(gone), [reasons[row] for row in gone]))
            batch = batch.take([row for row, reason in enumerate(reasons) if not reason])
    return batch, dropped


def run_shard(unit: Unit, url: str, plan: Plan, name: str) -> None:
    """One shard of rows through the steps: a file NAME in each folder of the outputs, dropped rows in rejects/.

    Raises:
        ConservationError: rows are lost on the way.
    """
    with ExitStack() as stack:
        writers = {
            folder: stack.enter_context(ShardWriter(unit.open(f"{folder}/{name}"), schema))
            for folder, schema in plan.outputs.items()
        }
        main = next(iter(writers.values()))
        for batch in read_rows(url):
            kept, dropped = run_batch(batch, plan.steps)
            unit.count(rows_in=len(batch))
            written = main.rows
            for folder, table in plan.tables(kept, dropped).items():
                writers[folder].write(table)
            unit.count(rows_out=main.rows - written)  # what is in the file, so that the unit's own law is a check
            for reason, row in in_order(dropped, plan.reject):
                unit.drop(reason, row)
    for folder, writer in writers.items():
        unit.set_rows(f"{folder}/{name}", writer.rows)


def in_order(dropped: Parts, of: Callable[[Batch], Sequence[Any]]) -> list[tuple[str, Any]]:
    """(reason, what `of` makes of it) of each dropped row, in the order of the shard, whichever step dropped it."""
    rows = [
        (int(place), reason, made)
        for batch, reasons in dropped
        for place, reason, made in zip(batch[ROW], reasons, of(batch), strict=True)
    ]
    return [(str(reason), made) for _, reason, made in sorted(rows, key=lambda row: row[0])]


def read_rows(url: str) -> Iterator[Batch]:
    """The rows of a shard in batches, numbered in the column ROW."""
    first = 0
    for batch in read_batches(url, rows=BATCH_ROWS):
        columns = {name: column.to_pylist() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
        yield Batch({ROW: np.arange(first, first + batch.num_rows), **columns})
        first += batch.num_rows


def _take(column: Column, rows: Sequence[int]) -> Column:
    return column[np.asarray(rows, np.int64)] if isinstance(column, np.ndarray) else [column[row] for row in rows]
