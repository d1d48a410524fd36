"""Every dropped row can be looked at, once, whatever the pages are cut to."""

import pytest

from tasks.browse.rejects import reasons, rejects
from tasks.errors import ConfigError
from tests.tasks.browse.conftest import PAGES


def all_rows(artifact, **asked):
    rows, start = [], (0, 0)
    while True:
        found = rejects(artifact, start=start, **asked)
        rows += found.rows
        if found.next is None:
            return rows
        start = found.next


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_every_dropped_row_is_there_once_with_its_reason(made, count):
    rows = all_rows(made.artifact, count=count)
    dropped = made.artifact.manifest.counts.dropped
    assert len(rows) == sum(dropped.values()) > 20
    assert len({row["id"] for row in rows}) == len(rows)
    assert {reason: sum(row["reason"] == reason for row in rows) for reason in dropped} == dropped
    for reason, number in reasons(made.artifact):
        own = all_rows(made.artifact, reason=reason, count=count)
        assert own == [row for row in rows if row["reason"] == reason]
        assert len(own) == number


def test_words_are_looked_for_in_all_that_a_row_says(made):
    by_url = all_rows(made.artifact, words="EXAMPLE.org/1")
    assert {row["url"] for row in by_url} == {
        row["url"] for row in all_rows(made.artifact) if row["url"].startswith("https://example.org/1")
    }
    quoted = all_rows(made.artifact, words='onerror="document')  # quotes are escaped in the file, not for a reader
    ids = {row["id"] for row in quoted}
    assert ids == {row["id"] for row in all_rows(made.artifact)} & {
        page["id"] for page in PAGES if "onerror" in page["text"]
    }
    assert ids


@pytest.mark.parametrize("start", [(-1, 0), (99, 0), (0, -1)])
def test_a_place_that_is_not_there_is_refused(made, start):
    with pytest.raises(ConfigError, match="files of rejects"):
        rejects(made.artifact, start=start)
    assert rejects(made.artifact, start=(0, 10_000)).rows == rejects(made.artifact, start=(1, 0)).rows
