"""The federation's function asks an account that checks its signature and its permissions."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import pytest

from tests.iam.conftest import Deployed, session_with

MAY = ["iam:EnableOutboundWebIdentityFederation", "iam:GetOutboundWebIdentityFederationInfo"]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = importlib.import_module("stacks.foundation.federation_handler.index")
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    return module


def act_as(deployed: Deployed, actions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process what Lambda gives a function: credentials, region, and here the endpoint."""
    aws = session_with(deployed.root, {"Effect": "Allow", "Action": actions, "Resource": "*"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.endpoint)
    monkeypatch.setenv("AWS_REGION", aws.region)
    monkeypatch.setenv("AWS_DEFAULT_REGION", aws.region)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", aws.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", aws.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", aws.session_token or "")


def test_it_returns_the_issuer_whether_federation_was_on_or_off(
    deployed: Deployed, index: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = deployed.root.client("iam")
    issuer = iam.get_outbound_web_identity_federation_info()["IssuerIdentifier"]
    act_as(deployed, MAY, monkeypatch)
    assert index.enable(index.signed_queries()) == issuer
    iam.disable_outbound_web_identity_federation()
    assert index.enable(index.signed_queries()) == issuer
    assert iam.get_outbound_web_identity_federation_info()["JwtVendingEnabled"] is True


def test_without_its_permission_it_is_refused(
    deployed: Deployed, index: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_as(deployed, ["iam:ListRoles"], monkeypatch)
    with pytest.raises(index.IamError, match="AccessDenied"):
        index.enable(index.signed_queries())


def test_a_wrong_signature_is_refused(
    deployed: Deployed, index: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_as(deployed, MAY, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", json.dumps("another"))
    with pytest.raises(index.IamError, match="SignatureDoesNotMatch"):
        index.enable(index.signed_queries())
