"""Why a request is answered here instead of by MLflow."""

from __future__ import annotations


class RefusedError(Exception):
    """The request is refused, with an answer in MLflow's error shape."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        """Seconds after which the same request may succeed."""


def unclear(message: str) -> RefusedError:
    """The body could mean one thing here and another thing to MLflow."""
    return RefusedError(400, "INVALID_PARAMETER_VALUE", message)


def reserved(key: str) -> RefusedError:
    """A client tried to write what only the server writes."""
    return RefusedError(
        403,
        "PERMISSION_DENIED",
        f"The tag {key!r} is written by the server alone: tags whose names begin with 'mlflow_aws.' are "
        "evidence that no client can set, change or delete. Choose another name.",
    )


def later(message: str, *, seconds: int = 1) -> RefusedError:
    """Nothing was changed; the same request may succeed soon."""
    return RefusedError(503, "TEMPORARILY_UNAVAILABLE", message, retry_after=seconds)
