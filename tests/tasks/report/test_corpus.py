"""Funnels and mixtures: the numbers are the manifests' and add up."""

import pyarrow as pa
import pytest

from tasks.pack.config import Phase
from tasks.report.config import ReportConfig
from tasks.report.corpus import Budget, funnels, language_name, mixtures, sketches
from tasks.report.lineage import trace
from tasks.report.report import render
from tests.tasks.artifacts import artifact
from tests.tasks.ingest.dedup.small_corpora import CONFIG, dedup, edited, prose
from tests.tasks.ingest.dedup.small_corpora import document as dedup_document
from tests.tasks.training_data import document, make_pack, make_tokenizer


def test_clean_and_dedup_of_a_corpus_are_one_funnel(factory_inputs):
    titles = [funnel.title for funnel in funnels(trace(factory_inputs))]
    assert "clean/tiny-ja → dedup/tiny-ja" in titles
    assert "dedup/tiny-ja" not in titles
    assert len(titles) == len(set(titles))


def test_every_row_read_is_kept_or_dropped_for_a_reason_that_is_shown(factory_inputs):
    for funnel in funnels(trace(factory_inputs)):
        assert funnel.rows_in == funnel.rows_out + sum(reason.rows for reason in funnel.reasons), funnel.title
        assert [reason.rows for reason in funnel.reasons] == sorted((r.rows for r in funnel.reasons), reverse=True)


def test_shares_are_of_the_rows_first_read(factory_inputs):
    funnel = next(f for f in funnels(trace(factory_inputs)) if f.language == "ja" and f.stage == "dedup")
    assert [(level.rows_in, level.rows_out) for level in funnel.levels] == [(488, 258), (258, 205)]
    assert [level.of_first for level in funnel.levels] == [pytest.approx(258 / 488), pytest.approx(205 / 488)]


def test_evaluation_and_release_are_no_funnels(factory_inputs):
    assert not {funnel.stage for funnel in funnels(trace(factory_inputs))} & {"eval", "release", "train", "teacher"}


def test_mixtures_hold_their_sources_in_order_and_shares_that_sum_to_one(factory_inputs):
    found = {mixture.node.name: mixture for mixture in mixtures(trace(factory_inputs))}
    assert set(found) == {"tiny-pretrain", "tiny-cpt", "tiny-sft"}
    cpt = found["tiny-cpt"]
    assert [item.name for item in cpt.ingredients][:2] == ["web-ja", "web-en"]
    assert sum(item.share or 0 for item in cpt.ingredients) == pytest.approx(1)
    assert found["tiny-sft"].kind == "chat"
    parts = cpt.bar({"ja": "c0", "en": "c1", "python": "c2"})
    assert [part.kind for part in parts][:3] == ["c0", "c1", "c2"]
    assert sum(part.share for part in parts) == pytest.approx(1)


def test_a_mixture_shows_what_was_planned_where_it_has_phases_or_got_something_else(tmp_path):
    rows = {"a": [document("one two three " * 9)], "b": [document("the quick brown fox " * 9)]}
    tokenizer = make_tokenizer(tmp_path)
    whole = make_pack(tmp_path, tokenizer, rows)
    held = [source["budget_tokens"] for source in whole.read_json("mixture.json")["sources"]]
    phases = (
        Phase(name="first", share=3, weights={"a": 1}),
        Phase(name="last", share=1, weights={"a": 1, "b": 1}),
    )
    staged = make_pack(tmp_path, tokenizer, rows, total_tokens=800, phases=phases)
    short = make_pack(tmp_path, tokenizer, rows, total_tokens=10**6, on_shortfall="spread")
    as_planned, by_phase, missing = (mixtures(trace({"data": made}))[0].budgets for made in (whole, staged, short))
    assert as_planned == ()
    assert by_phase == (
        Budget("first", "a", 600, 600),
        Budget("last", "a", 100, 100),
        Budget("last", "b", 100, 100),
    )
    assert missing == (Budget("", "a", 333_333, 100 * held[0]), Budget("", "b", 666_667, 100 * held[1]))


def test_an_unknown_language_keeps_its_code():
    assert language_name("ja") == "Japanese"
    assert language_name("tlh") == "tlh"


def test_what_deduplication_finds_is_shown_for_pairs_that_count(tmp_path):
    rows = [dedup_document(i, prose(i)) for i in range(8)] + [dedup_document(9, edited(prose(1), 1, 3))]
    made = dedup(tmp_path, rows, CONFIG.with_changes({"recall_pairs": 60}))
    (sketch,) = sketches(trace({"others.0": made}))
    assert [row["from"] for row in sketch.strata] == [0.8, 0.85, 0.9, 0.95]
    assert (sketch.precision, sketch.largest["documents"]) == (1.0, 2)
    page = render(ReportConfig(), {"others.0": made})
    assert "What deduplication finds" in page
    assert "0.80–0.85" in page
    silent = dedup(tmp_path / "silent", rows, CONFIG)
    assert sketches(trace({"others.0": silent})) == []
    assert "What deduplication finds" not in render(ReportConfig(), {"others.0": silent})


def test_decontaminate_ends_the_funnel_of_its_own_corpus_and_not_of_what_it_was_compared_with(tmp_path):
    rows = pa.table({"id": ["1", "2"]})

    def made(stage, name, **parents):
        return artifact(tmp_path, stage, name, {f"{name}.parquet": rows}, parents=parents, drops={"gone": 1})

    own, other = (made("dedup", name, docs=made("clean", name)) for name in ("own", "other"))
    cleared = made("decontaminate", "own", docs=own, **{"heldout.0": other})
    synthetic = made("decontaminate", "synth", docs=made("synth", "qa"), **{"heldout.0": cleared})
    titles = {funnel.title for funnel in funnels(trace({"data": synthetic}))}
    assert titles == {
        "clean/own → dedup/own → decontaminate/own",
        "clean/other → dedup/other",
        "synth/qa",
        "decontaminate/synth",
    }
