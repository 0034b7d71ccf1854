"""The environments of processes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from local.environment import ClientEnvironment, clean

CLIENT = ClientEnvironment(
    tracking_url="https://localhost:8443",
    ca_file=Path("/with a space/it's/ca.pem"),
    aws_endpoint="http://127.0.0.1:4566",
    region="eu-central-1",
    access_key="ASIAEXAMPLE",
    secret_key="s$cr`t\"'",
    session_token="token/+=",
    token="a.b.c",
    audience="https://mlflow.example.com",
)


def evaluated(lines: str, **before: str) -> dict[str, str]:
    printed = subprocess.run(
        ["sh", "-c", 'eval "$1"; env -0', "sh", lines],
        env={"PATH": os.environ["PATH"], **before},
        capture_output=True,
        check=True,
    ).stdout
    return dict(pair.split("=", 1) for pair in printed.decode().split("\0") if pair)


def test_a_shell_reads_every_value_as_it_is() -> None:
    assert evaluated(CLIENT.shell({})).items() >= CLIENT.variables().items()


def test_a_client_gets_all_it_needs() -> None:
    assert set(CLIENT.variables()) == {
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_SERVER_CERT_PATH",
        "AWS_ENDPOINT_URL",
        "MLFLOW_S3_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_AWS_AUDIENCE",
    }


@pytest.mark.parametrize(
    "name", ["AWS_PROFILE", "MLFLOW_TRACKING_INSECURE_TLS", "AWS_ENDPOINT_URL_S3", "MLFLOW_TRACKING_AUTH"]
)
def test_variables_that_lead_elsewhere_are_unset(name: str) -> None:
    assert name not in evaluated(CLIENT.shell({}), **{name: "set before"})


def test_a_proxy_is_not_used_for_this_machine() -> None:
    ambient = {"https_proxy": "http://proxy:3128", "NO_PROXY": "example.com"}
    assert evaluated(CLIENT.shell(ambient), **ambient)["NO_PROXY"] == "example.com,localhost,127.0.0.1"


def test_without_a_proxy_no_proxy_is_not_set() -> None:
    assert "NO_PROXY" not in evaluated(CLIENT.shell({}))


def test_children_get_nothing_of_aws_or_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "MLFLOW_TRACKING_URI", "PYTHONPATH", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "ambient")
    assert "ambient" not in clean().values()


def test_children_cannot_find_credentials_of_this_machine() -> None:
    child = clean()
    assert (child["AWS_CONFIG_FILE"], child["AWS_SHARED_CREDENTIALS_FILE"]) == (os.devnull, os.devnull)
    assert child["AWS_EC2_METADATA_DISABLED"] == "true"
