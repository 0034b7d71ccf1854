from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from client_smoke.explain import explain
from client_smoke.verdict import CannotRun, StepFailed


def s3_error(code: str, operation: str = "PutObject") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_unusable_credentials_cannot_run(code: str) -> None:
    verdict = explain(s3_error(code))
    assert isinstance(verdict, CannotRun)
    assert "assume the client role again" in verdict.next_action


def test_denied_action_is_named_with_what_to_grant() -> None:
    verdict = explain(s3_error("AccessDenied"))
    assert isinstance(verdict, StepFailed)
    assert "may not PutObject" in verdict.seen
    assert "kms:GenerateDataKey" in verdict.next_action


def test_aws_error_inside_an_mlflow_error_is_found() -> None:
    from mlflow.exceptions import MlflowException

    failure = MlflowException("upload failed")
    failure.__cause__ = s3_error("ExpiredToken")
    assert isinstance(explain(failure), CannotRun)


def test_verdict_passes_unchanged() -> None:
    broken = StepFailed("seen", next_action="next")
    assert explain(broken) is broken


def test_missing_credentials_cannot_run() -> None:
    assert isinstance(explain(NoCredentialsError()), CannotRun)


def test_unreachable_s3_fails_the_step() -> None:
    verdict = explain(EndpointConnectionError(endpoint_url="https://s3.example.com"))
    assert isinstance(verdict, StepFailed)
    assert "S3 cannot be reached" in verdict.seen


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("PERMISSION_DENIED", "an identity"),
        ("INTERNAL_ERROR", "server's log"),
        ("RESOURCE_ALREADY_EXISTS", "--debug"),
    ],
)
def test_answer_of_the_server_has_a_remedy(code: str, remedy: str) -> None:
    from mlflow.exceptions import RestException

    verdict = explain(RestException({"error_code": code, "message": "no"}))
    assert isinstance(verdict, StepFailed)
    assert remedy in verdict.next_action


def test_fault_of_this_code_does_not_accuse_the_deployment() -> None:
    verdict = explain(AttributeError("no such function in this MLflow"))
    assert isinstance(verdict, CannotRun)
    assert "the smoke client itself failed" in verdict.seen


def test_long_message_is_one_bounded_line() -> None:
    assert len(explain(OSError("line\n" * 1000)).seen) < 400
    assert "\n" not in explain(OSError("line\n" * 1000)).seen


def test_auth_plugin_that_gets_no_token_says_nothing_about_the_deployment() -> None:
    from mlflow.exceptions import MlflowException
    from mlflow_aws_auth import AwsAuthError

    def call() -> None:
        try:
            raise AwsAuthError("no AWS region is set", next_action="set AWS_REGION", who="you")
        except AwsAuthError as error:
            raise MlflowException(f"API request failed with exception {error}")  # noqa: B904 - as MLflow does

    with pytest.raises(MlflowException) as caught:
        call()
    verdict = explain(caught.value)
    assert isinstance(verdict, CannotRun)
    assert (verdict.seen, verdict.next_action) == ("no AWS region is set", "set AWS_REGION")
