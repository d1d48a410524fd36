"""Progress: rate, time left, who is told, and how often."""

import threading
import time

import pytest

from tasks import progress
from tasks.progress import Progress, listen, track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_rate_and_time_left_follow_the_work(clock: list[float]):
    seen: list[Progress] = []
    with listen(seen.append), track("clean ja", 100, "pages") as bar:
        for _ in range(5):
            clock[0] += 2
            bar.advance(10)
    assert [state.done for state in seen] == [10, 20, 30, 40, 50, 50]
    assert seen[3].rate == 5.0
    assert seen[3].eta_s == 12.0
    assert seen[3].fraction == 0.4
    assert str(seen[3]) == "clean ja: 40/100 pages 40%, 5 pages/s, 12 s left"
    assert str(seen[-1]) == "clean ja: 50/100 pages 50%, 5 pages/s, took 10 s"


def test_the_rate_is_of_the_last_half_minute(clock: list[float]):
    with track("x", 10_000) as bar:
        for _ in range(100):
            clock[0] += 1
            bar.advance(100)
        for _ in range(60):
            clock[0] += 1
            bar.advance(1)
            state = bar.snapshot()
    assert state.rate == pytest.approx(1.0)


def test_what_an_earlier_run_did_counts_for_the_share_not_for_the_rate(clock: list[float]):
    with track("x", 100) as bar:
        bar.resume(50)
        clock[0] += 10
        bar.advance(10)
        state = bar.snapshot()
        last = bar.snapshot(finished=True)
    assert (state.fraction, state.rate, state.eta_s) == (0.6, 1.0, 40.0)
    assert last.rate == 1.0


def test_what_was_done_while_starting_does_not_slow_the_rate(clock: list[float]):
    with track("x", 100) as bar:
        clock[0] += 25  # a compilation
        bar.resume(1)
        assert bar.snapshot().eta_s is None, "nothing is known yet"
        clock[0] += 2
        bar.advance(4)
        assert bar.snapshot().rate == 2.0


def test_without_a_total_there_is_no_time_left(clock: list[float]):
    with track("x", unit="rows") as bar:
        clock[0] += 2
        bar.advance(3, note="loss 2.5")
        state = bar.snapshot()
    assert (state.fraction, state.eta_s) == (None, None)
    assert str(state) == "x: 3 rows, 1.5 rows/s, loss 2.5"


def test_a_line_every_five_seconds_where_there_is_no_terminal(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with track("x", 1000) as bar:
        for _ in range(110):
            clock[0] += 0.1
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3, "at 5 s, at 10 s, at the end"
    assert "left" in lines[0]
    assert "took 11 s" in lines[2]


def test_a_terminal_has_one_line_that_is_rewritten(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with track("x", 4) as bar:
        for _ in range(4):
            clock[0] += 1
            bar.advance()
    text = capsys.readouterr().err
    assert text.count("\r") == 5
    assert text.count("\n") == 1


def test_listeners_are_told_a_few_times_a_second_at_most_and_at_the_end(clock: list[float]):
    seen: list[Progress] = []
    with listen(seen.append), track("x", 1000) as bar:
        for _ in range(1000):
            clock[0] += 0.001
            bar.advance()
    assert len(seen) <= 7
    assert (seen[-1].done, seen[-1].finished) == (1000, True)
    with track("y", 1) as bar:
        bar.advance()
    assert seen[-1].label == "x", "who has left is told no more"


def test_many_threads_lose_no_count():
    with track("x") as bar:
        threads = [threading.Thread(target=lambda: [bar.advance() for _ in range(1000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert bar.done == 8000


DURATIONS = [(59.4, "59 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (3600, "1 h 00 min")]


@pytest.mark.parametrize(("seconds", "text"), DURATIONS)
def test_a_duration_is_written_in_its_own_unit(seconds: float, text: str):
    assert progress._clock(seconds) == text
