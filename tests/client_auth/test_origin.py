from __future__ import annotations

import pytest
from mlflow_aws_auth.errors import AwsAuthError
from mlflow_aws_auth.origin import Origin


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://mlflow.example.com", "https://mlflow.example.com"),
        ("https://MLFLOW.example.com:443/", "https://mlflow.example.com"),
        ("https://mlflow.example.com:8443/some/path?x=1", "https://mlflow.example.com:8443"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://localhost:5000", "http://localhost:5000"),
    ],
)
def test_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert str(Origin.of(url)) == origin


@pytest.mark.parametrize(
    "other",
    [
        "http://mlflow.example.com",
        "https://mlflow.example.com:8443",
        "https://mlflow.example.com.evil.example",
        "https://evil.example/mlflow.example.com",
        "https://sub.mlflow.example.com",
    ],
)
def test_another_scheme_host_or_port_is_another_origin(other: str) -> None:
    assert Origin.of(other) != Origin.of("https://mlflow.example.com")


@pytest.mark.parametrize(
    "url", ["sqlite:///mlflow.db", "./mlruns", "https://", "databricks", "https://host:port", "ftp://host"]
)
def test_address_that_is_no_server_is_refused(url: str) -> None:
    with pytest.raises(AwsAuthError, match="next: set MLFLOW_TRACKING_URI"):
        Origin.of(url)


def test_credentials_in_the_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(AwsAuthError) as error:
        Origin.of("https://someone:hunter2@mlflow.example.com")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["https://mlflow.example.com", "http://localhost:1", "http://127.0.0.9", "http://[::1]:5000"]
)
def test_encrypted_and_loopback_ways_are_private(url: str) -> None:
    Origin.of(url).require_private()


@pytest.mark.parametrize(
    "url",
    ["http://mlflow.example.com", "http://10.0.0.1", "http://localhost.evil.example", "http://127.evil"],
)
def test_plain_http_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(AwsAuthError, match="is not encrypted, so the token was not sent"):
        Origin.of(url).require_private()
