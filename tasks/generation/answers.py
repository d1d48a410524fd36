"""The durable request engine: synthesis, judging and evaluation ask models through `answer_all`.

What was answered before is read from the store; only the rest is sent, and each answer is committed when it arrives. So
a run that dies asks nothing twice but what was in flight.
"""

import asyncio
import collections.abc
import contextlib
import logging
import queue
import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tasks.artifact import Workspace
from tasks.errors import HostFault
from tasks.generation.answer_store import AnswerStore
from tasks.generation.pace import Pace
from tasks.generation.requests import Answer, DeadLetter, Failure, Generator, Overloaded, Rejected, Request, Unreachable
from tasks.progress import Bar, track

log = logging.getLogger(__name__)

Reply = Answer | DeadLetter
Replies = collections.abc.Generator[tuple[Request, Reply], None, None]  # close it to stop asking


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How hard to try. None of it changes what is asked.

    Attributes:
        start: requests in flight at first; the limit then moves between 1 and `most`.
        slow_s: an answer that takes longer halves the limit.
        backoff_s: first wait after a failure, doubled each time up to `backoff_most_s`, with jitter.
        give_up: this many dead letters in a row, with no answer between, stop the run.
        window: requests read ahead of the oldest one that is not answered.
    """

    start: int = 16
    most: int = 64
    slow_s: float = 240.0
    backoff_s: float = 0.5
    backoff_most_s: float = 30.0
    give_up: int = 64
    window: int = 4096


@dataclass
class Tally:
    """The books of one `answer_all`: every request is in exactly one of stored, answered, dead."""

    asked: int = 0
    stored: int = 0  # answered before, read from the store
    answered: int = 0
    dead: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0  # of stored and new answers
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def is_reconciled(self) -> bool:
        """Whether every request has one fate."""
        return self.asked == self.stored + self.answered + self.dead.total()

    def facts(self) -> dict[str, Any]:
        """JSON for a ledger or manifest; equal for an interrupted and an undisturbed run."""
        return {
            "asked": self.asked,
            "answered": self.stored + self.answered,
            "dead": dict(sorted(self.dead.items())),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": round(self.cost, 6),
        }


def answer_all(
    requests: Iterable[Request],
    generator: Generator,
    store: AnswerStore,
    *,
    policy: Policy | None = None,
    tally: Tally | None = None,
    label: str = "ask",
    total: int | None = None,
) -> Replies:
    """Each request with its answer or the reason why there is none, in the order of the requests.

    The generator is made ready only if something must be sent. Equal requests are asked once.

    Raises:
        HostFault: the model cannot be reached (or answers nothing but failures); everything answered is kept.
    """
    tally = tally if tally is not None else Tally()
    with contextlib.ExitStack() as stack:

        def open_bar() -> Bar:  # only when the model is there, so that the rate is the model's
            return stack.enter_context(track(label, total, unit="requests"))

        session = _Session(generator, store, policy or Policy(), tally, open_bar)
        yield from stack.enter_context(session.running(iter(requests)))
    if not tally.is_reconciled:
        raise AssertionError(f"{tally}: every request must be stored, answered or dead")


class _Session:
    """One event loop in one thread; the caller's thread takes replies from a queue."""

    def __init__(
        self, generator: Generator, store: AnswerStore, policy: Policy, tally: Tally, open_bar: Callable[[], Bar]
    ):
        self._generator = generator
        self._store = store
        self._policy = policy
        self._tally = tally
        self._open_bar = open_bar
        self._bar: Bar | None = None
        self._pace = Pace(policy.start, policy.most, policy.slow_s)
        self._readiness = asyncio.Lock()
        self._is_ready = False
        self._epoch = 0  # counts how often the generator was made ready
        self._dead_in_a_row = 0
        self._asking: dict[str, asyncio.Event] = {}
        self._replies: queue.Queue[tuple[Request, Reply] | BaseException | None] = queue.Queue()
        self._main: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextlib.contextmanager
    def running(self, requests: Iterator[Request]) -> Iterator[Iterator[tuple[Request, Reply]]]:
        thread = threading.Thread(target=lambda: asyncio.run(self._run(requests)), name="answers", daemon=True)
        thread.start()
        try:
            yield self._take()
        finally:
            if self._loop is not None and self._main is not None and thread.is_alive():
                with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
                    self._loop.call_soon_threadsafe(self._main.cancel)
            thread.join()

    def _take(self) -> Iterator[tuple[Request, Reply]]:
        while (item := self._replies.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    async def _run(self, requests: Iterator[Request]) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        outcome: BaseException | None = None
        try:
            await self._pump(requests)
        except asyncio.CancelledError:
            pass  # the caller has gone
        except BaseException as error:
            outcome = _first(error)
        try:
            await self._generator.close()
        finally:
            self._replies.put(outcome)

    async def _pump(self, requests: Iterator[Request]) -> None:
        """Keep at most `window` requests open, and hand replies over in order."""
        async with asyncio.TaskGroup() as group:
            open_: deque[tuple[Request, asyncio.Task[Reply]]] = deque()
            for request in requests:
                self._tally.asked += 1
                open_.append((request, group.create_task(self._reply(request))))
                if len(open_) >= self._policy.window:
                    await self._hand_over(*open_.popleft())
                elif len(open_) % 64 == 0:
                    await asyncio.sleep(0)  # let requests start while more are read
            while open_:
                await self._hand_over(*open_.popleft())

    async def _hand_over(self, request: Request, task: asyncio.Task[Reply]) -> None:
        self._replies.put((request, await task))

    async def _reply(self, request: Request) -> Reply:
        """The reply to one request; one that is asked already is waited for, then read from the store."""
        while (same := self._asking.get(request.digest)) is not None:
            await same.wait()
        done = self._asking[request.digest] = asyncio.Event()
        try:
            stored = await asyncio.to_thread(self._store.get, request)
            reply = stored if stored is not None else await self._ask(request)
        finally:
            del self._asking[request.digest]
            done.set()
        self._enter(reply, is_new=stored is None)
        self._shown().advance(1, note=f"{self._pace.in_flight} in flight")
        return reply

    def _shown(self) -> Bar:
        if self._bar is None:
            self._bar = self._open_bar()
        return self._bar

    def _enter(self, reply: Reply, is_new: bool) -> None:
        """Into the books."""
        tally = self._tally
        if isinstance(reply, DeadLetter):
            tally.dead[reply.reason] += 1
            return
        tally.answered += is_new
        tally.stored += not is_new
        tally.prompt_tokens += reply.prompt_tokens
        tally.completion_tokens += reply.completion_tokens
        tally.cost += reply.cost

    async def _ask(self, request: Request) -> Reply:
        """Send until answered, refused for good, or the budget of its failures is spent.

        The place is held meanwhile, so that a failing model is not asked ever more new questions.
        """
        failures: Counter[str] = Counter()
        async with self._pace.slot():
            while True:
                await self._be_ready()
                epoch, began = self._epoch, self._pace.clock()
                try:
                    answer = await self._generator.generate(request)
                except Failure as caught:
                    failure = caught
                else:
                    await asyncio.to_thread(self._store.put, request, answer)
                    self._pace.answered(began)
                    self._dead_in_a_row = 0
                    return answer
                if failure.slows_down:
                    self._pace.cut(began)
                if isinstance(failure, Unreachable):
                    self._is_ready &= epoch != self._epoch
                failures[failure.reason] += 1
                if failures[failure.reason] > failure.retries:
                    return self._bury(request, failure, failures.total())
                self._tally.retries[failure.reason] += 1
                log.debug("request %s is asked again after %s: %s", request.digest[:12], failure.reason, failure)
                await asyncio.sleep(self._delay(failure, failures[failure.reason]))

    async def _be_ready(self) -> None:
        async with self._readiness:
            if not self._is_ready:
                await self._generator.ready()
                self._shown()
                self._epoch += 1
                self._is_ready = True

    def _delay(self, failure: Failure, attempt: int) -> float:
        wait = min(self._policy.backoff_most_s, self._policy.backoff_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        if isinstance(failure, Overloaded) and failure.retry_after_s is not None:
            return max(wait, min(failure.retry_after_s, 10 * self._policy.backoff_most_s))
        return wait

    def _bury(self, request: Request, failure: Failure, attempts: int) -> DeadLetter:
        log.warning("request %s is given up after %d attempts: %s", request.digest[:12], attempts, failure)
        self._dead_in_a_row += not isinstance(failure, Rejected)
        if self._dead_in_a_row >= self._policy.give_up:
            raise HostFault(
                f"{self._dead_in_a_row} requests in a row were given up, the last with {failure.reason}: {failure}. "
                f"A model that answers nothing is stopped early ({self._tally.answered} answers of this run are kept). "
                "Look at the server's log, then run the same command again: it asks only what is missing."
            )
        return DeadLetter(failure.reason, str(failure), attempts)


def _first(error: BaseException) -> BaseException:
    """The error behind a task group's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def note_totals(workspace: Workspace) -> None:
    """Tokens and cost of all units, also of those that an earlier run finished."""
    facts = [record.facts for record in workspace.units()]
    totals = {name: sum(fact.get(name, 0) for fact in facts) for name in ("prompt_tokens", "completion_tokens", "cost")}
    workspace.note(
        tokens=totals["completion_tokens"],
        prompt_tokens=totals["prompt_tokens"],
        cost=round(totals["cost"], 6),
    )
