"""From an exception of a client library to what was seen and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from client_smoke.verdict import CannotRun, StepFailed

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_UNKNOWN_KEY = {"InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "SignatureDoesNotMatch"}
_DENIED = {"AccessDenied", "AccessDeniedException", "403", "KMS.AccessDeniedException"}
# A deployment does not cause these; a mismatch between this code and a library does.
_OUR_OWN = (AssertionError, AttributeError, ImportError, NameError, TypeError)
_LONGEST = 300


def explain(error: Exception) -> StepFailed | CannotRun:
    """The verdict that an unexpected exception amounts to, as specific as its chain of causes allows."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionClosedError,
        ConnectTimeoutError,
        EndpointConnectionError,
        NoCredentialsError,
        ReadTimeoutError,
    )

    for cause in _chain(error):
        if isinstance(cause, StepFailed | CannotRun):
            return cause
        if type(cause).__name__ == "AwsAuthError":  # of MLFLOW_TRACKING_AUTH=aws, which need not be installed
            return CannotRun(
                str(getattr(cause, "seen", cause)),
                next_action=str(getattr(cause, "next_action", "see docs/client-auth.md")),
            )
        if isinstance(cause, ClientError):
            return _aws_answered(cause.response["Error"]["Code"], cause.operation_name, _short(cause))
        if isinstance(cause, NoCredentialsError):
            return CannotRun(
                "no AWS credentials were found", next_action="assume the client role and try again"
            )
        if isinstance(
            cause, EndpointConnectionError | ConnectTimeoutError | ReadTimeoutError | ConnectionClosedError
        ):
            return StepFailed(
                f"S3 cannot be reached: {_short(cause)}",
                next_action="check AWS_REGION, AWS_ENDPOINT_URL, your proxy, and the VPC's S3 endpoint",
            )
        if isinstance(cause, BotoCoreError):
            return CannotRun(
                f"AWS cannot be called: {_short(cause)}",
                next_action="check AWS_REGION, AWS_PROFILE and your credentials",
            )
    if isinstance(error, _OUR_OWN):
        return CannotRun(
            f"the smoke client itself failed: {type(error).__name__}: {_short(error)}",
            next_action="run again with --debug and report the traceback, with the versions of the libraries",
        )
    return _mlflow_answered(error)


def _aws_answered(code: str, operation: str, message: str) -> StepFailed | CannotRun:
    if code in _EXPIRED:
        return CannotRun(
            f"the AWS credentials have expired ({code})",
            next_action="assume the client role again and restart",
        )
    if code in _UNKNOWN_KEY:
        return CannotRun(
            f"AWS does not accept these credentials ({code} to {operation})",
            next_action="assume the client role again; check that AWS_ENDPOINT_URL is the deployment's",
        )
    if code in _DENIED:
        return StepFailed(
            f"this role may not {operation}: {message}",
            next_action="use the deployment's client role, or grant it this action on the bucket and on "
            "its KMS key (kms:GenerateDataKey to write, kms:Decrypt to read)",
        )
    return StepFailed(
        f"S3 answered {code} to {operation}: {message}",
        next_action="check that the bucket is the ArtifactBucket output and that AWS_REGION is its region",
    )


def _mlflow_answered(error: Exception) -> StepFailed:
    status_of = getattr(error, "get_http_status_code", None)
    status = status_of() if callable(status_of) else None
    seen = f"{type(error).__name__}: {_short(error)}"
    if "timeout" in seen.lower() or "timed out" in seen.lower():
        return StepFailed(
            seen, next_action="look at the service's CPU and database connections, or raise --timeout"
        )
    if status in {401, 403}:
        return StepFailed(seen, next_action="give the client an identity with the role that this needs")
    if status is not None and status >= 500:
        return StepFailed(seen, next_action="look at the server's log at this time (docs/operations.md)")
    return StepFailed(seen, next_action="run again with --debug for the traceback")


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
