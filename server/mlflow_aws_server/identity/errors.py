"""Why a request is refused. No message ever holds a part of a token."""

from __future__ import annotations


class RefusedError(Exception):
    """A request that must not reach MLflow.

    `code` is one of MLflow's error codes, `reason` a short word for the audit line.
    """

    status = 403
    code = "PERMISSION_DENIED"
    retry_after_seconds: int | None = None

    def __init__(self, reason: str, message: str, *, principal: str | None = None) -> None:
        """`principal` is the verified name of a caller who has no role."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.principal = principal


class UnauthenticatedError(RefusedError):
    """Nobody knows who the caller is."""

    status = 401
    code = "UNAUTHENTICATED"


class PermissionDeniedError(RefusedError):
    """The caller is known, and may not do this."""


class MalformedRequestError(RefusedError):
    """A path or a header that two parsers could read differently."""

    status = 400
    code = "BAD_REQUEST"


class NoSuchRouteError(RefusedError):
    """A route that this deployment's table does not hold."""

    status = 404
    code = "ENDPOINT_NOT_FOUND"


class IssuerUnavailableError(RefusedError):
    """The token may be good, but its issuer's keys cannot be had at the moment: try again."""

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"
    retry_after_seconds = 5
