"""Why provenance refuses a request."""

from __future__ import annotations

from mlflow_aws_server.errors import RefusedError


class ProvenanceError(RefusedError):
    """The request cannot be attributed, forges evidence, fails its condition, or cannot be understood."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


def unclear(message: str) -> ProvenanceError:
    """The request could mean one thing here and another to MLflow."""
    return ProvenanceError(400, "INVALID_PARAMETER_VALUE", message)


def reserved(key: str) -> ProvenanceError:
    """A client tried to write what only the server writes."""
    return ProvenanceError(
        403,
        "PERMISSION_DENIED",
        f"Only the server writes the tag {key!r}: it and all whose names begin with 'mlflow_aws.' are "
        "evidence that no client can set, change or delete. Choose another name, or leave it out.",
    )


def conflict(message: str) -> ProvenanceError:
    """The present state does not allow it. Nothing was changed."""
    return ProvenanceError(409, "RESOURCE_CONFLICT", message)


def later(message: str, *, seconds: int = 1) -> ProvenanceError:
    """Nothing was changed; the same request may succeed soon."""
    return ProvenanceError(503, "TEMPORARILY_UNAVAILABLE", message, retry_after=seconds)
