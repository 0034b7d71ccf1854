from __future__ import annotations

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
import requests
from mlflow_aws_auth.errors import AwsAuthError
from mlflow_aws_auth.provider import BearerAuth

from tests.client_auth.standins import Sts, Tracking, serving_tracking

SEARCH = "/api/2.0/mlflow/experiments/search"


@pytest.fixture
def mlflow_client(sts: Sts, tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> object:
    """MLflow's own client, configured by environment variables alone."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "aws")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking.answers[SEARCH] = (200, {"experiments": []})
    mlflow.set_tracking_uri(tracking.url)
    return mlflow.MlflowClient()


def test_stock_client_signs_every_call_with_one_token(
    mlflow_client: object, sts: Sts, tracking: Tracking
) -> None:
    for _ in range(3):
        mlflow_client.search_experiments()  # type: ignore[attr-defined]
    assert len(tracking.authorizations) == 3
    (header,) = set(tracking.authorizations)
    assert header is not None
    assert header.startswith("Bearer ey")
    assert len(sts.calls) == 1


def test_token_is_for_the_servers_own_address(mlflow_client: object, sts: Sts, tracking: Tracking) -> None:
    mlflow_client.search_experiments()  # type: ignore[attr-defined]
    assert sts.calls[0]["Audience.member.1"] == tracking.url


def test_audience_can_be_another_than_the_address(
    mlflow_client: object, sts: Sts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_AWS_AUDIENCE", "https://mlflow.example.com")
    mlflow_client.search_experiments()  # type: ignore[attr-defined]
    assert sts.calls[0]["Audience.member.1"] == "https://mlflow.example.com"


def test_token_of_the_environment_is_not_sent_beside_it(
    mlflow_client: object, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "an-old-one")
    mlflow_client.search_experiments()  # type: ignore[attr-defined]
    assert "an-old-one" not in str(tracking.authorizations)


def test_other_session_gets_a_token_of_its_own(mlflow_client: object, sts: Sts) -> None:
    mlflow_client.search_experiments()  # type: ignore[attr-defined]
    boto3.setup_default_session()
    mlflow_client.search_experiments()  # type: ignore[attr-defined]
    assert len(sts.calls) == 2


def test_threads_share_one_call_to_sts(sts: Sts, tracking: Tracking) -> None:
    sts.delay = 0.3
    tracking.answers[SEARCH] = (200, {})
    together = threading.Barrier(12)

    def ask(_: int) -> int:
        together.wait(20)
        return requests.get(tracking.url + SEARCH, auth=BearerAuth(tracking.url), timeout=20).status_code

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(ask, range(12))) == {200}
    assert len(sts.calls) == 1
    assert len(set(tracking.authorizations)) == 1


def test_redirect_to_another_server_does_not_take_the_token_along(sts: Sts, tracking: Tracking) -> None:
    with serving_tracking(Tracking(answers={SEARCH: (200, {})})) as elsewhere:
        tracking.redirect = elsewhere.url
        answer = requests.get(tracking.url + SEARCH, auth=BearerAuth(tracking.url), timeout=20)
    assert answer.url == elsewhere.url + SEARCH
    assert tracking.authorizations[0] is not None
    assert elsewhere.authorizations == [None]


def test_request_to_another_server_carries_no_token_and_says_so(sts: Sts, tracking: Tracking) -> None:
    with (
        serving_tracking(Tracking(answers={SEARCH: (200, {})})) as elsewhere,
        pytest.warns(UserWarning, match="carries no token, since the tracking URI is"),
    ):
        requests.get(
            elsewhere.url + SEARCH,
            auth=BearerAuth(tracking.url),
            headers={"Authorization": "Bearer left-over"},
            timeout=20,
        )
    assert elsewhere.authorizations == [None]
    assert sts.calls == []


def test_unencrypted_way_gets_neither_token_nor_request(sts: Sts) -> None:
    with pytest.raises(AwsAuthError, match="is not encrypted"):
        requests.get("http://mlflow.invalid/x", auth=BearerAuth("http://mlflow.invalid"), timeout=5)
    assert sts.calls == []


def test_error_of_aws_reaches_the_user_through_mlflow(mlflow_client: object, sts: Sts) -> None:
    from mlflow.exceptions import MlflowException

    sts.refusal = (403, "OutboundWebIdentityFederationDisabledException", "disabled")
    with pytest.raises(MlflowException, match="enable-outbound-web-identity-federation"):
        mlflow_client.search_experiments()  # type: ignore[attr-defined]


def test_token_is_in_no_log(
    mlflow_client: object, tracking: Tracking, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        mlflow_client.search_experiments()  # type: ignore[attr-defined]
    token = str(tracking.authorizations[0]).removeprefix("Bearer ")
    assert any(record.name.startswith("botocore") for record in caplog.records)
    assert token not in "".join(record.getMessage() for record in caplog.records)
    assert token not in "".join(str(warning.message) for warning in heard)
