"""The account's function asks an account that checks its signature and its permissions."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import pytest

from tests.iam.conftest import Deployed, session_with
from tests.local.conftest import ACCOUNT

MAY = ["iam:EnableOutboundWebIdentityFederation", "iam:GetOutboundWebIdentityFederationInfo"]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = importlib.import_module("stacks.foundation.account_handler.index")
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
    assert index.federation(index.signed_queries(), {})["IssuerUrl"] == issuer
    iam.disable_outbound_web_identity_federation()
    assert index.federation(index.signed_queries(), {})["IssuerUrl"] == issuer
    assert iam.get_outbound_web_identity_federation_info()["JwtVendingEnabled"] is True


def test_it_makes_what_is_missing_and_adopts_what_is_there(
    deployed: Deployed, index: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = deployed.root.client("iam")
    may = ["GetRole", "CreateServiceLinkedRole", "GetOpenIDConnectProvider", "CreateOpenIDConnectProvider"]
    act_as(deployed, [f"iam:{each}" for each in may], monkeypatch)
    monkeypatch.setattr(index, "SETTLE_SECONDS", 0)
    host = "token.actions.example.com"
    arn = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{host}"
    provider = {"Arn": arn, "Url": f"https://{host}", "ClientId": "sts.amazonaws.com"}
    for _ in range(2):
        index.service_linked_roles(
            index.signed_queries(), {"Roles": {"example.amazonaws.com": "AWSServiceRoleForExample"}}
        )
        assert index.oidc_provider(index.signed_queries(), provider) == {"Arn": arn}
    assert iam.get_role(RoleName="AWSServiceRoleForExample")["Role"]["Path"].startswith("/aws-service-role/")
    found = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    assert found["ClientIDList"] == ["sts.amazonaws.com"]


def test_without_its_permission_it_is_refused(
    deployed: Deployed, index: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_as(deployed, ["iam:ListRoles"], monkeypatch)
    with pytest.raises(index.IamError, match="AccessDenied"):
        index.federation(index.signed_queries(), {})


def test_a_wrong_signature_is_refused(
    deployed: Deployed, index: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_as(deployed, MAY, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", json.dumps("another"))
    with pytest.raises(index.IamError, match="SignatureDoesNotMatch"):
        index.federation(index.signed_queries(), {})
