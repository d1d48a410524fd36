"""The published mixtures: figures that add up, and a table that becomes the sources of a pack."""

import re
from pathlib import Path

import pytest

from tasks.pack.budget import grants
from tasks.pack.config import PackConfig
from tasks.pack.published import PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_budgets_add_up_to_the_published_total(name):
    published = PUBLISHED[name]
    assert sum(published.budgets.values()) == pytest.approx(published.total, abs=0.0151), "figures have two decimals"


@pytest.mark.parametrize(
    ("name", "source", "share"),
    [
        ("llama3-swallow", "swallow-v1", 0.808),
        ("llama3-swallow", "cosmopedia", 0.051),
        ("llama3.1-swallow-v0.1", "swallow-v2-wiki", 0.316),
        ("llama3.1-swallow-v0.1", "swallow-v2-others", 0.207),
        ("llama3.1-swallow-v0.1", "dclm-baseline", 0.198),
        ("llama3.1-swallow", "swallow-v2-edu", 0.465),
        ("llama3.1-swallow", "the-stack-v2-python", 0.16),
        ("llama3.3-swallow", "finemath-4plus", 0.048),
        ("llama3.3-swallow", "swallow-code-0.3", 0.13),
        ("gemma2-swallow", "swallow-v2-qa", 0.05),
        ("gemma2-swallow", "swallow-code-0.3", 0.13),
    ],
)
def test_shares_are_those_that_are_published_beside_the_figures(name, source, share):
    budgets = PUBLISHED[name].budgets
    assert budgets[source] / sum(budgets.values()) == pytest.approx(share, abs=0.0006)


@pytest.mark.parametrize(
    ("name", "share"), [("llama3-swallow", 0.825), ("llama3.1-swallow-v0.1", 0.54), ("llama3.1-swallow", 0.686)]
)
def test_the_japanese_share_is_the_published_one(name, share):
    budgets = PUBLISHED[name].budgets
    japanese = sum(n for source, n in budgets.items() if source.startswith(("swallow-v", "wikipedia-ja")))
    assert japanese / sum(budgets.values()) == pytest.approx(share, abs=0.0006)


def test_cosmopedia_is_what_its_parts_add_up_to_and_tanuki_ends_synthetic():
    parts = PUBLISHED["cosmopedia-swallow"]
    assert sum(parts.budgets.values()) == pytest.approx(PUBLISHED["llama3.1-swallow"].budgets["cosmopedia"])
    for name, synthetic in (("tanuki-8b", 220), ("tanuki-8x8b", 210)):
        assert list(PUBLISHED[name].phases)[-1] == "synthetic"
        assert PUBLISHED[name].phases["synthetic"] == {"synthetic-ja": synthetic}


def test_the_page_of_the_stage_lists_every_mixture_with_its_total():
    page = (Path(__file__).resolve().parents[3] / "docs" / "stages" / "pack.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([^`]+)` \| ([\d.,]+) \|", page, re.MULTILINE))
    assert {name: float(total.replace(",", "")) for name, total in listed.items()} == {
        name: published.total for name, published in PUBLISHED.items()
    }


def pack(total_tokens: int | None, sources: dict, **changes) -> PackConfig:
    return PackConfig.model_validate({"kind": "text", "total_tokens": total_tokens, "sources": sources} | changes)


def test_a_published_mixture_is_mapped_to_the_inputs_of_a_user():
    names = list(PUBLISHED["llama3-swallow"].budgets)
    config = pack(
        9999, {"published": "llama3-swallow", "inputs": {name: i for i, name in enumerate(names)}, "max_epochs": 4}
    )
    assert [(s.name, s.input, s.max_epochs) for s in config.sources] == [(name, i, 4) for i, name in enumerate(names)]
    assert [s.language for s in config.sources] == ["ja", "ja", "ja", "en", "en", "en", "code", "en"]
    assert [g.tokens for g in grants(config, [9999] * 8)] == [8082, 169, 88, 205, 205, 506, 372, 372]
    assert PackConfig.model_validate(config.model_dump()) == config, "what is kept is the resolved mixture"


def test_a_source_that_is_left_out_is_said_and_the_others_keep_their_proportions():
    inputs = {"web-ja": 0, "synthetic-ja": 1}
    config = pack(850, {"published": "tanuki-8b", "inputs": inputs, "without": ["web-en"]})
    assert [(p.name, p.share, p.weights) for p in config.phases] == [
        ("web", 630, {"web-ja": 630}),
        ("synthetic", 220, {"synthetic-ja": 220}),
    ]
    assert [g.tokens for g in grants(config, [1000, 1000])] == [630, 220]
    own = [{"name": "one", "share": 1, "weights": {"web-ja": 1, "synthetic-ja": 1}}]
    kept = pack(850, {"published": "tanuki-8b", "inputs": inputs, "without": ["web-en"]}, phases=own)
    assert [g.tokens for g in grants(kept, [1000, 1000])] == [425, 425]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        pytest.param({"published": "llama9"}, "named by one of llama2-swallow", id="no such mixture"),
        pytest.param({"published": "tanuki-8b", "input": {}}, "has the keys published", id="a wrong key"),
        pytest.param(
            {"published": "tanuki-8b", "inputs": {"web-ja": 0}}, r"\['synthetic-ja', 'web-en'\]", id="missing"
        ),
        pytest.param(
            {"published": "tanuki-8b", "inputs": {"web-ja": 0, "web-ko": 1}, "without": ["web-en", "synthetic-ja"]},
            r"unknown \['web-ko'\]",
            id="unknown",
        ),
        pytest.param(
            {"published": "cosmopedia-swallow", "without": list(PUBLISHED["cosmopedia-swallow"].budgets)},
            "no input for",
            id="nothing left",
        ),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(sources, words):
    with pytest.raises(ValueError, match=words):
        pack(10, sources)
