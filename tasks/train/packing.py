"""Token lists to rows of fixed length: nothing lost, nothing doubled, nothing crossing from one text into another.

A row has the five arrays of a batch without its first axis, see model/losses.py for their meaning, and sources_BT: the
number of the source that each text came from. With a teacher a row also has its words and shares for each target
(teacher_ids_BTK, teacher_shares_BTK). Positions restart at 0 in every segment, and a target has weight 0 when it
belongs to another text than the token before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.taught import Taught

Row = dict[str, np.ndarray]


@dataclass(frozen=True)
class Piece:
    """A stretch of one text: ids[i] is followed by ids[i + 1]; learn[i] says whether ids[i] is a target."""

    ids: np.ndarray
    learn: np.ndarray
    taught: Taught | None = None


def text_row(pieces: Sequence[np.ndarray], sources: Sequence[int], seq_len: int, taught: Sequence[Taught] = ()) -> Row:
    """A row from consecutive stretches of documents that hold seq_len + 1 tokens together.

    The last token is only a target; it is the first token of the next row. `taught` has for each stretch what the
    teacher said of its tokens but the first.
    """
    flat = np.concatenate(pieces, dtype=np.int32)
    if len(flat) != seq_len + 1:
        raise AssertionError(f"{len(flat)} tokens for a row of {seq_len} + 1")
    lengths = [len(piece) for piece in pieces]
    segments = np.repeat(np.arange(1, len(pieces) + 1, dtype=np.int32), lengths)
    positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    return {
        "tokens_BT": flat[:-1],
        "targets_BT": flat[1:],
        "positions_BT": positions[:-1],
        "segments_BT": segments[:-1],
        "weights_BT": (segments[1:] == segments[:-1]).astype(np.float32),
        "sources_BT": np.repeat(np.asarray(sources, np.int32), lengths)[:-1],
    } | (_taught_row(taught, np.cumsum([0, *lengths[:-1]]), seq_len) if taught else {})


def chat_row(pieces: Sequence[Piece], sources: Sequence[int], seq_len: int, pad_id: int) -> Row:
    """A row of whole conversations, each len(ids) - 1 wide, the rest filled up with padding."""
    row = {
        "tokens_BT": np.full(seq_len, pad_id, np.int32),
        "targets_BT": np.full(seq_len, pad_id, np.int32),
        "positions_BT": np.zeros(seq_len, np.int32),
        "segments_BT": np.zeros(seq_len, np.int32),
        "weights_BT": np.zeros(seq_len, np.float32),
        "sources_BT": np.zeros(seq_len, np.int32),
    }
    starts = np.cumsum([0, *(len(piece.ids) - 1 for piece in pieces[:-1])])
    if taught := [piece.taught for piece in pieces if piece.taught is not None]:
        row |= _taught_row(taught, starts, seq_len)
    at = 0
    for number, (piece, source) in enumerate(zip(pieces, sources, strict=True), start=1):
        here = slice(at, at + len(piece.ids) - 1)
        row["tokens_BT"][here] = piece.ids[:-1]
        row["targets_BT"][here] = piece.ids[1:]
        row["positions_BT"][here] = np.arange(len(piece.ids) - 1)
        row["segments_BT"][here] = number
        row["sources_BT"][here] = source
        row["weights_BT"][here] = piece.learn[1:]
        at += len(piece.ids) - 1
    return row


def _taught_row(taught: Sequence[Taught], starts: Sequence[int] | np.ndarray, seq_len: int) -> Row:
    """Words and shares [seq_len, K] of texts that begin at these places; nothing where no text has a next token."""
    shape = (seq_len, taught[0][0].shape[1])
    words, shares = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for (own_words, own_shares), start in zip(taught, starts, strict=True):
        words[start : start + len(own_words)] = own_words
        shares[start : start + len(own_words)] = own_shares
    return {"teacher_ids_BTK": words, "teacher_shares_BTK": shares}


def best_fit(widths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of items in bins: largest first, each into the fullest bin that still has room (best-fit decreasing).

    Every item is in exactly one bin. Bins, and items within a bin, are in the order of their first index.

    Raises:
        ValueError: an item is wider than a bin.
    """
    if too_wide := [width for width in widths if width > capacity]:
        raise ValueError(f"widths {too_wide[:5]} do not fit into {capacity}: cut them before packing.")
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # room -> bins with exactly that room
    bins: list[list[int]] = []
    for item in sorted(range(len(widths)), key=lambda i: (-widths[i], i)):
        room = next((room for room in range(widths[item], capacity + 1) if by_room[room]), None)
        if room is None:
            number, room = len(bins), capacity
            bins.append([])
        else:
            number = by_room[room].pop()
        bins[number].append(item)
        by_room[room - widths[item]].append(number)
    return sorted((sorted(items) for items in bins), key=lambda items: items[0])
