"""Tokens that are fetched once, shared by all threads, and renewed before they end."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

# A clock may be wrong by this much, and a request may take this long to arrive.
_MARGIN = 30.0
# The server's clock may be five minutes ahead.
_LONGEST_LEAD = 360.0
_RETRY = 10.0
_MOST = 32


@dataclass(frozen=True)
class Token:
    """A bearer token and the Unix times between which it holds."""

    value: str = field(repr=False)
    issued: float
    expires: float

    @property
    def renew_at(self) -> float:
        """When to get the next one: half its life before its end, at most six minutes."""
        return self.expires - max(_MARGIN, min(_LONGEST_LEAD, (self.expires - self.issued) / 2))

    def holds(self, now: float) -> bool:
        """Whether it can still be sent."""
        return now < self.expires - _MARGIN


class _Flight:
    # One fetch under way; whoever else wants the same token waits for it.
    def __init__(self) -> None:
        self.landed = threading.Event()
        self.token: Token | None = None
        self.error: Exception | None = None


class TokenCache:
    """One token per key.

    However many threads ask, one fetches. While it renews, the others go on with the token that still holds;
    if renewing fails, so do all, until the token ends, with another try every ten seconds. A forked child
    keeps the tokens and waits for no fetch of its parent.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tokens: dict[Hashable, Token] = {}
        self._not_before: dict[Hashable, float] = {}
        self._after_fork()
        reset = weakref.WeakMethod(self._after_fork)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    def _after_fork(self) -> None:
        # The threads that held the lock or were fetching do not exist in the child.
        self._lock = threading.Lock()
        self._flights: dict[Hashable, _Flight] = {}

    def get(self, key: Hashable, fetch: Callable[[], Token]) -> Token:
        """The token for `key`, from `fetch` if there is none that holds; what `fetch` raises is raised."""
        while True:
            with self._lock:
                held, now = self._tokens.get(key), self._clock()
                holds = held is not None and held.holds(now)
                if held is not None and holds and now < max(held.renew_at, self._not_before.get(key, 0.0)):
                    return held
                flight = self._flights.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._flights[key] = _Flight()
                elif held is not None and holds:
                    return held
            if leads:
                return self._lead(key, flight, fetch, held if holds else None)
            flight.landed.wait()
            if flight.token is not None:
                return flight.token
            if flight.error is not None:
                raise flight.error
            # The leader was interrupted; somebody has to take its place.

    def _lead(self, key: Hashable, flight: _Flight, fetch: Callable[[], Token], held: Token | None) -> Token:
        try:
            token = fetch()
            flight.token = token
        except Exception as error:
            flight.error, flight.token = error, held
            if held is None:
                raise
            token = held
        finally:
            with self._lock:
                self._flights.pop(key, None)
                if flight.error is not None:
                    self._not_before[key] = self._clock() + _RETRY
                elif flight.token is not None:
                    self._keep(key, flight.token)
            flight.landed.set()
        return token

    def _keep(self, key: Hashable, token: Token) -> None:
        now = self._clock()
        ended = [other for other, old in self._tokens.items() if not old.holds(now)]
        crowd = list(self._tokens)[: max(0, len(self._tokens) - _MOST + 1)]
        for other in {*ended, *crowd} - {key}:
            del self._tokens[other]
        self._not_before = {key: at for key, at in self._not_before.items() if at > now}
        self._not_before.pop(key, None)
        self._tokens[key] = token
