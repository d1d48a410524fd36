"""The classify flow as a graph: examples of one kind, then classifier, scores and the cut."""

import pytest

from flows.graph import Resolver, Step
from flows.registry import FLOWS


@pytest.mark.parametrize(("preset", "stage"), [("tiny", "contrast"), ("tiny-rubric", "annotate")])
def test_each_step_reads_the_one_before_and_the_same_documents(preset, stage):
    outputs = Resolver(FLOWS, {}).outputs("classify", preset)
    assert list(outputs) == ["examples", "classifier", "scores", "main"]
    assert [step.stage.name for step in outputs.values()] == [stage, "classifier", "score", "cut"]
    cut, scores = outputs["main"], outputs["scores"]
    assert cut.parents["scores"] is scores
    assert scores.parents["classifier"] is outputs["classifier"]
    assert outputs["classifier"].parents["examples"] is outputs["examples"]
    assert isinstance(cut.parents["documents"], Step)
    assert cut.parents["documents"] is scores.parents["documents"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"contrast": None}, id="neither"),
        pytest.param(
            {"annotate": {"documents": "d", "teacher": "t", "language": "en", "max_documents": 1}}, id="both at once"
        ),
    ],
)
def test_examples_are_of_exactly_one_kind(changes):
    with pytest.raises(ValueError, match="Fill exactly one"):
        Resolver(FLOWS, {("classify", "tiny"): changes}).outputs("classify", "tiny")


def test_an_earlier_dump_can_be_the_reference_by_its_url():
    changes = {"cut.reference": "/store/score/last-0123456789ab", "cut.max_drift": 0.25}
    outputs = Resolver(FLOWS, {("classify", "tiny"): changes}).outputs("classify", "tiny")
    assert outputs["main"].parents["reference"] == "/store/score/last-0123456789ab"
