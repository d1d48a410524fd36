"""Lines that many documents share are cut out of all but the first; the rows and characters add up."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.dedup.config import LineConfig
from tasks.ingest.dedup.lines import line_digest, without
from tasks.shards import read_documents
from tests.tasks.ingest.dedup.small_corpora import NO_HELDOUT, dedup, document, outcomes, prose, rejects

MENU = "ホーム | 製品情報 | お問い合わせ | サイトマップ"
LINES = NO_HELDOUT.with_changes({"lines": {"min_chars": 10, "min_documents": 3}})


def texts_of(artifact):
    rows = [row for batch in read_documents(artifact, "train/") for row in batch.to_pylist()]
    return {int(row["id"]): row["text"] for row in rows}


@pytest.mark.parametrize(
    ("pages", "first"),
    [
        pytest.param(2, False, id="in two documents it is no boilerplate"),
        pytest.param(3, True, id="in three it is"),
    ],
)
def test_a_line_of_enough_documents_stays_in_the_first_alone(tmp_path, pages, first):
    rows = [document(i, f"{prose(i, 200 - i)}\n  {MENU}\n{prose(50 + i, 40)}") for i in range(pages)]
    made = dedup(tmp_path, rows, LINES, shards=2)
    found = texts_of(made)
    assert MENU in found[0]  # the longest
    assert all((MENU in found[i]) != first for i in range(1, pages))
    assert all(prose(50 + i, 40) in found[i] for i in range(pages))
    cut = made.manifest.extra
    before, after = sum(len(row["text"]) for row in rows), sum(map(len, found.values()))
    assert (cut["cut_chars"], cut["cut_lines"]) == (before - after, (pages - 1) * first)


@pytest.mark.parametrize(("line", "cut"), [("十文字ある行ですよね", True), ("九文字の行ですよね", False)])
def test_a_short_line_is_never_cut(tmp_path, line, cut):
    rows = [document(i, f"{prose(i)}\n{line}") for i in range(3)]
    found = texts_of(dedup(tmp_path, rows, LINES))
    assert sum(line in text for text in found.values()) == (1 if cut else 3)


def test_a_document_of_which_nothing_is_left_goes_with_its_reason(tmp_path):
    rows = [document(i, f"{prose(i)}\n{MENU}") for i in range(3)] + [document(9, f"{MENU}\n\n{prose(9, 30)}")]
    rows += [document(10, f" {MENU}\n{MENU}\n")]
    made = dedup(tmp_path, rows, LINES)
    assert outcomes(made)[f"{10:016d}"] == "empty_after_lines"
    assert texts_of(made)[9] == prose(9, 30)
    assert made.manifest.counts.dropped == {"empty_after_lines": 1}
    assert made.manifest.counts.in_ == made.manifest.counts.out + 1
    assert rejects(made)[0]["text"] == f" {MENU}\n{MENU}\n"


def test_documents_that_go_as_duplicates_do_not_count(tmp_path):
    same = [document(i, f"{prose(1)}\n{MENU}") for i in (1, 2, 3)]
    made = dedup(tmp_path, [*same, document(4, f"{prose(4)}\n{MENU}")], LINES)
    assert sum(MENU in text for text in texts_of(made).values()) == 2


@given(st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=6), min_size=1, max_size=8), st.integers(2, 4))
@settings(max_examples=4, deadline=None)
def test_the_cut_is_that_of_a_slow_count(tmp_path_factory, documents, least):
    """Documents are of numbered lines; what is cut is counted with a Counter and the order of the policy."""
    texts = [
        "\n".join([prose(500 + i, 400 - i), *(prose(line, 30) for line in own)]) for i, own in enumerate(documents)
    ]
    config = LINES.with_changes({"lines.min_documents": least, "min_jaccard": 1.0})
    made = dedup(tmp_path_factory.mktemp("lines"), [document(i, t) for i, t in enumerate(texts)], config, shards=2)
    held = Counter(line for own in documents for line in set(own))
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i].replace("\n", " ")), i))
    first = {line: next(i for i in order if line in documents[i]) for line in held}
    for i, text in texts_of(made).items():
        kept = [line for line in documents[i] if held[line] < least or first[line] == i]
        assert text == "\n".join([prose(500 + i, 400 - i), *(prose(line, 30) for line in kept)])


@given(st.text(alphabet="ab \n", max_size=60), st.integers(1, 4))
def test_cutting_nothing_changes_nothing_and_cutting_leaves_only_other_lines(text, least):
    config = LineConfig(min_chars=least)
    assert without(text, set(), config) == text
    digests = {line_digest("a"), line_digest("ab")}
    kept = without(text, digests, config)
    assert [line for line in kept.split("\n") if len(line.strip()) >= least and line.strip() in ("a", "ab")] == []
    assert Counter(filter(None, kept.split("\n"))) - Counter(text.split("\n")) == Counter()
