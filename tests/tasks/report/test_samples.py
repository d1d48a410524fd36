"""Samples: which rows are shown depends on the rows alone, and every shape of row can be shown."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.artifact import Artifact, Workspace
from tasks.report.lineage import trace
from tasks.report.samples import FILE_BUDGET, answers, dropped, sample, synthetic


def dropping(rows: list[dict[str, Any]], units: int) -> Any:
    """A stage that drops rows, spread over some units."""

    def body(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        for unit_index in range(units):
            with workspace.unit(f"{unit_index:05d}") as unit:
                for row in rows[unit_index::units]:
                    unit.count(1, 0)
                    unit.drop(row["why"], {"text": row["text"], "url": row["url"]})

    return body


def test_the_rows_shown_do_not_depend_on_their_order_in_a_file(store, make):
    rows = [{"why": ("a", "b")[i % 3 == 0], "text": f"text {i}", "url": f"u{i}"} for i in range(60)]
    shuffled = random.Random(3).sample(rows, len(rows))
    shown = []
    for name, these in (("one", rows), ("two", shuffled)):
        made = make(store, "clean", name, dropping(these, 1))
        groups = dropped(trace({"x": made}), 3, 100)
        assert [(group.reason, group.rows, len(group.samples)) for group in groups] == [("a", 40, 3), ("b", 20, 3)]
        shown.append([group.samples for group in groups])
    assert shown[0] == shown[1]


def test_at_most_a_few_files_are_opened_however_many_there_are(store, make, monkeypatch):
    rows = [{"why": "a", "text": f"text {i}", "url": ""} for i in range(3 * FILE_BUDGET)]
    made = make(store, "clean", "many", dropping(rows, 3 * FILE_BUDGET))
    opened: list[str] = []
    from tasks.report import samples

    real = samples.storage_for(made.url)

    class Counting:
        def read(self, url: str) -> bytes:
            opened.append(url)
            return real.read(url)

    monkeypatch.setattr(samples, "storage_for", lambda url: Counting())
    (group,) = dropped(trace({"x": made}), 2, 100)
    assert len(group.samples) == 2
    assert len(opened) == FILE_BUDGET


def test_the_same_row_twice_is_shown_once(store, make):
    rows = [{"why": "a", "text": "same", "url": "u"} for _ in range(9)]
    (group,) = dropped(trace({"x": make(store, "clean", "twins", dropping(rows, 1))}), 4, 100)
    assert group.rows == 9
    assert len(group.samples) == 1


def test_a_conversation_is_shown_turn_by_turn():
    row = {"messages": json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])}
    assert sample(row, 100).turns == (("user", "q"), ("assistant", "a"))


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        pytest.param({"text": "t"}, (("", "t"),), id="document"),
        pytest.param({"prompt": "p", "answer": "a"}, (("prompt", "p"), ("answer", "a")), id="prompt and answer"),
        pytest.param({"prompt": "p"}, (("prompt", "p"),), id="prompt that got no answer"),
        pytest.param({"messages": "{broken"}, (("", "{broken"),), id="broken conversation"),
        pytest.param({"messages": [{"role": "user", "content": "q"}]}, (("user", "q"),), id="list, not JSON"),
        pytest.param({"messages": "[]", "text": "t"}, (("", "t"),), id="empty conversation"),
        pytest.param({"url": "u"}, (), id="only a place"),
        pytest.param({"text": 5}, (("", "5"),), id="text that is no text"),
    ],
)
def test_every_shape_of_row_can_be_shown(row, turns):
    assert sample(row, 100).turns == turns


@given(
    st.dictionaries(st.text(max_size=8), st.none() | st.text() | st.integers() | st.lists(st.text())),
    st.integers(1, 50),
)
def test_no_row_breaks_the_page_or_shows_more_than_asked(row, chars):
    shown = sample(row, chars)
    assert all(len(text) <= chars for _, text in shown.turns)


def test_the_other_fields_are_facts_known_ones_first():
    row = {
        "text": "t",
        "unit": "u",
        "reason": "r",
        "meta": "{}",
        "zeta": 0.75,
        "url": "U",
        "blank": "",
        "id": "i",
        "a": [1],
    }
    assert sample(row, 100).facts == (("url", "U"), ("id", "i"), ("a", "[1]"), ("zeta", "0.75"))


def test_a_long_text_says_how_much_is_not_shown():
    assert sample({"text": "x" * 110}, 100).cut_chars == 10
    assert sample({"text": "x" * 100}, 100).cut_chars == 0


def test_synthetic_rows_and_answers_come_from_the_whole_run(factory_inputs):
    nodes = trace(factory_inputs)
    groups = synthetic(nodes, 2, 200)
    assert [(g.node.label, g.rows, len(g.samples)) for g in groups] == [
        ("synth/tiny-qa-ja", 66, 2),
        ("synth/tiny-qa-en", 118, 2),
        ("synth/tiny-code", 51, 2),
        ("instruct/tiny-magpie", 96, 2),
    ]
    found = answers(nodes, 3, 200)
    assert len(found) == 3
    for answer in found:
        assert [model for model, _ in answer.answers] == ["base", "cpt", "sft"]
        assert answer.answers[2][1].startswith("sft: ")
