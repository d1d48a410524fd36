"""Search against a plain loop over the rows: every hit, at its place, however often the answer is cut short."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.browse.search import Query, search
from tasks.browse.shelf import Place, Shelf
from tasks.errors import ConfigError
from tasks.records import CHAT
from tests.tasks.browse.conftest import SCRIPT
from tests.tasks.training_data import chat, document, make_artifact, turns

TEXTS = [
    "alpha Beta\ngamma",
    "日本語の文章です。alpha",
    "",
    "ALPHA \u0130stanbul 🎉 a.b",
    "x" * 5000 + "needle",
    "naïve (a|b)",
]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    rows = [document(text, source=f"s{i}") for i, text in enumerate(TEXTS)]
    files = {"train/00000.parquet": rows[:2], "train/00001.parquet": rows[2:3], "train/00002.parquet": rows[3:]}
    return Shelf(make_artifact(tmp_path_factory.mktemp("search"), "x", files))


def all_hits(shelf, query, **limits):
    """Every hit, over as many answers as it takes."""
    hits, rows, start = [], 0, None
    for _ in range(1000):
        found = search(shelf, query, start, **limits)
        hits += found.hits
        rows += found.rows
        if found.next is None:
            return hits, rows
        start = found.next
    raise AssertionError("the search does not come to an end")


@settings(max_examples=30, deadline=None)
@given(
    st.one_of(st.sampled_from(["a", "alpha", "a.b", "(a|b)", "。a", "\n", "needle"]), st.text(min_size=1, max_size=3)),
    st.booleans(),
    st.integers(1, 3),
)
def test_plain_words_are_found_where_they_are(shelf, words, match_case, max_hits):
    if not match_case and not words.isascii():
        return  # the two engines fold letters such as İ differently
    hits, rows = all_hits(shelf, Query(words, match_case=match_case), max_hits=max_hits)
    pattern = re.compile(re.escape(words), 0 if match_case else re.IGNORECASE | re.ASCII)
    expected = [(f"s{i}", pattern.search(text)) for i, text in enumerate(TEXTS)]
    assert [(hit.source, hit.match) for hit in hits] == [(name, match[0]) for name, match in expected if match]
    assert rows == len(TEXTS), "no row is read twice or left out"
    for hit in hits:
        text = shelf.rows(hit.place, 1)[0]["text"]
        assert hit.before + hit.match + hit.after in text
        assert text.index(hit.before + hit.match) + len(hit.before) == pattern.search(text).start()


def test_a_time_limit_cuts_the_answer_and_not_the_search(shelf):
    whole = search(shelf, Query("alpha"))
    assert whole.next is None
    first = search(shelf, Query("alpha"), seconds=0)
    assert (first.rows, first.next) == (2, Place("train/00001.parquet", 0))
    hits, rows = all_hits(shelf, Query("alpha"), seconds=0)
    assert (tuple(hits), rows) == (whole.hits, whole.rows)


def test_a_regular_expression_that_would_hang_others_does_not(shelf, tmp_path):
    """Backtracking engines need 2^40 steps for it."""
    evil = Shelf(make_artifact(tmp_path, "y", {"docs/0.parquet": [document("a" * 40 + "!")]}))
    assert search(evil, Query("(a+)+$", is_regex=True)).hits == ()
    assert [hit.source for hit in search(shelf, Query(r"\p{Han}\p{Hiragana}{2}。", is_regex=True)).hits] == ["s1"]
    assert [hit.match for hit in search(shelf, Query("BETA|gam{2}a", is_regex=True)).hits] == ["Beta"]
    assert search(shelf, Query("BETA", is_regex=True, match_case=True)).hits == ()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        pytest.param(Query(""), "0 characters", id="nothing"),
        pytest.param(Query("x" * 501), "501 characters", id="too long"),
        pytest.param(Query("(", is_regex=True), "no regular expression", id="not closed"),
        pytest.param(Query(r"(a)\1", is_regex=True), "no backreferences", id="backreference"),
        pytest.param(Query("a", column="pages"), "the rows have id, text", id="no such column"),
    ],
)
def test_what_cannot_be_looked_for_is_refused_with_the_reason(shelf, query, words):
    with pytest.raises(ConfigError, match=words):
        search(shelf, query)
    assert search(shelf, Query("x" * 500)).hits, "just short enough"
    with pytest.raises(ConfigError, match="starts in one of their shards"):
        search(shelf, Query("a"), Place("docs/0.parquet", 0))


def test_other_columns_and_conversations_are_searched_too(shelf, made, tmp_path):
    assert [hit.source for hit in search(shelf, Query("s1", column="source")).hits] == ["s1"]
    assert len(search(Shelf(made.artifact), Query(SCRIPT), max_hits=200).hits) > 5
    rows = [chat(turns("what is ナイル川?", "a river")), chat(turns("hello", "there"))]
    talks = Shelf(make_artifact(tmp_path, "z", {"train/0.parquet": rows}, CHAT))
    assert talks.body == "messages"
    assert [hit.place.row for hit in search(talks, Query("ナイル川", column="messages")).hits] == [0]


@pytest.mark.parametrize("text", ["docs/0.parquet", ":3", "docs/0.parquet:-1", "docs/0.parquet:x", "a:1234567890123"])
def test_a_place_is_a_shard_and_a_number(text):
    with pytest.raises(ConfigError, match=r"Write it like docs/00000.parquet:17"):
        Place.parse(text)
    assert str(Place.parse("docs/0.parquet:7")) == "docs/0.parquet:7"


@pytest.mark.parametrize("path", ["../MANIFEST.json", "/etc/passwd", "docs/9.parquet", "docs/../../x.parquet"])
def test_only_shards_of_the_manifest_are_read(shelf, path):
    with pytest.raises(ConfigError, match="only what its manifest lists"):
        shelf.rows(Place(path, 0), 1)


def test_rows_are_read_from_any_place_of_many_row_groups(tmp_path):
    rows = [document(f"text {i}") for i in range(9000)]  # three row groups
    shelf = Shelf(make_artifact(tmp_path, "long", {"docs/0.parquet": rows}))
    for row, count in ((0, 3), (255, 2), (4095, 3), (8192, 600), (8999, 5), (9000, 5)):
        found = shelf.rows(Place("docs/0.parquet", row), count)
        assert [each["id"] for each in found] == [each["id"] for each in rows[row : row + count]]


def test_a_draw_is_fair_over_shards_of_any_size_and_the_same_for_a_seed(shelf, made):
    assert [str(place) for place in shelf.draw(3, 99)] == [
        "train/00000.parquet:0",
        "train/00000.parquet:1",
        "train/00001.parquet:0",
        "train/00002.parquet:0",
        "train/00002.parquet:1",
        "train/00002.parquet:2",
    ]
    large = Shelf(made.artifact)
    places = [place for seed in range(400) for place in large.draw(seed, 5)]
    assert places[:5] == large.draw(0, 5)
    rows = {path: large.rows_of(path) for path in large.shards}
    for path, number in rows.items():
        here = sum(place.path == path for place in places)
        assert here == pytest.approx(2000 * number / sum(rows.values()), abs=100)
    assert len(set(places)) == sum(rows.values()), "every row comes up"
