"""What other thresholds would keep: every judged page of the sidecar counted again, without measuring one of them.

The numbers of a shard of `annotations/` are read once and stay in memory up to CACHE_BYTES for the whole artifact (with
20 limits, three million pages); beyond that, shards are read again for each question. Besides that there is one sample
of SAMPLE_ROWS pages, for the histograms. Counts are of every page, unless the time is over: then of the shards counted.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from tasks.artifact.ledger import read_ledger
from tasks.browse.shelf import Place, Shelf
from tasks.errors import ConfigError
from tasks.ingest.filters import FILTERS
from tasks.ingest.filters.rule import Limit
from tasks.ingest.filters.verdicts import first_broken, limits_of

FOLDER = "annotations/"
CACHE_BYTES = 512 << 20
SAMPLE_ROWS = 20_000
SAMPLES = 8  # changed rows that are shown, of each direction
SECONDS = 20.0  # of one answer
OTHER = 1 << 15  # the row was dropped for a reason that is no limit


@dataclass(frozen=True)
class Part:
    """One shard of the sidecar: the numbers that limits are about, and the verdict that was recorded."""

    columns: Mapping[str, np.ndarray]
    sources: tuple[str, ...]
    source: np.ndarray  # of each row, a place in `sources`
    is_kept: np.ndarray
    is_other: np.ndarray  # dropped for a reason that no limit has

    @property
    def nbytes(self) -> int:
        arrays = [*self.columns.values(), self.source, self.is_kept, self.is_other]
        return sum(array.nbytes for array in arrays)


@dataclass
class SourceChange:
    """How many pages of a source are kept, now and then."""

    judged: int = 0
    kept: int = 0
    gained: int = 0
    lost: int = 0

    @property
    def then(self) -> int:
        return self.kept + self.gained - self.lost


@dataclass(frozen=True)
class Changed:
    """A page whose verdict changes."""

    place: Place  # in the sidecar
    reason: str  # why it was dropped (gained) or would be (lost)


@dataclass(frozen=True)
class WhatIf:
    """What a set of thresholds would do."""

    total: SourceChange
    sources: dict[str, SourceChange]  # most changed first
    reasons: dict[str, tuple[int, int]]  # pages dropped for it, now and then
    unmeasured: int  # of the gained: a filter that had not seen them may still drop them
    unlike: int  # the recorded verdict is not what the recorded thresholds give
    gained: tuple[Changed, ...]
    lost: tuple[Changed, ...]
    shards: int  # that were counted
    of_shards: int


class Sidecar:
    """The annotations of an artifact and the limits that its filters set."""

    def __init__(self, shelf: Shelf, cache_bytes: int = CACHE_BYTES):
        self.shelf = shelf
        self.paths = tuple(e.path for e in shelf.artifact.files(FOLDER) if e.path.endswith(".parquet"))
        self._cache: OrderedDict[int, Part] = OrderedDict()
        self._left = cache_bytes
        self._lock = threading.Lock()

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """The limits in the order in which they count, those whose column the sidecar has."""
        declared = self.shelf.artifact.manifest.config.get("filters")
        if not isinstance(declared, Mapping) or not self.paths:
            return ()
        applied = {
            name: FILTERS[name].rules.model_validate(rules)
            for name, rules in declared.items()
            if name in FILTERS and rules is not None
        }
        with self.shelf.open(self.paths[0]) as file:
            names = set(file.schema_arrow.names)
        return tuple(limit for limit in limits_of(applied) if limit.column in names)

    @cached_property
    def sample(self) -> dict[str, np.ndarray]:
        """The numbers of at most SAMPLE_ROWS pages, drawn fairly and always the same; for pictures only."""
        names = list(dict.fromkeys(limit.column for limit in self.limits))
        best = np.empty(0, np.uint64)
        rows = {name: np.empty(0) for name in names}
        ends = time.monotonic() + SECONDS
        for number in range(len(self.paths)):
            part = self.part(number)
            drawn = np.concatenate([best, _priorities(number, len(part.source))])
            keep = np.argsort(drawn, kind="stable")[:SAMPLE_ROWS]
            best = drawn[keep]
            rows = {name: np.concatenate([rows[name], part.columns[name]])[keep] for name in names}
            if time.monotonic() > ends:
                break
        return rows

    def what_if(self, thresholds: Sequence[float], *, seconds: float = SECONDS) -> WhatIf:
        """Count all pages again with one threshold for each limit, in their order.

        Raises:
            ConfigError: there are more or fewer thresholds than limits.
        """
        if len(thresholds) != len(self.limits):
            raise ConfigError(
                f"{len(thresholds)} thresholds for {len(self.limits)} limits: each has one. Start from the page again."
            )
        moved = [replace(limit, threshold=value) for limit, value in zip(self.limits, thresholds, strict=True)]
        ends = time.monotonic() + seconds
        count = _Count(self.limits)
        shards = 0
        for number, path in enumerate(self.paths):
            count.add(number, path, self.part(number), moved)
            shards += 1
            if time.monotonic() > ends:
                break
        return count.result(shards, len(self.paths))

    def part(self, number: int) -> Part:
        """The numbers of one shard."""
        with self._lock:
            if number in self._cache:
                return self._cache[number]
        part = self._read(self.paths[number])
        with self._lock:
            # What is there stays: shards are asked for in turn, and "least recently used" would throw out all of them.
            if number not in self._cache and part.nbytes <= self._left:
                self._cache[number] = part
                self._left -= part.nbytes
        return part

    def text_place(self, path: str) -> tuple[str, tuple[str, ...]]:
        """The shard of documents, and the files of rejects, of the pages in a shard of the sidecar."""
        return self._units.get(path, ("", ()))

    def annotation_of(self, documents: str, key: str) -> dict[str, float | None]:
        """All that was measured and counted of a document in a shard of documents; empty without a sidecar."""
        path = next((path for path, (own, _) in self._units.items() if own == documents), "")
        if not path:
            return {}
        with self.shelf.open(path) as file:
            names = [field.name for field in file.schema_arrow if not pa.types.is_string(field.type)]
        for _, batch in self.shelf.batches(path, ["id", *names]):
            keys = batch["id"].to_pylist()
            if key in keys:
                return {name: batch[name][keys.index(key)].as_py() for name in names}
        return {}

    @cached_property
    def _units(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        found: dict[str, tuple[str, tuple[str, ...]]] = {}
        for record in read_ledger(self.shelf.artifact.url):
            outputs = [entry.path for entry in record.outputs]
            documents = next((path for path in outputs if path in self.shelf.shards), "")
            for path in outputs:
                if path.startswith(FOLDER):
                    found[path] = documents, tuple(entry.path for entry in record.rejects)
        return found

    def _read(self, path: str) -> Part:
        names = list(dict.fromkeys(limit.column for limit in self.limits))
        with self.shelf.open(path) as file:
            table = file.read([*names, "source", "reason"])
        source = table["source"].combine_chunks().dictionary_encode()
        known = {limit.reason for limit in self.limits}
        reason = table["reason"].combine_chunks().dictionary_encode()
        is_known = np.array([value in known for value in reason.dictionary.to_pylist()], bool)
        codes = reason.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        is_kept = codes < 0
        return Part(
            columns={name: _numbers(table[name]) for name in names},
            sources=tuple(source.dictionary.to_pylist()),
            source=source.indices.to_numpy(zero_copy_only=False).astype(np.int32),
            is_kept=is_kept,
            is_other=~is_kept & ~np.append(is_known, True)[codes],
        )


class _Count:
    """The sums over shards."""

    def __init__(self, limits: Sequence[Limit]):
        self.limits = limits
        self.names = ["", *dict.fromkeys(limit.reason for limit in limits)]
        self.sources: dict[str, SourceChange] = {}
        self.reasons = Counter[str](), Counter[str]()
        self.unmeasured = self.unlike = 0
        self.changed: tuple[list[tuple[int, Changed]], ...] = [], []

    def add(self, number: int, path: str, part: Part, moved: Sequence[Limit]) -> None:
        before, after = first_broken(part.columns, self.limits), first_broken(part.columns, moved)
        before[part.is_other] = after[part.is_other] = OTHER
        gained, lost = (before > 0) & (after == 0), (before == 0) & (after > 0)
        self.unlike += int(np.sum((before == 0) != part.is_kept))
        self.unmeasured += int(np.sum(gained & self._unseen(part)))
        for counter, verdicts in zip(self.reasons, (before, after), strict=True):
            for place, rows in enumerate(np.bincount(verdicts[verdicts < OTHER], minlength=len(self.limits) + 1)):
                if place and rows:
                    counter[self.limits[place - 1].reason] += int(rows)
        for code, name in enumerate(part.sources):
            here = part.source == code
            change = self.sources.setdefault(name, SourceChange())
            change.judged += int(np.sum(here))
            change.kept += int(np.sum(here & (before == 0)))
            change.gained += int(np.sum(here & gained))
            change.lost += int(np.sum(here & lost))
        order = _priorities(number, len(before))
        for best, rows, verdicts in zip(self.changed, (gained, lost), (before, after), strict=True):
            places = np.flatnonzero(rows)
            for row in places[np.argsort(order[places])][:SAMPLES].tolist():
                best.append((int(order[row]), Changed(Place(path, row), self.limits[int(verdicts[row]) - 1].reason)))
            best.sort()
            del best[SAMPLES:]

    def _unseen(self, part: Part) -> np.ndarray:
        """Rows of which a filter that only sees survivors has measured nothing."""
        unseen = np.zeros(len(part.source), bool)
        for name in dict.fromkeys(limit.column.partition(".")[0] for limit in self.limits):
            if FILTERS[name].expensive:
                own = [limit.column for limit in self.limits if limit.column.startswith(f"{name}.")]
                unseen |= np.all([np.isnan(part.columns[column]) for column in own], axis=0)
        return unseen

    def result(self, shards: int, of_shards: int) -> WhatIf:
        total = SourceChange()
        for change in self.sources.values():
            for field in ("judged", "kept", "gained", "lost"):
                setattr(total, field, getattr(total, field) + getattr(change, field))
        order = sorted(self.sources.items(), key=lambda item: (-(item[1].gained + item[1].lost), item[0]))
        now, then = self.reasons
        return WhatIf(
            total=total,
            sources=dict(order),
            reasons={name: (now[name], then[name]) for name in self.names[1:]},
            unmeasured=self.unmeasured,
            unlike=self.unlike,
            gained=tuple(changed for _, changed in self.changed[0]),
            lost=tuple(changed for _, changed in self.changed[1]),
            shards=shards,
            of_shards=of_shards,
        )


def _priorities(shard: int, rows: int) -> np.ndarray:
    """A random-looking number for each row of a shard, always the same (splitmix64)."""
    with np.errstate(over="ignore"):
        x = np.arange(rows, dtype=np.uint64) + np.uint64(shard) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        return x ^ (x >> np.uint64(31))


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """float64; a null, and NaN, is a number that the row does not have."""
    return column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
