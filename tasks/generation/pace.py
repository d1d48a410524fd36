"""How many requests may be in flight: more while answers come quickly, half when the server says or shows it is full.

Additive increase, multiplicative decrease, as TCP does it: +1 an answer at the start, +1 a round after the first cut.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

CUT = 0.5


class Pace:
    """A limit on concurrency that finds its own height; first come, first served. For one event loop.

    Args:
        start: requests in flight at first.
        most: never more than this.
        slow_s: an answer that took longer counts as a sign of overload.
    """

    def __init__(self, start: int, most: int, slow_s: float, clock: Callable[[], float] = time.monotonic):
        self.limit = float(max(1, min(start, most)))
        self.in_flight = 0
        self.clock = clock
        self._most = float(most)
        self._slow_s = slow_s
        self._starting = True
        self._cut_at = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a free place and hold it."""
        if self._waiting or not self._is_free():
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn  # `_admit` counts the place before it wakes us
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()
                raise
        else:
            self.in_flight += 1
        try:
            yield
        finally:
            self._leave()

    def answered(self, began: float) -> None:
        """An answer came to a request that was sent at `began`."""
        if self.clock() - began > self._slow_s:
            self.cut(began)
        else:
            self.limit = min(self._most, self.limit + (1.0 if self._starting else 1.0 / self.limit))
            self._admit()

    def cut(self, began: float) -> None:
        """Overload: halve the limit, once for all requests that were in flight at the same time."""
        if began < self._cut_at:
            return
        self._cut_at = self.clock()
        self._starting = False
        self.limit = max(1.0, self.limit * CUT)

    def _is_free(self) -> bool:
        return self.in_flight < int(self.limit)

    def _leave(self) -> None:
        self.in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._is_free():
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self.in_flight += 1
                turn.set_result(None)
