"""Ids and tables of documents and conversations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.records import CHAT, DOCUMENT, document_id, meta_json, table


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), unique=True, max_size=10))
def test_different_documents_have_different_ids(rows: list[tuple[str, str, str]]):
    ids = [document_id(*row) for row in rows]
    assert len(set(ids)) == len(rows)
    assert all(len(item) == 16 and int(item, 16) >= 0 for item in ids)


def test_the_parts_of_an_id_do_not_run_into_each_other():
    assert document_id("a", "bc", "d") != document_id("ab", "c", "d")
    assert document_id("a", "b", "é") == document_id("a", "b", "é".encode())


def test_a_table_has_exactly_the_schema():
    row = dict.fromkeys(CHAT.names, "x")
    assert table([row], CHAT).schema == CHAT
    assert table([], DOCUMENT).num_rows == 0
    with pytest.raises(ValueError, match=r"row 1 has columns .* put the rest in meta"):
        table([row, row | {"extra": "y"}], CHAT)
    with pytest.raises(ValueError, match="row 0"):
        table([{"id": "1"}], CHAT)


def test_meta_is_the_same_text_for_the_same_facts():
    assert meta_json(b=1, a="日") == meta_json(a="日", b=1) == '{"a": "日", "b": 1}'
