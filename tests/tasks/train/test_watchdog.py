import threading
import time

import pytest

from tasks.train import watchdog
from tasks.train.watchdog import Watchdog


@pytest.fixture
def bitten():
    return []


def stuck_here(said: threading.Event) -> None:
    said.wait(30)


def test_it_bites_when_a_step_is_overdue_and_shows_where_every_thread_is(bitten, capsys):
    said = threading.Event()
    other = threading.Thread(target=stuck_here, args=(said,))
    other.start()

    def bite(message):
        bitten.append(message)
        said.set()

    with Watchdog(0.2, bite) as dog:
        dog.beat(True)
        dog.beat(True)
        assert said.wait(30)
    other.join()
    assert len(bitten) == 1
    assert "(step_timeout_s=0.2; 2 steps in this process so far)" in bitten[0]
    stacks = capsys.readouterr().err
    assert "stuck_here" in stacks
    assert "most recent call first" in stacks


def test_what_comes_before_the_first_step_and_after_the_last_may_take_longer(bitten, monkeypatch):
    monkeypatch.setattr(watchdog, "PATIENCE", 1000.0)
    with Watchdog(0.05, bitten.append) as dog:
        time.sleep(0.3)
        dog.beat(False)
        time.sleep(0.3)
    assert not bitten


def test_steps_that_come_in_time_are_left_alone_and_nothing_bites_after_the_end(bitten):
    with Watchdog(5.0, bitten.append) as dog:
        for _ in range(5):
            dog.beat(True)
    assert not dog._thread.is_alive()
    assert not bitten
