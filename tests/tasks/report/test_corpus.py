"""Funnels and mixtures: the numbers are the manifests' and add up."""

import pyarrow as pa
import pytest

from tasks.report.corpus import funnels, language_name, mixtures
from tasks.report.lineage import trace
from tests.tasks.artifacts import artifact


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


def test_an_unknown_language_keeps_its_code():
    assert language_name("ja") == "Japanese"
    assert language_name("tlh") == "tlh"


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
