"""Why a request is answered with an error here instead of by MLflow, or an operation has no result."""

from __future__ import annotations


class RefusedError(Exception):
    """The request is refused, in MLflow's error shape."""

    status: int
    """The HTTP status."""
    code: str
    """One of MLflow's error codes."""
    retry_after: int | None = None
    """Seconds after which the same request may succeed; MLflow's client then tries again."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class OverloadedError(RefusedError):
    """More is asked for than can be queued. Nothing was written."""

    status = 429
    code = "RESOURCE_EXHAUSTED"
    retry_after = 1


class BodyError(RefusedError):
    """The request's body is not what its headers say."""

    code = "INVALID_PARAMETER_VALUE"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class SlowBodyError(RefusedError):
    """The request's body does not arrive."""

    status = 408
    code = "REQUEST_LIMIT_EXCEEDED"
    retry_after = 1


class UnavailableError(RefusedError):
    """The database cannot be reached.

    Whether a write that was under way took effect is unknown, which is safe: each can be repeated. MLflow's
    client does so seven times: for four minutes, and for as many seconds only if it were told to come back
    after one. A failover takes a minute or two.
    """

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"


class ContendedError(RefusedError):
    """Other writers to the same rows were faster again and again. Nothing was written."""

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"
    retry_after = 1


class UnexpectedError(RefusedError):
    """The server failed. Whether anything was written is unknown."""

    status = 500
    code = "INTERNAL_ERROR"


class OperationError(Exception):
    """A one-off operation failed; the message says what, what was observed, and what to do next."""
