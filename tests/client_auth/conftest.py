"""A caller with temporary credentials that exist nowhere, an STS and a tracking server on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator

import boto3
import pytest
from mlflow_aws_auth import provider
from mlflow_aws_auth.token_cache import TokenCache

from tests.client_auth.standins import ROLE, Sts, Tracking, serving_sts, serving_tracking


@pytest.fixture(scope="session")
def one_sts() -> Iterator[Sts]:
    with serving_sts(Sts()) as sts:
        yield sts


@pytest.fixture
def sts(one_sts: Sts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sts]:
    """STS, which has given nothing yet; this process's default AWS session is sent to it."""
    before = dict(os.environ)
    one_sts.calls.clear()
    one_sts.subject, one_sts.refusal, one_sts.longest, one_sts.delay = ROLE, None, 3600, 0.0
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_")):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL_STS": one_sts.url,
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "ASIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "nothing-secret",
        "AWS_SESSION_TOKEN": "nothing-session",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setattr(provider, "_tokens", TokenCache())
    yield one_sts
    # `connect` changes it for the programs that a notebook starts, behind monkeypatch's back.
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def tracking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    """A deployment that knows the caller as a contributor."""
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    with serving_tracking(Tracking()) as server:
        server.answers["/api/2.0/mlflow-aws/whoami"] = (
            200,
            {
                "principal": ROLE,
                "role": "contributor",
                "permissions": ["read", "write"],
                "lane": "iam",
                "ui_url": "https://mlflow.example.com",
            },
        )
        server.answers["/api/2.0/mlflow/experiments/get"] = (
            200,
            {"experiment": {"experiment_id": "0", "artifact_location": "s3://bucket/mlflow/0"}},
        )
        yield server
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])
