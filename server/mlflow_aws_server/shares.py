"""Fair shares: what one principal may take while others want something too."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import ContextVar

from mlflow_aws_server.errors import OverloadedError
from mlflow_aws_server.limits import REQUESTS_IN_FLIGHT, REQUESTS_PER_MINUTE

CALLER: ContextVar[str] = ContextVar("mlflow_aws_caller", default="")
"""The principal for whom the current task works; empty for the server itself."""

LONGEST_WAIT_SECONDS = 15.0
"""After that, who waits for its turn is told to come again."""
LONGEST_DELAY_SECONDS = 30.0
"""The longest that a call is held back because its principal's come too fast."""

# As many calls as a principal may make at once, at its pace, after a pause.
_BURST_SECONDS = 10.0
# A refusal leaves a line in the audit log, and is answered at once, whoever waits.
_REFUSAL_COSTS = 100
# The first is answered at once. What takes longest to judge takes 3 ms, so most of the time is others'.
_BETWEEN_ANSWERS_SECONDS = 0.005
_MOST_REMEMBERED = 4096
_SECONDS_BETWEEN_WARNINGS = 60.0

_log = logging.getLogger(__name__)


class Turns:
    """So many `places`, at most `each` of them one principal's; those who wait are let in by turns.

    A principal with a thousand waiting calls thus stands before another's only one by one call, not by
    a thousand.
    """

    def __init__(self, what: str, *, places: int | None, each: int, queue: int) -> None:
        """`what` is waited for, as a refusal names it; without `places` only `each` counts.

        At most `queue` calls of one principal wait.
        """
        self._what = what
        self._free = math.inf if places is None else places
        self._each = each
        self._queue = queue
        self._held: dict[str, int] = {}
        # Who is let in next comes first.
        self._lines: OrderedDict[str, deque[tuple[asyncio.Future[None], float]]] = OrderedDict()
        self._expiry: asyncio.TimerHandle | None = None

    def enter_now(self, who: str) -> bool:
        """Take a place, if `who` need not wait for one."""
        held = self._held.get(who, 0)
        if held >= self._each or self._free <= 0:
            return False
        self._held[who] = held + 1
        self._free -= 1
        return True

    async def enter(self, who: str) -> None:
        """Take a place, in turn.

        Raises:
            OverloadedError: too many calls of this principal wait already, or this one waited too long.
        """
        if self.enter_now(who):
            return
        line = self._lines.setdefault(who, deque())
        if len(line) >= self._queue:
            raise OverloadedError(
                f"{len(line)} calls of {who or 'the server'} are already waiting for {self._what}; "
                f"at most {self._queue} may"
            )
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        line.append((turn, loop.time() + LONGEST_WAIT_SECONDS))
        if self._expiry is None:
            self._expiry = loop.call_later(1.0, self._expire)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(who)
            raise

    def leave(self, who: str) -> None:
        """Give a place back."""
        held = self._held[who] - 1
        if held:
            self._held[who] = held
        else:
            del self._held[who]
        self._free += 1
        if self._lines:
            self._let_in()

    def close(self) -> None:
        """Tell all who wait to come again."""
        for line in self._lines.values():
            for turn, _ in line:
                if not turn.done():
                    turn.set_exception(OverloadedError("the server is shutting down"))
        self._lines.clear()

    def _let_in(self) -> None:
        passed_over = []
        while self._free > 0 and self._lines:
            who, line = self._lines.popitem(last=False)
            while line and line[0][0].done():
                line.popleft()
            if not line:
                continue
            if not self.enter_now(who):
                passed_over.append((who, line))
                continue
            line.popleft()[0].set_result(None)
            if line:
                self._lines[who] = line
        for who, line in reversed(passed_over):
            self._lines[who] = line
            self._lines.move_to_end(who, last=False)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for who, line in list(self._lines.items()):
            while line and (line[0][0].done() or line[0][1] <= now):
                turn, _ = line.popleft()
                if not turn.done():
                    turn.set_exception(
                        OverloadedError(
                            f"calls of {who or 'the server'} have waited for {self._what} for "
                            f"{LONGEST_WAIT_SECONDS:.0f} s"
                        )
                    )
            if not line:
                del self._lines[who]
        self._expiry = loop.call_later(1.0, self._expire) if self._lines else None


class Shares:
    """What one principal may take of one process: requests in flight, and requests per minute.

    Whoever has more in flight waits, and whoever is faster is slowed down; both only behind their own
    calls. A call that would have to wait too long is refused, for which the log has a line once a minute.
    """

    def __init__(
        self,
        *,
        in_flight: int = REQUESTS_IN_FLIGHT.most,
        per_minute: int = REQUESTS_PER_MINUTE.most,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Both are a task's, of which this process has its part."""
        self._in_flight = Turns(
            f"one of its {max(1, in_flight // workers)} requests in flight to end (server.requests_in_flight "
            f"= {in_flight}, among {workers} worker(s))",
            places=None,
            each=max(1, in_flight // workers),
            queue=4 * in_flight,
        )
        self._answers = Turns("an answer of the gate", places=1, each=1, queue=REQUESTS_IN_FLIGHT.most)
        self._interval = 60.0 * workers / per_minute
        self._pace = f"server.requests_per_minute = {per_minute}, among {workers} worker(s)"
        self._clock = clock
        # When each principal's next request is due; who was quiet for a while may have several at once.
        self._due: OrderedDict[str, float] = OrderedDict()
        self._refused: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def enter_now(self, who: str) -> bool:
        """Begin a request of this principal, if it need not wait; `leave` must follow."""
        now = self._clock()
        due = self._due.get(who)
        if due is None:
            return False
        quiet = now - _BURST_SECONDS
        due = (due if due > quiet else quiet) + self._interval
        if due > now or not self._in_flight.enter_now(who):
            return False
        self._due[who] = due
        CALLER.set(who)
        return True

    async def enter(self, who: str) -> None:
        """Begin a request of this principal; `leave` must follow.

        Raises:
            OverloadedError: it is beyond the principal's share.
        """
        delay = self._take(who)
        try:
            if delay > LONGEST_DELAY_SECONDS:
                raise _too_fast(who, delay, self._pace)
            await self._in_flight.enter(who)
        except OverloadedError as refusal:
            self._note(who, refusal)
            raise
        CALLER.set(who)
        if delay > 0:
            try:
                await asyncio.sleep(delay)
            except BaseException:
                self._in_flight.leave(who)
                raise

    def leave(self, who: str) -> None:
        """End a request."""
        self._in_flight.leave(who)

    async def answer(self, who: str) -> None:
        """Wait for this principal's turn to be judged at length, or answered without work of others' threads.

        Nothing is waited for there, so a loop of such requests would leave no time for others' work.

        Raises:
            OverloadedError: too many wait, or this one waited too long.
        """
        await self._answers.enter(who)
        asyncio.get_running_loop().call_later(_BETWEEN_ANSWERS_SECONDS, self._answers.leave, who)

    def refused(self, who: str) -> None:
        """Count a request that was refused for another reason: it costs as much as many."""
        now = self._clock()
        due = self._next(who, now) + _REFUSAL_COSTS * self._interval
        self._due[who] = min(due, now + LONGEST_DELAY_SECONDS)

    def _take(self, who: str) -> float:
        """The seconds until `who` may have its next request, which is taken unless that is too long."""
        now = self._clock()
        due = self._next(who, now) + self._interval
        if due - now <= LONGEST_DELAY_SECONDS:
            self._due[who] = due
            if len(self._due) > _MOST_REMEMBERED:
                self._due.popitem(last=False)
        return due - now

    def _next(self, who: str, now: float) -> float:
        return max(self._due.get(who, -math.inf), now - _BURST_SECONDS)

    def _note(self, who: str, refusal: OverloadedError) -> None:
        now = self._clock()
        count, logged = self._refused.pop(who, (0, -math.inf))
        count += 1
        if now - logged >= _SECONDS_BETWEEN_WARNINGS:
            _log.warning("%d requests of %s refused (429): %s", count, who, refusal.message)
            count, logged = 0, now
        self._refused[who] = count, logged
        if len(self._refused) > _MOST_REMEMBERED:
            self._refused.popitem(last=False)


def _too_fast(who: str, delay: float, pace: str) -> OverloadedError:
    refusal = OverloadedError(
        f"requests of {who} come faster than its share: this one would have to wait {delay:.1f} s, and at "
        f"most {LONGEST_DELAY_SECONDS:.0f} s are waited ({pace})"
    )
    refusal.retry_after = math.ceil(delay - LONGEST_DELAY_SECONDS) + 1
    return refusal
