"""Shares of a token budget: exact sums, ceilings, phases, and no silent shortfall."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError, DataFault
from tasks.pack import budget
from tasks.pack.budget import Grant, passes, split
from tasks.pack.config import PackConfig, Phase, SourceShare


def share(name: str, weight: float = 1.0, max_epochs: float = 1.0, **budgets) -> SourceShare:
    return SourceShare(name=name, language="en", input=0, weight=weight, max_epochs=max_epochs, **budgets)


def grants(sources, held, total_tokens, on_shortfall="refuse", phases=()) -> list[Grant]:
    said = {"sources": tuple(sources), "total_tokens": total_tokens, "on_shortfall": on_shortfall}
    return budget.grants(PackConfig.model_validate(said | {"kind": "text", "phases": tuple(phases)}), held)


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


def test_a_source_may_ask_for_tokens_or_epochs_and_the_others_share_the_rest():
    sources = [share("a", tokens=700), share("b", epochs=1.5), share("c", 2), share("d", 1)]
    assert [g.tokens for g in grants(sources, [1000, 101, 9000, 9000], 1000)] == [700, 151, 99, 50]
    assert [g.tokens for g in grants(sources, [1000, 100, 50, 60], None)] == [700, 150, 50, 60], "the rest whole, once"
    with pytest.raises(DataFault, match="a holds 699 tokens"):
        grants(sources, [699, 100, 50, 60], None)


@pytest.mark.parametrize(
    ("total", "fits"),
    [
        pytest.param(852, True, id="a token for each of the two others"),
        pytest.param(851, False, id="one short"),
        pytest.param(10, False, id="far short"),
    ],
)
def test_fixed_budgets_must_leave_something_for_the_others(total, fits):
    sources = [share("a", tokens=700), share("b", epochs=1.5), share("c"), share("d")]
    if fits:
        assert [g.tokens for g in grants(sources, [1000, 100, 50, 60], total)] == [700, 150, 1, 1]
    else:
        with pytest.raises(ConfigError, match=r"a: 700, b: 150 of total_tokens=.* for 2 other sources"):
            grants(sources, [1000, 100, 50, 60], total)


@pytest.mark.parametrize("total", [99, 101])
def test_budgets_in_tokens_that_do_not_add_up_are_refused_before_anything_is_read(total):
    sources = [share("a", tokens=60), share("b", tokens=40)]
    assert sum(g.tokens for g in grants(sources, [60, 40], 100)) == 100
    with pytest.raises(ValueError, match="the sources ask for 100 tokens"):
        grants(sources, [60, 40], total)
    with pytest.raises(ValueError, match="a source has one"):
        share("a", tokens=1, epochs=1)


KINDS = st.lists(
    st.one_of(
        st.builds(dict, tokens=st.integers(1, 3000)),
        st.builds(dict, epochs=st.decimals("0.01", "3", places=2).map(float)),
        st.builds(dict, weight=st.floats(0.01, 100)),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(KINDS, st.lists(st.integers(1, 4000), min_size=6, max_size=6), st.integers(1, 20_000))
def test_budgets_of_every_kind_add_up_to_the_token(rows, held, total):
    sources = [share(f"s{i}", max_epochs=10**6, **row) for i, row in enumerate(rows)]
    held = held[: len(rows)]
    asked = [
        s.tokens or (h * Fraction(str(s.epochs)) // 1 if s.epochs else None) for s, h in zip(sources, held, strict=True)
    ]
    others, rest = asked.count(None), total - sum(tokens or 0 for tokens in asked)
    is_possible = rest >= others if 0 < others < len(rows) else not rest if not others else True
    if is_possible:
        given_ = grants(sources, held, total)
        assert sum(g.tokens for g in given_) == total
        assert [g.tokens for g, tokens in zip(given_, asked, strict=True) if tokens is not None] == [
            t for t in asked if t is not None
        ]
    else:
        with pytest.raises((ConfigError, ValueError), match="the budgets of a mixture add up to its total"):
            grants(sources, held, total)
    whole = grants(sources, held, None)
    assert [g.tokens for g in whole] == [h if tokens is None else tokens for h, tokens in zip(held, asked, strict=True)]


@given(st.integers(1, 10**13), st.decimals("0.001", "50", places=3))
def test_fractional_epochs_are_exact_as_they_are_written(held, epochs):
    assert passes(held, float(epochs)) == held * Fraction(epochs) // 1


def test_the_nearest_binary_number_does_not_cost_a_token():
    assert int(100 * 0.29) == 28
    assert passes(100, 0.29) == 29
    assert [g.tokens for g in grants([share("a", epochs=0.29)], [100], None)] == [29]


def phase(name: str, share: float, **weights: float) -> Phase:
    return Phase(name=name, share=share, weights=weights)


CURRICULUM = (phase("web", 1080, ja=630, en=450), phase("synthetic", 220, synth=1))


def test_phases_share_out_the_total_and_each_its_own_part():
    sources = [share("ja"), share("en"), share("synth", max_epochs=3)]
    given_ = grants(sources, [9000, 9000, 1000], 13_000, phases=CURRICULUM)
    assert [[(p.tokens, p.wanted) for p in g.phases] for g in given_] == [
        [(6300, 6300), (0, 0)],
        [(4500, 4500), (0, 0)],
        [(0, 0), (2200, 2200)],
    ]
    with pytest.raises(DataFault, match=r"synth holds 733 tokens, at most 3 epochs .* its share is 2,200"):
        grants(sources, [9000, 9000, 733], 13_000, phases=CURRICULUM)
    short = grants(sources, [9000, 4000, 500], 13_000, "spread", CURRICULUM)
    assert [[p.tokens for p in g.phases] for g in short] == [[6800, 0], [4000, 0], [0, 1500]], "700 are missing"


@pytest.mark.parametrize(
    ("phases", "total", "words"),
    [
        pytest.param((phase("p", 1, ja=1, en=1),), 10, "each source is in at least one phase", id="a source unused"),
        pytest.param((*CURRICULUM, phase("x", 1, ko=1)), 10, "each source is in at least one", id="an unknown source"),
        pytest.param((*CURRICULUM, phase("web", 1, ja=1)), 10, "its own name", id="a name twice"),
        pytest.param(CURRICULUM, None, "need total_tokens", id="no total"),
    ],
)
def test_unsound_phases_are_refused(phases, total, words):
    with pytest.raises(ValueError, match=words):
        grants([share("ja"), share("en"), share("synth")], [10, 10, 10], total, phases=phases)
    with pytest.raises(ValueError, match="not above 0"):
        phase("p", 1, ja=0)


PHASES = st.lists(
    st.tuples(
        st.floats(0.01, 100), st.lists(st.sampled_from([0.0, 0.3, 1.0, 7.5]), min_size=4, max_size=4).filter(any)
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(PHASES, st.lists(st.integers(1, 5000), min_size=4, max_size=4), st.integers(1, 20_000))
def test_phases_cover_the_budget_to_the_token_and_no_source_passes_its_ceiling(rows, held, total):
    names = [name for i, name in enumerate("abcd") if any(weights[i] for _, weights in rows)]
    used = ["abcd".index(name) for name in names]
    phases = [
        Phase(name=f"p{n}", share=part, weights={"abcd"[i]: weights[i] for i in used if weights[i]})
        for n, (part, weights) in enumerate(rows)
    ]
    sources, held = [share(name, max_epochs=1.5) for name in names], [held[i] for i in used]
    given_ = grants(sources, held, total, "spread", phases)
    for number, (wanted, each) in enumerate(zip(split(total, [p.share for p in phases]), phases, strict=True)):
        assert sum(g.phases[number].wanted for g in given_) == wanted
        assert sum(g.phases[number].tokens for g in given_) <= wanted
        assert not any(g.phases[number].tokens for g, n in zip(given_, names, strict=True) if n not in each.weights)
        # A phase falls short only where each of its sources has given all that it may.
        if sum(g.phases[number].tokens for g in given_) < wanted:
            assert all(g.tokens == passes(g.held, 1.5) for g, n in zip(given_, names, strict=True) if n in each.weights)
    assert sum(g.wanted for g in given_) == total
    assert all(g.tokens == sum(p.tokens for p in g.phases) <= passes(g.held, 1.5) for g in given_)
