"""From ArrayRecord to batches: mixing, shuffling, tokenising and packing, with a position that is a few numbers.

Every source has one endless global order: epoch after epoch, each a permutation drawn from (seed, source, epoch). The
data is packed in a fixed number of streams. Stream v of V takes the documents v, v + V, v + 2V, … of each order, always
from the source that lags most behind its share of the stream's tokens, so shares hold to within a document. A stream
depends on nothing but the config, and its position is how many documents it took and how far it is in the last one. So
a resume gives the very next rows, and hosts may share the streams in any way.
"""

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
from grain import DatasetIterator, IterDataset
from grain.experimental import ThreadPrefetchIterDataset
from grain.sources import ArrayRecordDataSource

from tasks.errors import ConfigError, DataFault
from tasks.tokens import TextTokenizer
from tasks.train.packing import Piece, Row, best_fit, chat_row, text_row

WINDOW = 256  # conversations that are packed together
State = dict[str, Any]


@dataclass(frozen=True)
class FeedConfig:
    """What decides the batches, and nothing else."""

    kind: str
    seq_len: int
    rows: int
    streams: int
    seed: int
    loss_turns: str = "all"


@dataclass(frozen=True)
class Source:
    """One source of a mixture and its global order."""

    name: str
    weight: float
    records: int
    files: tuple[str, ...]
    seed: int

    @cached_property
    def _reader(self) -> ArrayRecordDataSource:
        return ArrayRecordDataSource(list(self.files))

    def check(self) -> None:
        """Compare what is on disk with what the mixture says.

        Raises:
            DataFault: the number of records differs.
        """
        found = len(self._reader)  # pyright: ignore[reportArgumentType]
        if found != self.records:
            raise DataFault(
                f"source {self.name} has {found:,} records in {len(self.files)} files, mixture.json says "
                f"{self.records:,}: the order of the data is drawn from that number. Make the pack artifact again."
            )

    def place(self, index: int) -> tuple[int, int]:
        """(epoch, record) at an index of the global order."""
        epoch, at = divmod(index, self.records)
        return epoch, permuted(at, self.records, _seed(self.seed, self.name, epoch))

    def read(self, index: int) -> dict[str, Any]:
        """The record at an index of the global order."""
        return json.loads(self._reader[self.place(index)[1]])


def open_sources(pack: Path, mixture: Mapping[str, Any], seed: int) -> tuple[Source, ...]:
    """The sources of a pack artifact, checked."""
    sources = tuple(
        Source(s["name"], s["weight"], s["records"], tuple(str(pack / file) for file in s["files"]), seed)
        for s in mixture["sources"]
    )
    for source in sources:
        source.check()
    return sources


class _Draw:
    """Which document comes next in a stream: the shares are kept in tokens, document by document."""

    def __init__(self, sources: Sequence[Source], stream: int, streams: int):
        self._sources, self._stream, self._streams = sources, stream, streams
        self.draws = [0] * len(sources)
        self.tokens = [0] * len(sources)

    def next_source(self) -> int:
        total = sum(self.tokens)
        lag = [source.weight * (total + 1) - tokens for source, tokens in zip(self._sources, self.tokens, strict=True)]
        return lag.index(max(lag))

    def index(self, draw: int) -> int:
        """Place in a source's global order of the stream's draw-th document."""
        return self._stream + draw * self._streams

    def take(self, number: int) -> dict[str, Any]:
        record = self._sources[number].read(self.index(self.draws[number]))
        self.draws[number] += 1
        return record

    def get_state(self) -> State:
        return {"draws": list(self.draws), "tokens": list(self.tokens)}

    def set_state(self, state: State) -> None:
        self.draws, self.tokens = list(state["draws"]), list(state["tokens"])


class TextStream:
    """Concatenate documents, split into rows: every token is an input exactly once."""

    def __init__(self, sources: Sequence[Source], tokenizer: TextTokenizer, cfg: FeedConfig, stream: int):
        self._tokenizer, self._cfg = tokenizer, cfg
        self._sources = sources
        self._draw = _Draw(sources, stream, cfg.streams)
        self._open: tuple[int, int] | None = None  # source and offset within its newest document
        self._ids: list[int] = []

    def next_row(self) -> Row:
        if self._open is None:
            self._next_document()
        pieces: list[list[int]] = []
        sources: list[int] = []
        needed = self._cfg.seq_len + 1
        while True:
            number, offset = self._open or (0, 0)
            piece = self._ids[offset : offset + needed]
            pieces.append(piece)
            sources.append(number)
            needed -= len(piece)
            if not needed:
                # The last token is read again: it is the first input of the next row.
                self._open = number, offset + len(piece) - 1
                return text_row(pieces, sources, self._cfg.seq_len)
            self._next_document()

    def _next_document(self) -> None:
        number = self._draw.next_source()
        self._ids = self._tokenizer.document(self._draw.take(number)["text"])
        self._draw.tokens[number] += len(self._ids)
        self._open = number, 0

    def get_state(self) -> State:
        return self._draw.get_state() | {"open": None if self._open is None else list(self._open)}

    def set_state(self, state: State) -> None:
        self._draw.set_state(state)
        self._open, self._ids = None, []
        if state["open"] is not None:
            number, offset = state["open"]
            self._open = number, offset
            index = self._draw.index(self._draw.draws[number] - 1)
            self._ids = self._tokenizer.document(self._sources[number].read(index)["text"])

    def seen(self) -> list[list[int]]:
        """For each source the draws of which at least one token was an input."""
        whole = [list(range(draws)) for draws in self._draw.draws]
        if self._open is not None and self._open[1] == 0:
            whole[self._open[0]].pop()
        return whole


class ChatStream:
    """Conversations packed best-fit, WINDOW at a time; none is split, none is beside a part of another's."""

    def __init__(self, sources: Sequence[Source], tokenizer: TextTokenizer, cfg: FeedConfig, stream: int):
        self._tokenizer, self._cfg = tokenizer, cfg
        self._draw = _Draw(sources, stream, cfg.streams)
        self._start = self._draw.get_state()
        self._cut = {"truncated": 0, "skipped": 0}
        self._start_cut = dict(self._cut)
        self._drawn: list[tuple[int, int]] = []  # (source, draw) of each piece of the window
        self._bins: list[list[int]] = []
        self._pieces: list[Piece] = []
        self._at = 0

    def next_row(self) -> Row:
        tries = 0
        while self._at >= len(self._bins):
            self._next_window()
            tries += 1
            if tries > 8:
                raise DataFault(
                    f"{tries * WINDOW:,} conversations in a row hold no answer within seq_len={self._cfg.seq_len}: "
                    "there is nothing to learn. Use a longer seq_len or shorter prompts."
                )
        items = self._bins[self._at]
        row = chat_row(
            [self._pieces[i] for i in items],
            [self._drawn[i][0] for i in items],
            self._cfg.seq_len,
            self._tokenizer.pad_id,
        )
        self._at += 1
        return row

    def _next_window(self) -> None:
        self._start, self._start_cut = self._draw.get_state(), dict(self._cut)
        self._pieces, self._drawn, self._at = [], [], 0
        for _ in range(WINDOW):
            number = self._draw.next_source()
            ids, turns = self._tokenizer.chat(self._draw.take(number)["messages"])
            self._draw.tokens[number] += len(ids)
            last = max(turns)
            learn = [turn > 0 if self._cfg.loss_turns == "all" else turn == last > 0 for turn in turns]
            if len(ids) > self._cfg.seq_len + 1:
                ids, learn = ids[: self._cfg.seq_len + 1], learn[: self._cfg.seq_len + 1]
                self._cut["truncated"] += 1
            if not any(learn[1:]):
                self._cut["skipped"] += 1
                continue
            self._drawn.append((number, self._draw.draws[number] - 1))
            self._pieces.append(Piece(ids, learn))
        bins = best_fit([len(piece.ids) - 1 for piece in self._pieces], self._cfg.seq_len)
        # Shuffled, because best fit puts long conversations together.
        seed = _seed(self._cfg.seed, "bins", sum(self._start["draws"]))
        order = [permuted(i, len(bins), seed) for i in range(len(bins))]
        self._bins = [bins[i] for i in order]

    def get_state(self) -> State:
        return self._start | {"at": self._at, "cut": dict(self._start_cut)}

    def set_state(self, state: State) -> None:
        self._draw.set_state(state)
        self._cut = dict(state["cut"])
        self._start, self._start_cut = self._draw.get_state(), dict(self._cut)
        self._bins, self._at = [], 0
        if state["at"]:
            self._next_window()
            self._at = state["at"]

    def seen(self) -> list[list[int]]:
        """For each source the draws that were in a row."""
        left = {self._drawn[i] for items in self._bins[self._at :] for i in items}
        return [[d for d in range(draws) if (number, d) not in left] for number, draws in enumerate(self._draw.draws)]


Stream = TextStream | ChatStream


class Batches(IterDataset[Row]):
    """All batches of a run, without end: arrays [rows, seq_len]."""

    def __init__(self, sources: Sequence[Source], tokenizer: TextTokenizer, cfg: FeedConfig):
        super().__init__()
        if cfg.rows % cfg.streams:
            raise ConfigError(
                f"streams={cfg.streams} does not divide the {cfg.rows} rows of a batch: each stream gives as many "
                "rows to every batch. Use a divisor."
            )
        self._sources, self._tokenizer, self._cfg = tuple(sources), tokenizer, cfg

    def __iter__(self) -> "BatchIterator":
        return BatchIterator(self.streams(), self._cfg)

    def streams(self) -> list[Stream]:
        """Fresh streams at the beginning of the data."""
        make = TextStream if self._cfg.kind == "text" else ChatStream
        return [make(self._sources, self._tokenizer, self._cfg, stream) for stream in range(self._cfg.streams)]


class BatchIterator(DatasetIterator[Row]):
    """Rows of all streams side by side; the state is JSON."""

    def __init__(self, streams: list[Stream], cfg: FeedConfig):
        super().__init__()
        self._streams, self._cfg = streams, cfg

    def __next__(self) -> Row:
        per_stream = self._cfg.rows // self._cfg.streams
        rows = [stream.next_row() for stream in self._streams for _ in range(per_stream)]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def get_state(self) -> State:
        return {"streams": [stream.get_state() for stream in self._streams]}

    def set_state(self, state: State) -> None:
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.set_state(saved)


def prefetched(batches: Batches, buffer: int = 4) -> DatasetIterator[Row]:
    """The batches, made ahead in a thread; its state is that of the newest batch given out."""
    return iter(ThreadPrefetchIterDataset(batches, prefetch_buffer_size=buffer))


def token_ledger(sources: Sequence[Source], batches: Batches, state: State) -> dict[str, Any]:
    """Which documents were seen how often up to a state: for each source how many records were seen 0, 1, 2, … "
    "times."""
    streams = batches.streams()
    times = [np.zeros(source.records, np.int64) for source in sources]
    drawn = [0] * len(sources)
    tokens = [0] * len(sources)
    cut = {"truncated": 0, "skipped": 0}
    for stream, saved in zip(streams, state["streams"], strict=True):
        stream.set_state(saved)
        for number, draws in enumerate(stream.seen()):
            drawn[number] += len(draws)
            tokens[number] += stream._draw.tokens[number]
            for draw in draws:
                times[number][sources[number].place(stream._draw.index(draw))[1]] += 1
        for name, count in saved.get("cut", {}).items():
            cut[name] += count
    return {
        "sources": [
            {
                "name": source.name,
                "records": source.records,
                "drawn": drawn[i],
                "tokens": tokens[i],
                "token_share": tokens[i] / max(1, sum(tokens)),
                "epochs": drawn[i] / source.records,
                "seen": {str(n): int(count) for n, count in enumerate(np.bincount(times[i])) if count},
            }
            for i, source in enumerate(sources)
        ],
        **cut,
    }


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


def _seed(seed: int, *parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr((seed, *parts)).encode()).digest()[:4], "big")
