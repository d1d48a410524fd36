"""Scores: what is better, what is worse, and what is noise."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.report.scores import contests, headlines


def nodes(*rows: dict[str, Any]) -> Any:
    """A lineage with one evaluation."""
    artifact = SimpleNamespace(
        manifest=SimpleNamespace(files=[SimpleNamespace(path="scores.json")]), read_json=lambda path: list(rows)
    )
    return [SimpleNamespace(artifact=artifact), SimpleNamespace(artifact=None)]


def row(model: str, value: float, **more: Any) -> dict[str, Any]:
    return {"model": model, "task": "t", "language": "ja", "metric": "accuracy", "value": value, "n": 10, **more}


def only(*rows: dict[str, Any]) -> Any:
    (contest,) = contests(nodes(*rows))
    return contest


@pytest.mark.parametrize(
    ("change", "noise"),
    [
        pytest.param(0.277, True, id="just inside 1.96 root 2 standard errors of 0.1"),
        pytest.param(0.278, False, id="just outside"),
        pytest.param(-0.278, False, id="just outside, downwards"),
    ],
)
def test_a_change_inside_its_interval_is_noise(change, noise):
    _, score = only(row("base", 0.5, stderr=0.1), row("cpt", 0.5 + change, stderr=0.1)).scores
    assert score.is_noise is noise
    assert score.is_better is (None if noise else change > 0)


def test_no_change_is_neither_noise_nor_better():
    _, score = only(row("base", 0.5, stderr=0.1), row("cpt", 0.5, stderr=0.1)).scores
    assert not score.is_noise
    assert score.is_better is None


def test_without_errors_nothing_is_called_noise():
    _, score = only(row("base", 0.5), row("cpt", 0.5001)).scores
    assert not score.is_noise
    assert score.is_better is True


@pytest.mark.parametrize(
    ("said", "metric", "better"),
    [
        (None, "accuracy", False),
        (None, "bits_per_byte", True),
        (None, "cer", True),
        (True, "cer", False),
        (False, "accuracy", True),
    ],
)
def test_less_is_better_where_the_score_says_so_or_its_name_is_known(said, metric, better):
    more = {"metric": metric} if said is None else {"metric": metric, "higher_is_better": said}
    _, score = only(row("base", 0.5, **more), row("cpt", 0.4, **more)).scores
    assert score.is_better is better


def test_bits_per_byte_change_is_relative_and_others_are_differences():
    bits = only(row("base", 2.0, metric="bits_per_byte"), row("cpt", 1.5, metric="bits_per_byte"))
    assert bits.scores[1].change == pytest.approx(-0.25)
    other = only(row("base", 2.0), row("cpt", 1.5))
    assert other.scores[1].change == pytest.approx(-0.5)


def test_the_reference_is_the_named_model_wherever_it_stands():
    contest = only(row("cpt", 0.7), row("base", 0.5))
    assert [score.change for score in contest.scores] == [pytest.approx(0.2), None]


def test_the_first_model_is_the_reference_when_the_named_one_is_absent():
    contest = only(row("a", 0.5), row("b", 0.7))
    assert [score.change for score in contest.scores] == [None, pytest.approx(0.2)]


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.5"])
def test_scores_that_are_not_numbers_are_left_out(value):
    contest = only(row("base", 0.5), row("cpt", value))
    assert [score.model for score in contest.scores] == ["base"]


def test_an_axis_covers_every_interval():
    contest = only(row("base", 0.5, stderr=0.1), row("cpt", 0.9, stderr=0.05))
    low, high = contest.span
    assert low < 0.5 - 0.196
    assert high > 0.9 + 0.098


def test_bits_per_byte_come_first_and_japanese_before_english():
    def bits(language: str, task: str = "bits_per_byte") -> list[dict[str, Any]]:
        return [
            row(m, v, metric="bits_per_byte" if task == "bits_per_byte" else "accuracy", language=language, task=task)
            for m, v in (("base", 2.0), ("cpt", 1.6), ("sft", 1.7))
        ]

    found = contests(nodes(*bits("en", "a_task"), *bits("en"), *bits("python"), *bits("ja")))
    assert [(c.task, c.language) for c in found] == [
        ("bits_per_byte", "ja"),
        ("bits_per_byte", "en"),
        ("bits_per_byte", "python"),
        ("a_task", "en"),
    ]
    lines = headlines(found)
    assert [line.title for line in lines] == ["Japanese", "English", "Python"]
    assert [lines[0].before.model, lines[0].after.model] == ["base", "cpt"]
    assert lines[0].change == pytest.approx(-0.2)


def test_the_headline_falls_back_to_the_last_model():
    found = contests(nodes(row("x", 2.0, metric="bits_per_byte"), row("y", 1.0, metric="bits_per_byte")))
    (line,) = headlines(found)
    assert (line.before.model, line.after.model, line.change) == ("x", "y", pytest.approx(-0.5))
