"""Rows of a batch: every token once, nothing across texts, positions and weights by definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.train.packing import Piece, best_fit, chat_row, text_row


def test_text_row_by_hand():
    row = text_row([np.array(piece) for piece in ([7, 1], [2, 5, 6, 1], [2, 9])], [3, 0, 1], 7)
    assert row["tokens_BT"].tolist() == [7, 1, 2, 5, 6, 1, 2]
    assert row["targets_BT"].tolist() == [1, 2, 5, 6, 1, 2, 9]
    assert row["segments_BT"].tolist() == [1, 1, 2, 2, 2, 2, 3]
    assert row["positions_BT"].tolist() == [0, 1, 0, 1, 2, 3, 0]
    assert row["weights_BT"].tolist() == [1, 0, 1, 1, 1, 0, 1], "no document foretells the next"
    assert row["sources_BT"].tolist() == [3, 3, 0, 0, 0, 0, 1]


def test_chat_row_by_hand():
    pieces = [
        Piece(np.array([2, 4, 8, 5]), np.array([False, False, True, True])),
        Piece(np.array([2, 6]), np.array([False, True])),
    ]
    row = chat_row(pieces, [2, 1], 6, 0)
    assert row["tokens_BT"].tolist() == [2, 4, 8, 2, 0, 0]
    assert row["targets_BT"].tolist() == [4, 8, 5, 6, 0, 0]
    assert row["weights_BT"].tolist() == [0, 1, 1, 1, 0, 0]
    assert row["segments_BT"].tolist() == [1, 1, 1, 2, 0, 0], "padding is segment 0"
    assert row["sources_BT"].tolist() == [2, 2, 2, 1, 0, 0]
    assert row["positions_BT"].tolist() == [0, 1, 2, 0, 0, 0]
    assert {name: array.dtype for name, array in row.items()} == {
        name: np.dtype("float32" if name == "weights_BT" else "int32") for name in row
    }


def said(tokens: int, first: int):
    """Words that name their place: two after each token but the last."""
    words = np.arange(first, first + tokens - 1)[:, None] + [0, 100]
    return words.astype(np.int32), np.tile(np.float32([0.75, 0.25]), (tokens - 1, 1))


def test_a_teacher_s_words_stand_at_the_targets_that_they_are_about():
    pieces = [np.array(piece) for piece in ([7, 1], [2, 5, 6, 1], [2, 9])]
    row = text_row(pieces, [3, 0, 1], 7, [said(2, 10), said(4, 20), said(2, 30)])
    assert row["teacher_ids_BTK"][:, 0].tolist() == [10, 0, 20, 21, 22, 0, 30]
    assert row["teacher_shares_BTK"].sum(axis=1).tolist() == row["weights_BT"].tolist(), "none foretells the next text"
    talks = [
        Piece(np.array([2, 4, 8, 5]), np.array([False, False, True, True]), said(4, 10)),
        Piece(np.array([2, 6]), np.array([False, True]), said(2, 20)),
    ]
    row = chat_row(talks, [2, 1], 6, 0)
    assert row["teacher_ids_BTK"][:, 1].tolist() == [110, 111, 112, 120, 0, 0]
    assert row["teacher_shares_BTK"][:, 0].tolist() == [0.75, 0.75, 0.75, 0.75, 0, 0]


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(50, 120))
def test_best_fit_holds_every_item_once_and_no_bin_overflows(widths, capacity):
    bins = best_fit(widths, capacity)
    assert sorted(i for items in bins for i in items) == list(range(len(widths)))
    fill = [sum(widths[i] for i in items) for items in bins]
    assert all(0 < used <= capacity for used in fill)
    # Any-fit packers never leave two bins that would fit into one.
    assert all(a + b > capacity for n, a in enumerate(fill) for b in fill[n + 1 :])


def test_best_fit_prefers_the_fullest_bin():
    assert best_fit([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]


def test_best_fit_is_dense_for_conversations():
    widths = np.random.default_rng(0).integers(20, 300, 256).tolist()
    bins = best_fit(widths, 512)
    assert sum(widths) / (512 * len(bins)) > 0.97


def test_best_fit_refuses_what_cannot_fit():
    with pytest.raises(ValueError, match="cut them before"):
        best_fit([3, 11], 10)
