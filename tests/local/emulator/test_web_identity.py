"""GetWebIdentityToken and the federation's switch, called as any AWS client would."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from botocore.exceptions import ClientError

from local.emulator.web_identity import StsError, TokenRequest
from tests.local.conftest import ACCOUNT, REGION, Account

AUDIENCE = "https://mlflow.example.com"
MAY = {"Effect": "Allow", "Action": "sts:GetWebIdentityToken", "Resource": "*"}


@pytest.fixture
def federated(account: Account) -> Iterator[Account]:
    iam = account.aws.client("iam")
    iam.enable_outbound_web_identity_federation()
    yield account
    iam.disable_outbound_web_identity_federation()


def ask(aws: Any, **more: Any) -> dict[str, Any]:
    wanted = {"Audience": [AUDIENCE], "SigningAlgorithm": "RS256", **more}
    return dict(aws.client("sts").get_web_identity_token(**wanted))


def published(account: Account, path: str) -> dict[str, Any]:
    trust = ssl.create_default_context(cafile=str(account.authority.bundle))
    with urllib.request.urlopen(account.issuer_url + path, timeout=10, context=trust) as answer:
        return dict(json.load(answer))


def verified(account: Account, token: str, *, audience: str = AUDIENCE) -> dict[str, Any]:
    keys = jwt.PyJWKSet.from_dict(published(account, "/.well-known/jwks.json"))
    header = jwt.get_unverified_header(token)
    return dict(
        jwt.decode(
            token, keys[header["kid"]].key, [header["alg"]], audience=audience, issuer=account.issuer_url
        )
    )


def refusal(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_session_s_token_names_its_role_with_the_role_s_path(federated: Account) -> None:
    role = federated.role([MAY], path="/team/science/")
    answer = ask(role, DurationSeconds=600)
    claims = verified(federated, answer["WebIdentityToken"])
    assert claims["sub"].startswith(f"arn:aws:iam::{ACCOUNT}:role/team/science/role-")
    assert claims["exp"] - claims["iat"] == 600
    assert int(answer["Expiration"].timestamp()) == claims["exp"]
    own = claims["https://sts.amazonaws.com/"]
    assert own == {"aws_account": ACCOUNT, "source_region": REGION, "principal_id": claims["sub"]}


def test_a_token_lasts_five_minutes_unless_asked_otherwise(federated: Account) -> None:
    claims = verified(federated, ask(federated.role([MAY]))["WebIdentityToken"])
    assert claims["exp"] - claims["iat"] == 300


def test_the_issuer_is_discovered_where_iam_says_it_is(federated: Account) -> None:
    info = federated.aws.client("iam").get_outbound_web_identity_federation_info()
    assert (info["IssuerIdentifier"], info["JwtVendingEnabled"]) == (federated.issuer_url, True)
    document = published(federated, "/.well-known/openid-configuration")
    assert document["issuer"] == federated.issuer_url
    assert document["jwks_uri"] == f"{federated.issuer_url}/.well-known/jwks.json"


def test_es384_is_signed_with_the_curve_s_published_key(federated: Account) -> None:
    token = ask(federated.role([MAY]), SigningAlgorithm="ES384")["WebIdentityToken"]
    assert jwt.get_unverified_header(token)["alg"] == "ES384"
    assert verified(federated, token)["aud"] == AUDIENCE


def test_several_audiences_become_a_list(federated: Account) -> None:
    token = ask(federated.role([MAY]), Audience=[AUDIENCE, "other"])["WebIdentityToken"]
    assert verified(federated, token)["aud"] == [AUDIENCE, "other"]


def test_without_federation_there_is_no_token(account: Account) -> None:
    iam, sts = account.aws.client("iam"), account.role([MAY])
    with pytest.raises(ClientError) as refused:
        ask(sts)
    assert refusal(refused) == "OutboundWebIdentityFederationDisabledException"
    with pytest.raises(iam.exceptions.FeatureDisabledException):
        iam.get_outbound_web_identity_federation_info()
    with pytest.raises(iam.exceptions.FeatureDisabledException):
        iam.disable_outbound_web_identity_federation()


def test_enabling_twice_is_an_error_of_its_own(federated: Account) -> None:
    iam = federated.aws.client("iam")
    with pytest.raises(iam.exceptions.FeatureEnabledException):
        iam.enable_outbound_web_identity_federation()


def test_without_permission_there_is_no_token(federated: Account) -> None:
    with pytest.raises(ClientError) as refused:
        ask(federated.role([]))
    assert refusal(refused) == "AccessDenied"


@pytest.mark.parametrize(
    ("condition", "good", "bad"),
    [
        (
            {"ForAllValues:StringEquals": {"sts:IdentityTokenAudience": AUDIENCE}},
            {},
            {"Audience": [AUDIENCE, "https://elsewhere.example.com"]},
        ),
        ({"StringEquals": {"sts:SigningAlgorithm": "RS256"}}, {}, {"SigningAlgorithm": "ES384"}),
        ({"NumericLessThanEquals": {"sts:DurationSeconds": 900}}, {}, {"DurationSeconds": 901}),
    ],
    ids=["audience", "algorithm", "duration"],
)
def test_a_policy_s_condition_decides(
    federated: Account, condition: dict[str, Any], good: dict[str, Any], bad: dict[str, Any]
) -> None:
    role = federated.role([{**MAY, "Condition": condition}])
    assert ask(role, **good)["WebIdentityToken"]
    with pytest.raises(ClientError) as refused:
        ask(role, **bad)
    assert refusal(refused) == "AccessDenied"


def test_tags_need_their_own_permission_and_become_claims(federated: Account) -> None:
    tags = [{"Key": "job", "Value": "nightly"}]
    with pytest.raises(ClientError) as refused:
        ask(federated.role([MAY]), Tags=tags)
    assert refusal(refused) == "AccessDenied"
    tagging = {"Effect": "Allow", "Action": "sts:TagGetWebIdentityToken", "Resource": "*"}
    token = ask(federated.role([MAY, tagging]), Tags=tags)["WebIdentityToken"]
    assert verified(federated, token)["https://sts.amazonaws.com/"]["request_tags"] == {"job": "nightly"}


@pytest.mark.parametrize(
    ("named", "value"),
    [
        ("DurationSeconds", ["59"]),
        ("DurationSeconds", ["3601"]),
        ("DurationSeconds", ["soon"]),
        ("SigningAlgorithm", ["HS256"]),
        ("SigningAlgorithm", []),
        ("Audience.member.1", []),
        ("Audience.member.1", ["x" * 1001]),
    ],
)
def test_a_parameter_out_of_its_bounds_is_refused(named: str, value: list[str]) -> None:
    # boto3 would not send it; other clients do.
    parameters = {"Audience.member.1": [AUDIENCE], "SigningAlgorithm": ["RS256"], named: value}
    with pytest.raises(StsError) as refused:
        TokenRequest.of({key: each for key, each in parameters.items() if each})
    assert (refused.value.status, refused.value.code) == (400, "ValidationError")


def test_a_token_does_not_outlive_its_session(federated: Account) -> None:
    role = federated.role([MAY], seconds=900)
    with pytest.raises(ClientError) as refused:
        ask(role, DurationSeconds=3600)
    assert refusal(refused) == "SessionDurationEscalationException"
