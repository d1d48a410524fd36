"""Metrics and the list of saves across kills."""

import json

import pytest

from tasks.errors import DataFault
from tasks.train.journal import Journal, lasting, timings


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl", tmp_path / "saves.jsonl")
    yield journal
    journal.close()


def line(step: int, **more) -> dict:
    return {"step": step, "loss": 1 / step, "seconds": 0.5, "tokens_per_s": 10.0, "wait_s": 0.1} | more


def steps(path) -> list[int]:
    return [json.loads(text)["step"] for text in path.read_text().splitlines()]


def test_later_lines_and_a_torn_last_line_are_taken_away(tmp_path, journal):
    journal.begin(0)
    for step in range(1, 6):
        journal.step(line(step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step":6,"lo')
    again = Journal(tmp_path / "metrics.jsonl", tmp_path / "saves.jsonl")
    again.begin(3)
    again.step(line(4, loss=9.0))
    again.close()
    assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3, 4]
    assert "9.0" in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("kept", "step", "is_fine"),
    [
        pytest.param([1, 2, 3], 3, True, id="complete"),
        pytest.param([1, 2, 3], 4, False, id="the last is missing"),
        pytest.param([1, 3], 3, False, id="one between is missing"),
        pytest.param([], 0, True, id="a fresh run"),
    ],
)
def test_history_must_be_complete(tmp_path, journal, kept, step, is_fine):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line(n)) + "\n" for n in kept))
    if is_fine:
        journal.begin(step)
    else:
        with pytest.raises(DataFault, match=f"lines up to step {step}"):
            journal.begin(step)


def test_saves_are_a_record_that_survives_a_torn_line(tmp_path, journal):
    assert journal.newest_save() == 0
    for step in (3, 6, 9):
        journal.saved(step)
    assert journal.newest_save() == 9
    with (tmp_path / "saves.jsonl").open("a") as file:
        file.write('{"st')
    journal.saved(12)
    assert journal.newest_save() == 12
    journal.forget_saves(after=6)
    assert steps(tmp_path / "saves.jsonl") == [3, 6]


def test_lasting_lines_have_no_times_and_timings_have_only_those(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line(n, seconds=n)) + "\n" for n in (1, 2, 3)))
    assert lasting(path) == "".join(
        json.dumps({"step": n, "loss": 1 / n}, separators=(",", ":")) + "\n" for n in (1, 2, 3)
    )
    assert timings(path) == {
        "steps": 3,
        "step_seconds": 2,
        "tokens_per_s": 10.0,
        "train_seconds": 6,
        "data_wait_fraction": 0.05,
    }
    assert timings(tmp_path / "absent") == {}


def test_a_trainer_that_is_not_the_first_writes_nothing(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl", tmp_path / "saves.jsonl", writes=False)
    journal.begin(3)  # whose history it need not see
    journal.step({"step": 4})
    journal.before_save()
    journal.saved(4)
    journal.forget_saves(after=0)
    journal.close()
    assert not list(tmp_path.iterdir())
