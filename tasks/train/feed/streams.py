"""Streams: documents cut into rows end to end, or conversations packed whole, each with a position in JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.errors import DataFault
from tasks.taught import Taught
from tasks.tokens import TextTokenizer
from tasks.train.feed.phases import lagging_source
from tasks.train.feed.sources import Source, derived_seed, permuted
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


class _Draw:
    """Which document comes next in a stream: the shares are kept in tokens, document by document."""

    def __init__(self, sources: Sequence[Source], stream: int, streams: int):
        self._sources, self._stream, self._streams = sources, stream, streams
        self.draws = [0] * len(sources)
        self.tokens = [0] * len(sources)
        self._phases = tuple(zip(*(source.phases for source in sources), strict=True))

    def next_source(self) -> int:
        if self._phases:
            return lagging_source(self._phases, self.tokens, self._streams)
        total = sum(self.tokens)
        lag = [source.weight * (total + 1) - tokens for source, tokens in zip(self._sources, self.tokens, strict=True)]
        return lag.index(max(lag))

    def index(self, draw: int) -> int:
        """Place in a source's global order of the stream's draw-th document."""
        return self._stream + draw * self._streams

    def read(self, number: int, draw: int) -> dict[str, Any]:
        return self._sources[number].read(self.index(draw))

    def taught(self, number: int, draw: int, ids: np.ndarray) -> Taught | None:
        """What a teacher said of a document, if there is one."""
        source = self._sources[number]
        return source.teach(self.index(draw), ids) if source.taught else None

    def get_state(self) -> State:
        return {"draws": list(self.draws), "tokens": list(self.tokens)}

    def set_state(self, state: State) -> None:
        self.draws, self.tokens = list(state["draws"]), list(state["tokens"])


class _Given:
    """For each source, how many tokens were given out as inputs, and how many targets with a weight."""

    def __init__(self, sources: int):
        self._inputs, self._learned = [0] * sources, [0] * sources

    def add(self, number: int, *, inputs: int, learned: int) -> None:
        self._inputs[number] += inputs
        self._learned[number] += learned

    def get_state(self) -> State:
        return {"inputs": list(self._inputs), "learned": list(self._learned)}

    def set_state(self, state: State) -> None:
        self._inputs, self._learned = list(state["inputs"]), list(state["learned"])


class TextStream:
    """Concatenate documents, split into rows: every token is an input exactly once."""

    def __init__(self, sources: Sequence[Source], tokenizer: TextTokenizer, cfg: FeedConfig, stream: int):
        self._tokenizer, self._cfg = tokenizer, cfg
        self._draw = _Draw(sources, stream, cfg.streams)
        self._given = _Given(len(sources))
        self._open: tuple[int, int] | None = None  # source and offset within its newest document
        self._ids = np.empty(0, np.int32)
        self._taught: Taught | None = None

    def next_row(self) -> Row:
        if self._open is None:
            self._next_document()
        pieces: list[np.ndarray] = []
        sources: list[int] = []
        taught: list[Taught] = []
        needed = self._cfg.seq_len + 1
        while True:
            number, offset = self._open or (0, 0)
            piece = self._ids[offset : offset + needed]
            pieces.append(piece)
            sources.append(number)
            if self._taught is not None:
                here = slice(offset, offset + len(piece) - 1)
                taught.append((self._taught[0][here], self._taught[1][here]))
            needed -= len(piece)
            # The last token of the row is only a target: it is read again, as the first input of the next row.
            self._given.add(number, inputs=len(piece) - (needed == 0), learned=len(piece) - 1)
            if not needed:
                self._open = number, offset + len(piece) - 1
                return text_row(pieces, sources, self._cfg.seq_len, taught)
            self._next_document()

    def _next_document(self) -> None:
        number = self._draw.next_source()
        self._draw.draws[number] += 1
        self._read_document(number)
        self._draw.tokens[number] += len(self._ids)
        self._open = number, 0

    def _read_document(self, number: int) -> None:
        """The newest document of a source."""
        draw = self._draw.draws[number] - 1
        self._ids = self._tokenizer.document(self._draw.read(number, draw)["text"])
        self._taught = self._draw.taught(number, draw, self._ids)

    def get_state(self) -> State:
        open_ = None if self._open is None else list(self._open)
        return self._draw.get_state() | self._given.get_state() | {"open": open_}

    def set_state(self, state: State) -> None:
        self._draw.set_state(state)
        self._given.set_state(state)
        self._open, self._ids = None, np.empty(0, np.int32)
        if state["open"] is not None:
            number, offset = state["open"]
            self._open = number, offset
            self._read_document(number)

    @property
    def tokens(self) -> list[int]:
        """For each source the tokens of the documents that were taken."""
        return self._draw.tokens

    @property
    def cut(self) -> dict[str, int]:
        """Documents that were not read whole: none."""
        return {}

    def seen(self) -> list[list[int]]:
        """For each source the places in its order of the documents of which at least one token was an input."""
        whole = [list(range(draws)) for draws in self._draw.draws]
        if self._open is not None and self._open[1] == 0:
            whole[self._open[0]].pop()
        return [[self._draw.index(draw) for draw in draws] for draws in whole]


class ChatStream:
    """Conversations packed best-fit, WINDOW at a time; none is split, none is beside a part of another's."""

    def __init__(self, sources: Sequence[Source], tokenizer: TextTokenizer, cfg: FeedConfig, stream: int):
        self._tokenizer, self._cfg = tokenizer, cfg
        self._draw = _Draw(sources, stream, cfg.streams)
        self._given = _Given(len(sources))
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
        self._at += 1
        for i in items:
            piece = self._pieces[i]
            self._given.add(self._drawn[i][0], inputs=len(piece.ids) - 1, learned=int(np.sum(piece.learn[1:])))
        return chat_row(
            [self._pieces[i] for i in items],
            [self._drawn[i][0] for i in items],
            self._cfg.seq_len,
            self._tokenizer.pad_id,
        )

    def _next_window(self) -> None:
        self._start, self._start_cut = self._draw.get_state(), dict(self._cut)
        self._pieces, self._drawn, self._at = [], [], 0
        for _ in range(WINDOW):
            number = self._draw.next_source()
            draw = self._draw.draws[number]
            self._draw.draws[number] += 1
            ids, turns = map(np.asarray, self._tokenizer.chat(self._draw.read(number, draw)["messages"]))
            taught = self._draw.taught(number, draw, ids)
            self._draw.tokens[number] += len(ids)
            last = turns.max()
            learn = turns > 0 if self._cfg.loss_turns == "all" else (turns == last) & (last > 0)
            if len(ids) > self._cfg.seq_len + 1:
                ids, learn = ids[: self._cfg.seq_len + 1], learn[: self._cfg.seq_len + 1]
                taught = taught and (taught[0][: self._cfg.seq_len], taught[1][: self._cfg.seq_len])
                self._cut["truncated"] += 1
            if not learn[1:].any():
                self._cut["skipped"] += 1
                continue
            self._drawn.append((number, draw))
            self._pieces.append(Piece(ids, learn, taught))
        bins = best_fit([len(piece.ids) - 1 for piece in self._pieces], self._cfg.seq_len)
        # Shuffled, because best fit puts long conversations together.
        seed = derived_seed(self._cfg.seed, "bins", sum(self._start["draws"]))
        order = [permuted(i, len(bins), seed) for i in range(len(bins))]
        self._bins = [bins[i] for i in order]

    def get_state(self) -> State:
        return self._start | self._given.get_state() | {"at": self._at, "cut": dict(self._start_cut)}

    def set_state(self, state: State) -> None:
        self._draw.set_state(state)
        self._given.set_state(state)
        self._cut = dict(state["cut"])
        self._start, self._start_cut = self._draw.get_state(), dict(self._cut)
        self._bins, self._at = [], 0
        if state["at"]:
            self._next_window()
            self._at = state["at"]

    @property
    def tokens(self) -> list[int]:
        """For each source the tokens of the conversations that were taken, those waiting in the window too."""
        return self._draw.tokens

    @property
    def cut(self) -> dict[str, int]:
        """Conversations that were cut or left out, those in the window too."""
        return self._cut

    def seen(self) -> list[list[int]]:
        """For each source the places in its order of the conversations that were in a row or left out."""
        left = {self._drawn[i] for items in self._bins[self._at :] for i in items}
        return [
            [self._draw.index(draw) for draw in range(draws) if (number, draw) not in left]
            for number, draws in enumerate(self._draw.draws)
        ]


Stream = TextStream | ChatStream


def open_streams(
    sources: Sequence[Source], tokenizer: TextTokenizer, cfg: FeedConfig, numbers: Sequence[int]
) -> list[Stream]:
    """These streams, at the beginning of the data."""
    make = TextStream if cfg.kind == "text" else ChatStream
    return [make(sources, tokenizer, cfg, number) for number in numbers]


def next_rows(streams: Sequence[Stream], cfg: FeedConfig) -> Row:
    """What these streams give to the next batch: arrays [rows, seq_len], stream after stream."""
    rows = [stream.next_row() for stream in streams for _ in range(cfg.rows // cfg.streams)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
