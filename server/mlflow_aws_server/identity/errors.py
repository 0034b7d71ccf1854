"""Why a request is refused. No message ever holds a part of a token."""

from __future__ import annotations

from mlflow_aws_server.errors import RefusedError


class AccessDeniedError(RefusedError):
    """A request that must not reach MLflow; `reason` is a short word for the audit line."""

    status = 403
    code = "PERMISSION_DENIED"

    def __init__(self, reason: str, message: str, *, principal: str | None = None) -> None:
        """`principal` is the verified name of a caller who has no role."""
        super().__init__(message)
        self.reason = reason
        self.principal = principal


class UnauthenticatedError(AccessDeniedError):
    """The caller is unknown."""

    status = 401
    code = "UNAUTHENTICATED"


class PermissionDeniedError(AccessDeniedError):
    """The caller is known, and may not do this."""


class MalformedRequestError(AccessDeniedError):
    """A path or a header that two parsers could read differently."""

    status = 400
    code = "BAD_REQUEST"


class NoSuchRouteError(AccessDeniedError):
    """A route that is not in this deployment's table."""

    status = 404
    code = "ENDPOINT_NOT_FOUND"


class IssuerUnavailableError(AccessDeniedError):
    """The token may be valid, but its issuer's keys cannot be fetched at the moment: try again."""

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"
    retry_after = 5
