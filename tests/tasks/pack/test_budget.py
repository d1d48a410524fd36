"""Shares of a token budget: exact sums, ceilings, and no silent shortfall."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import DataFault
from tasks.pack.budget import Grant, grants, split
from tasks.pack.config import SourceShare


def share(name: str, weight: float, max_epochs: float = 1.0) -> SourceShare:
    return SourceShare(name=name, language="en", input=0, weight=weight, max_epochs=max_epochs)


@given(st.integers(0, 10**12), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12))
def test_split_adds_up_and_is_within_one_of_exact(total, weights):
    parts = split(total, weights)
    assert sum(parts) == total
    assert all(
        abs(part - total * w / sum(weights)) <= 1 + total * 1e-12 for part, w in zip(parts, weights, strict=True)
    )


def test_shares_follow_the_weights():
    given_ = grants([share("ja", 70), share("en", 25), share("code", 5)], [10_000] * 3, 10_000, "refuse")
    assert [g.tokens for g in given_] == [7000, 2500, 500]


def test_without_a_total_every_source_is_taken_whole_once():
    assert grants([share("a", 9), share("b", 1, 4)], [10, 70], None, "refuse") == [Grant(10, 10, 10), Grant(70, 70, 70)]


@pytest.mark.parametrize(
    ("max_epochs", "is_enough"),
    [pytest.param(2.0, True, id="exactly enough"), pytest.param(1.999, False, id="one token short")],
)
def test_a_source_too_small_for_its_share_is_refused(max_epochs, is_enough):
    sources = [share("small", 1, max_epochs), share("large", 1)]
    if is_enough:
        assert [g.tokens for g in grants(sources, [1000, 9000], 4000, "refuse")] == [2000, 2000]
    else:
        with pytest.raises(DataFault, match=r"small holds 1,000 tokens, at most 1.999 epochs .* 2,000 \(2.00 epochs\)"):
            grants(sources, [1000, 9000], 4000, "refuse")


def test_an_empty_source_is_refused_even_when_shortfalls_are_spread():
    with pytest.raises(DataFault, match="without a single token: synth"):
        grants([share("synth", 1), share("en", 1)], [0, 10], 10, "spread")


def test_spread_gives_the_rest_to_those_who_have_room():
    sources = [share("a", 2), share("b", 1), share("c", 1, 2)]
    assert [g.tokens for g in grants(sources, [100, 1000, 300], 1000, "spread")] == [100, 450, 450]
    assert [g.tokens for g in grants(sources, [100, 100, 300], 1000, "spread")] == [100, 100, 600], "200 are missing"


SOURCES = st.lists(st.tuples(st.integers(1, 5000), st.floats(0.01, 100), st.floats(0.1, 5)), min_size=1, max_size=8)


@given(SOURCES, st.integers(1, 20_000))
def test_spread_never_passes_a_ceiling_and_fills_the_budget_if_anyone_can(rows, total):
    sources = [share(f"s{i}", w, e) for i, (_, w, e) in enumerate(rows)]
    held = [tokens for tokens, _, _ in rows]
    most = [int(tokens * e) for tokens, _, e in rows]
    given_ = [g.tokens for g in grants(sources, held, total, "spread")]
    assert all(g <= m for g, m in zip(given_, most, strict=True))
    assert sum(given_) == min(total, sum(most))
