"""The sources of a mixture, each with its endless order, and what must hold before the first record is read."""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from array_record.python.array_record_data_source import ArrayRecordDataSource

from tasks.errors import ConfigError, DataFault
from tasks.taught import Taught, unpack_taught
from tasks.tokens import TextTokenizer

CHECKED_RECORDS = 64  # of each source, on which another tokenizer engine must agree


@dataclass(frozen=True)
class Source:
    """One source of a mixture and its global order."""

    name: str
    weight: float
    records: int
    files: tuple[str, ...]
    seed: int
    taught: tuple[str, ...] = ()
    """For each file what a teacher said of its records, in their order; empty without a teacher."""
    phases: tuple[int, ...] = ()
    """Tokens it gives in each phase of a curriculum; empty without one, and then the weight counts."""

    @cached_property
    def _reader(self) -> ArrayRecordDataSource:
        return ArrayRecordDataSource(list(self.files))

    @cached_property
    def _taught_reader(self) -> ArrayRecordDataSource:
        return ArrayRecordDataSource(list(self.taught))

    def check(self) -> None:
        """Compare what is on disk with what the mixture says.

        Raises:
            DataFault: the number of records differs, or a file cannot be opened.
        """
        try:
            found = len(self._reader)  # pyright: ignore[reportArgumentType]
            taught = len(self._taught_reader) if self.taught else found  # pyright: ignore[reportArgumentType]
        except Exception as error:  # Riegeli says what is wrong in many types
            raise self._unreadable("its files", error) from error
        if taught != found:
            raise DataFault(
                f"source {self.name} has {found:,} records, the teacher spoke about {taught:,}: its words belong to "
                "other records. Make the teach artifact from this pack artifact."
            )
        if found != self.records:
            raise DataFault(
                f"source {self.name} has {found:,} records in {len(self.files)} files, mixture.json says "
                f"{self.records:,}: the order of the data is drawn from that number. Make the pack artifact again."
            )

    def place(self, index: int) -> tuple[int, int]:
        """(epoch, record) at an index of the global order."""
        epoch, at = divmod(index, self.records)
        return epoch, permuted(at, self.records, derived_seed(self.seed, self.name, epoch))

    def read(self, index: int) -> dict[str, Any]:
        """The record at an index of the global order.

        Raises:
            DataFault: its bytes are not those that were written; ArrayRecord keeps a hash of every chunk.
        """
        record = self.place(index)[1]
        try:
            return json.loads(self._reader[record])
        except Exception as error:
            raise self._unreadable(f"record {record:,}", error) from error

    def teach(self, index: int, ids: np.ndarray) -> Taught:
        """What the teacher said of the record at an index of the global order, whose tokens are these.

        Raises:
            DataFault: it cannot be read, or is about other tokens.
        """
        record = self.place(index)[1]
        try:
            said = self._taught_reader[record]
        except Exception as error:
            raise self._unreadable(f"the teacher's record {record:,}", error) from error
        return unpack_taught(said, ids, f"source {self.name}, record {record:,}")

    def _unreadable(self, what: str, error: Exception) -> DataFault:
        return DataFault(
            f"source {self.name}: {what} cannot be read ({type(error).__name__}: {str(error)[:300]}). A run reads what "
            f"was packed or nothing. Verify the files ({', '.join(self.files[:3])}{', …' * (len(self.files) > 3)}); "
            "the step that made the pack artifact mends what is damaged."
        )


def open_sources(pack: Path, mixture: Mapping[str, Any], seed: int, taught: Path | None = None) -> tuple[Source, ...]:
    """The sources of a pack artifact, checked, with what a teacher said of them (data/ of a teach artifact)."""

    def files(root: Path, source: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(root / file) for file in source["files"])

    phases = [phase["sources"] for phase in mixture.get("phases", ()) if phase["total_tokens"]]
    sources = tuple(
        Source(
            s["name"],
            s["weight"],
            s["records"],
            files(pack, s),
            seed,
            files(taught, s) if taught else (),
            tuple(phase[s["name"]]["budget_tokens"] for phase in phases),
        )
        for s in mixture["sources"]
    )
    for source in sources:
        source.check()
    return sources


def require_equal_ids(sources: Sequence[Source], tokenizer: TextTokenizer) -> None:
    """Compare the tokenizer's engine with `tokenizers` on the first documents of every source and on control tokens.

    Raises:
        ConfigError: a text has other ids; the first difference is shown.
    """
    if tokenizer.engine == "tokenizers":
        return
    truth = TextTokenizer(tokenizer.path)
    samples = [("a text that spells every control token", truth.spelt_control_tokens())]
    for source in sources:
        count = min(CHECKED_RECORDS, source.records)
        samples += [(f"source {source.name}, document {i} of its order", source.read(i)["text"]) for i in range(count)]
    for what, text in samples:
        want, got = truth.document(text).tolist(), tokenizer.document(text).tolist()
        if want != got:
            both = enumerate(zip(want, got, strict=False))
            at = next((i for i, (a, b) in both if a != b), min(len(want), len(got)))
            here = slice(at, at + 5)
            raise ConfigError(
                f"tokenizer_engine={tokenizer.engine!r} gives other ids than tokenizers for {what}: from token {at} on "
                f"{got[here]} and not {want[here]} ({truth.decode(want[here], skip_special=False)!r}). A model must be "
                "trained on the ids that everything after it will use. Use tokenizer_engine='tokenizers'."
            )


def permuted(index: int, size: int, seed: int) -> int:
    """Where `index` stands in a permutation of range(size) drawn by the seed; needs no memory, whatever the size.

    A Feistel network permutes the next power of four; what falls outside is permuted again until it is inside.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for number in range(6):
            digest = xxhash.xxh32_intdigest(struct.pack("<QQ", number, right), seed)
            left, right = right, left ^ (digest & mask)
        index = left << half | right
        if index < size:
            return index


def derived_seed(seed: int, *parts: object) -> int:
    """A 32-bit seed for one purpose, named by the parts."""
    return int.from_bytes(hashlib.sha256(repr((seed, *parts)).encode()).digest()[:4], "big")
