"""`explain`: hit, repair, resume or run, and why."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.artifact import Artifact, Stage, Workspace, produce
from tasks.artifact.catalog import explain, render_verdict
from tasks.artifact.lease import hold
from tasks.artifact.manifest import MANIFEST, Manifest
from tasks.config import StageConfig, input_field
from tests.tasks.artifact.counting_stage import COUNT, CountingConfig

CONFIG = CountingConfig(shards=3)


class Rule(StageConfig):
    name: str
    limit: int


class RichConfig(StageConfig):
    min_chars: int = 400
    rules: tuple[Rule, ...] = (Rule(name="short", limit=3), Rule(name="long", limit=9))
    docs: str = input_field("Documents.", default="ingest/tiny")
    text: str = "x"


def rich(ws: Workspace, config: RichConfig, inputs: dict[str, Artifact]) -> None:
    with ws.unit("all") as unit:
        unit.write_json("config.json", config.semantic())
    ws.note(tokens=1_000, cost=2.5)


RICH = Stage("rich", "1", rich, ("tests.tasks.artifact.counting_stage",))


def stops_after(shards: int) -> Stage:
    def run(ws: Workspace, config: CountingConfig, inputs: dict[str, Artifact]) -> None:
        COUNT.run(ws, config.with_changes({"shards": shards}), inputs)
        ws.expect_units(config.shards + 1)
        raise KeyboardInterrupt

    return replace(COUNT, run=run)


def test_the_four_verdicts(any_store: str):
    first = explain(any_store, COUNT, "tiny", CONFIG, {})
    assert (first.state, first.reasons) == ("run", ("nothing of this stage is finished yet",))
    assert first.seconds is None
    with pytest.raises(KeyboardInterrupt):
        produce(any_store, stops_after(2), "tiny", CONFIG, {})
    # 2 shards and the total of 2 shards are done; 4 are expected
    second = explain(any_store, COUNT, "tiny", CONFIG, {})
    assert (second.state, second.done_units, second.total_units) == ("resume", 3, 4)
    assert render_verdict(second).startswith("3 of 4 units done")
    made = produce(any_store, COUNT, "tiny", CONFIG, {})
    hit = explain(any_store, COUNT, "tiny", CONFIG, {})
    assert (hit.state, hit.artifact, hit.reasons, hit.warnings) == ("hit", made, (), ())
    assert render_verdict(hit) == ""
    assert hit.seconds == 0


def test_a_damaged_artifact_is_repaired_and_the_plan_says_which_file(store: str):
    made = produce(store, COUNT, "tiny", CONFIG, {})
    Path(made.file_url("rows/00001.json")).unlink()
    verdict = explain(store, COUNT, "tiny", CONFIG, {})
    assert (verdict.state, verdict.done_units, verdict.total_units) == ("repair", 3, 4)
    assert "data/rows/00001.json: missing" in render_verdict(verdict)
    (Path(made.url) / MANIFEST).write_bytes(b"{}")
    assert explain(store, COUNT, "tiny", CONFIG, {}).state == "repair"


def test_the_reasons_are_the_fields_that_differ_from_the_nearest_artifact(store: str):
    docs = produce(store, COUNT, "docs", CONFIG, {})
    produce(store, RICH, "far", RichConfig(min_chars=1, text="y"), {"docs": docs})
    near = produce(store, RICH, "near", RichConfig(), {"docs": docs})
    other = produce(store, COUNT, "docs", CountingConfig(shards=4), {})
    config = RichConfig(min_chars=300).with_changes({"rules": [{"name": "short", "limit": 4}], "text": "z" * 100})
    verdict = explain(store, RICH, "near", config, {"docs": other, "more": docs})
    assert verdict.state == "run"
    assert verdict.nearest == near.url
    assert verdict.reasons[:5] == (
        "min_chars: 400 -> 300",
        "rules.0.limit: 3 -> 4",
        "rules.1.limit: 9 -> (absent)",
        'rules.1.name: "long" -> (absent)',
        f'text: "x" -> "{"z" * 58}…',
    )
    changed = (
        f"parent docs: content changed ({docs.manifest.content_digest[:8]} -> {other.manifest.content_digest[:8]})"
    )
    assert verdict.reasons[5:] == (changed, "parent more: added")
    assert (verdict.tokens, verdict.cost) == (1000, 2.5)
    assert verdict.seconds == near.manifest.seconds


def test_a_new_version_and_a_new_name_are_reasons(store: str):
    made = produce(store, COUNT, "tiny", CONFIG, {})
    assert explain(store, replace(COUNT, version="2"), "tiny", CONFIG, {}).reasons == ("version: 1 -> 2",)
    renamed = explain(store, COUNT, "other", CONFIG, {})
    assert renamed.reasons == ("the same work is finished under the name 'tiny'",)
    assert renamed.nearest == made.url


def test_other_code_is_a_run_of_a_cheap_stage_and_a_warning_of_an_expensive_one(store: str):
    made = produce(store, COUNT, "tiny", CONFIG, {})
    cheap = replace(COUNT, code=("tests.tasks.artifact.counting_stage", "tasks.records"))
    verdict = explain(store, cheap, "tiny", CONFIG, {})
    assert (verdict.state, verdict.done_units) == ("run", 0)
    assert verdict.reasons[0].startswith("code changed since 20")
    assert "same version '1'" in verdict.reasons[0]
    expensive = explain(store, replace(cheap, expensive=True), "tiny", CONFIG, {})
    assert (expensive.state, expensive.artifact) == ("hit", made)
    assert "WARNING code changed since" in render_verdict(expensive)


def test_operational_fields_change_no_verdict(store: str):
    produce(store, COUNT, "tiny", CONFIG, {})
    assert explain(store, COUNT, "tiny", CONFIG.with_changes({"sleep_s": 99.0}), {}).state == "hit"
    assert explain(store, COUNT, "tiny", CONFIG.with_changes({"modulus": 4}), {}).state == "run"


def test_a_step_that_is_being_made_says_by_whom(store: str):
    url = explain(store, COUNT, "tiny", CONFIG, {}).url
    with hold(url):
        assert "being made now by" in explain(store, COUNT, "tiny", CONFIG, {}).warnings[0]
    assert explain(store, COUNT, "tiny", CONFIG, {}).warnings == ()


def test_the_estimate_is_for_what_is_left(store: str):
    made = produce(store, COUNT, "tiny", CONFIG, {})
    path = Path(made.url, MANIFEST)
    path.write_bytes(Manifest.model_validate(made.manifest.model_dump() | {"seconds": 7200.0, "cost": 8.0}).to_json())
    Path(made.file_url("rows/00001.json")).unlink()
    verdict = explain(store, COUNT, "tiny", CONFIG, {})
    assert (verdict.seconds, verdict.cost) == (1800.0, 2.0)
    assert "about 30 min, 2.00 USD" in render_verdict(verdict)


def test_explain_changes_nothing(store: str):
    made = produce(store, COUNT, "tiny", CONFIG, {})
    Path(made.file_url("rows/00001.json")).unlink()
    before = {path: path.stat().st_mtime_ns for path in Path(store).rglob("*")}
    explain(store, COUNT, "tiny", CONFIG, {})
    explain(store, COUNT, "other", CONFIG, {})
    assert {path: path.stat().st_mtime_ns for path in Path(store).rglob("*")} == before


def test_a_damaged_neighbour_does_not_stop_a_plan(store: str):
    made = produce(store, COUNT, "tiny", CONFIG, {})
    Path(made.url, MANIFEST).write_text(json.dumps({"seal": "x"}))
    assert explain(store, COUNT, "new", CountingConfig(shards=9), {}).state == "run"
