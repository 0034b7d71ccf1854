"""Why an artifact is not served."""

from __future__ import annotations

from mlflow_aws_server.errors import RefusedError


class ArtifactError(RefusedError):
    """There is no such artifact, or this server does not read it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class StoreError(RefusedError):
    """S3 does not answer, or asks for patience."""

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"
    retry_after = 2


def invalid(message: str) -> ArtifactError:
    """The request itself is wrong."""
    return ArtifactError(400, "INVALID_PARAMETER_VALUE", message)


def missing(message: str) -> ArtifactError:
    """What is asked for does not exist."""
    return ArtifactError(404, "RESOURCE_DOES_NOT_EXIST", message)
