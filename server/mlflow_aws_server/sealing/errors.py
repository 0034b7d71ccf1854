"""Why a version is not sealed: for now, or for good."""

from __future__ import annotations

from mlflow_aws_server.errors import RefusedError


class UnsealableError(Exception):
    """The version cannot be sealed as it is; the message says why, and what to do."""


class SourceChangedError(Exception):
    """The source was written to while it was copied."""


class DelayedError(Exception):
    """It failed this time; the same may succeed later."""


class NotSealedError(RefusedError):
    """What needs a sealed version asks for one that cannot be sealed. Nothing was changed."""

    status = 409
    code = "RESOURCE_CONFLICT"


class SealingBegunError(RefusedError):
    """What needs a sealed version asks for one that is being sealed. Nothing was changed."""

    status = 503
    code = "TEMPORARILY_UNAVAILABLE"
    retry_after = 2
