"""The account of a run's time: complete whatever happened, and each second under the right cause."""

import json
import os
import subprocess
import sys
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.train import goodput
from tasks.train.goodput import CAUSES, Laps, account, elapsed, mark, read_marks


def at(seconds: float, what: str, **facts) -> dict:
    """A mark of the first boot; its wall clock is of no use."""
    return {"what": what, "boot": "a", "mono": seconds, "wall": 0.0, **facts}


RUN = [
    at(100, "launch"),
    at(104, "start"),
    at(110, "resume", step=0),
    at(131, "steps", step=10, spent={"compile": 8.0, "step": 10.0, "data_wait": 2.0, "save_stall": 1.0}),
    at(141, "steps", step=14, spent={"step": 9.0, "data_wait": 1.0}),
    at(144, "end", code=-9),
    at(204, "launch"),
    at(205, "start"),
    at(211, "resume", step=10, spent={"restore": 4.0}),
    at(222, "steps", step=20, spent={"compile": 1.0, "step": 10.0}),
    at(225, "end", reason="done"),
    at(226, "end", code=0),
]


def seconds(*marks: dict) -> dict[str, float]:
    return {cause: value for cause, value in account(marks).seconds.items() if value}


def test_a_killed_and_resumed_run_by_hand():
    assert seconds(*RUN) == {
        "step": 20.0,
        "lost": 9.0 + 1.0 + 3.0,  # steps 11 to 14 with their wait, and what was under way when the kill came
        "data_wait": 2.0,
        "save_stall": 1.0,
        "compile": 9.0,
        "restore": 4.0,
        "start_up": 4.0 + 6.0 + 1.0 + 2.0,
        "waiting": 60.0,
        "other": 3.0 + 1.0,
    }
    found = account(RUN)
    assert (found.total, found.launches, found.ends) == (126.0, 2, {"-9": 1, "0": 1})


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        pytest.param([], {}, id="nothing yet"),
        pytest.param([at(5, "launch")], {}, id="no time has passed"),
        pytest.param([at(0, "launch"), at(3, "end", code=-9)], {"start_up": 3.0}, id="killed before it began"),
        pytest.param([at(0, "launch"), at(3, "end", code=78)], {"other": 3.0}, id="ended by itself before it began"),
        pytest.param([at(0, "steps", step=1), at(7, "launch")], {"waiting": 7.0}, id="flow and trainer killed at once"),
        pytest.param(
            [at(0, "start"), at(2, "steps", spent={"step": 4.0, "compile": 4.0})], {"step": 1.0, "compile": 1.0},
            id="no more is spent than passed",
        ),
        pytest.param([at(0, "start"), at(2, "steps", spent={"fun": 1.0})], {"other": 2.0}, id="an unknown cause"),
    ],
)  # fmt: skip
def test_what_marks_mean(marks, expected):
    assert seconds(*marks) == expected


def test_money_and_energy_are_not_paid_for_machines_that_are_waited_for():
    facts = account(RUN).facts(4, 3.0, 500.0)
    assert facts["goodput"] == pytest.approx(20 / 126, abs=1e-4)
    hours = 4 * (126 - 60) / 3600
    assert facts["device_hours"] == pytest.approx(hours, abs=1e-4)
    assert facts["usd"] == pytest.approx(hours * 3, abs=1e-4)
    assert facts["kwh"] == pytest.approx(hours * 0.5, abs=1e-4)
    assert not {"usd", "kwh"} & account(RUN).facts(4, None, None).keys(), "what is not known is not said"
    assert account([]).facts(4, 1.0, 1.0)["goodput"] == 0


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        pytest.param(("a", 10, 500), ("a", 12, 100), 2, id="the wall clock was set back: nobody looks"),
        pytest.param(("a", 10, 500), ("a", 12, 1e9), 2, id="the wall clock was set ahead: nobody looks"),
        pytest.param(("a", 1e6, 500), ("b", 3, 560), 60, id="a reboot: the wall clock"),
        pytest.param(("a", 1e6, 500), ("b", 3, 400), 0, id="a reboot and a clock set back: nothing"),
    ],
)
def test_clocks_that_jump(before, after, passed):
    marks = [dict(zip(("boot", "mono", "wall"), clock, strict=True)) for clock in (before, after)]
    assert elapsed(*marks) == passed


SPENT = st.dictionaries(st.sampled_from([*CAUSES, "unknown"]), st.floats(0, 50), max_size=4)
MARK = st.builds(
    dict,
    what=st.sampled_from(sorted(goodput.REST)),
    boot=st.sampled_from("ab"),
    mono=st.floats(0, 1000),
    wall=st.floats(0, 1000),
    step=st.integers(0, 9),
    spent=SPENT,
) | st.builds(lambda code, mono: at(mono, "end", code=code), st.sampled_from([-9, 0, 75]), st.floats(0, 1000))


@given(st.lists(MARK, max_size=25))
def test_causes_always_add_up_to_the_time_that_passed(marks):
    found = account(marks)
    passed = sum(elapsed(a, b) for a, b in pairwise(marks))
    assert found.total == pytest.approx(passed, abs=1e-6)
    assert all(value >= 0 for value in found.seconds.values())


def test_marks_survive_kills_and_other_processes(tmp_path):
    path = tmp_path / "goodput.jsonl"
    assert read_marks(path) == []
    mark(path, "launch")
    with path.open("a") as file:
        file.write('{"what":"steps","step":3,"spe')
    code = (
        "import sys; from pathlib import Path; from tasks.train.goodput import mark; mark(Path(sys.argv[1]), 'start')"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=os.environ | {"PYTHONPATH": "."})
    mark(path, "end", code=0, reason="日本語")
    found = read_marks(path)
    assert [line["what"] for line in found] == ["launch", "start", "end"]
    assert [line["mono"] for line in found] == sorted(line["mono"] for line in found), "one clock for all processes"
    assert account(found).total == pytest.approx(time.monotonic() - found[0]["mono"], abs=1.0)


def test_laps_become_a_mark_when_it_is_time(tmp_path, monkeypatch):
    path = tmp_path / "goodput.jsonl"
    clock = iter([0.0, 0.4, 0.9, 1.0, 1.5])
    monkeypatch.setattr(goodput.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(goodput, "now", lambda: {"boot": "a", "mono": 0, "wall": 0})
    laps = Laps(path)
    laps.lap("data_wait")
    laps.reached(1)
    laps.lap("step")
    laps.reached(2)
    assert not path.exists(), "0.9 s"
    laps.lap("step")
    laps.reached(3)
    (line,) = map(json.loads, path.read_text().splitlines())
    assert (line["step"], line["spent"]) == (3, {"data_wait": 0.4, "step": 0.6}), "1.0 s"
    laps.lap("save_stall")
    laps.reached(3, must_write=True)
    assert read_marks(path)[1]["spent"] == {"save_stall": 0.5}
