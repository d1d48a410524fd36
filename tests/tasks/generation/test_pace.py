"""The limit on concurrency rises with good answers and falls once for each overload."""

import asyncio

from tasks.generation.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_rises_by_one_an_answer_until_the_first_cut_then_by_one_a_round():
    clock = Clock()
    pace = Pace(4, 100, slow_s=10, clock=clock)
    for _ in range(4):
        pace.answered(clock.now)
    assert pace.limit == 8
    clock.now = 1
    pace.cut(0.5)
    assert pace.limit == 4
    for _ in range(4):
        pace.answered(1.0)
    assert 4.9 < pace.limit <= 5


def test_one_overload_halves_once_for_all_that_were_in_flight():
    clock = Clock()
    pace = Pace(32, 64, slow_s=10, clock=clock)
    clock.now = 5
    for began in (1, 2, 3, 4):
        pace.cut(began)
    assert pace.limit == 16
    clock.now = 6
    pace.cut(5.5)  # sent after the cut
    assert pace.limit == 8


def test_a_slow_answer_is_a_sign_of_overload_and_one_just_in_time_is_not():
    clock = Clock()
    pace = Pace(8, 64, slow_s=10, clock=clock)
    clock.now = 10
    pace.answered(0.0)
    assert pace.limit == 9
    clock.now = 10.1
    pace.answered(0.0)
    assert pace.limit == 4.5


def test_it_stays_between_one_and_the_most():
    clock = Clock()
    pace = Pace(50, 3, slow_s=10, clock=clock)
    assert pace.limit == 3
    pace.answered(0.0)
    assert pace.limit == 3
    for second in range(1, 10):
        clock.now = second
        pace.cut(second - 0.5)
    assert pace.limit == 1


async def test_places_are_given_in_order_and_a_cancelled_waiter_takes_none():
    pace = Pace(1, 1, slow_s=10)
    order: list[int] = []
    release = asyncio.Event()

    async def worker(number: int) -> None:
        async with pace.slot():
            order.append(number)
            await release.wait()

    workers = [asyncio.create_task(worker(i)) for i in range(4)]
    await asyncio.sleep(0.01)
    workers[1].cancel()
    release.set()
    await asyncio.gather(*workers, return_exceptions=True)
    assert order == [0, 2, 3]
    assert pace.in_flight == 0


async def test_a_risen_limit_lets_waiters_in():
    pace = Pace(1, 3, slow_s=10)
    release = asyncio.Event()

    async def worker() -> None:
        async with pace.slot():
            await release.wait()

    workers = [asyncio.create_task(worker()) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert pace.in_flight == 1
    pace.answered(pace.clock())
    await asyncio.sleep(0.01)
    assert pace.in_flight == 2
    release.set()
    await asyncio.gather(*workers)
