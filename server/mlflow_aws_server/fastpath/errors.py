"""Why a request leaves the fast path."""

from __future__ import annotations


class LeaveToStockError(Exception):
    """Stock MLflow shall answer: the request is not fully understood, or stock would refuse it.

    Nothing has been written on behalf of the request then, or only what stock writes before it refuses.
    """


class OverloadedError(Exception):
    """More is asked for than can be queued; the client shall come back. Nothing was written."""


class SlowBodyError(Exception):
    """The request's body does not arrive; the client shall send it again."""


class UnavailableError(Exception):
    """The database cannot be reached now; the client shall come back.

    Whether a write that was under way took effect is unknown, which is safe: each can be repeated.
    """


class ContendedError(Exception):
    """Other writers to the same rows were faster again and again; the client shall come back.

    Nothing was written.
    """
