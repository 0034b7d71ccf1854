"""The issuer that stands in for STS and Cognito: what it publishes verifies what it signs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import pytest

from local.parts.certificates import CertificateAuthority
from local.parts.token_issuer import TokenIssuer

ROLE = "arn:aws:iam::123456789012:role/team/trainer"
AUDIENCE = "https://mlflow.example.com"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("authority"), name="test")


@pytest.fixture
def issuer(authority: CertificateAuthority) -> Iterator[TokenIssuer]:
    issuer = TokenIssuer.create(authority.issue("localhost", name="issuer"))
    with issuer.serving():
        yield issuer


def fetch(issuer: TokenIssuer, path: str, ca: Path) -> httpx.Response:
    with httpx.Client(verify=ssl.create_default_context(cafile=str(ca)), trust_env=False) as client:
        return client.get(issuer.url + path)


def test_published_keys_verify_its_tokens(issuer: TokenIssuer, authority: CertificateAuthority) -> None:
    keys = jwt.PyJWKSet.from_dict(fetch(issuer, "/.well-known/jwks.json", authority.bundle).json())
    token = issuer.token(subject=ROLE, audience=AUDIENCE)
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["RS256"], audience=AUDIENCE, issuer=issuer.url)
    assert claims["sub"] == ROLE


def test_discovery_names_the_keys(issuer: TokenIssuer, authority: CertificateAuthority) -> None:
    discovery = fetch(issuer, "/.well-known/openid-configuration", authority.bundle).json()
    assert discovery["issuer"] == issuer.url
    assert discovery["jwks_uri"] == issuer.url + "/.well-known/jwks.json"


def test_rotation_publishes_both_keys_until_the_old_is_forgotten(issuer: TokenIssuer) -> None:
    before = issuer.key.key_id
    issuer.rotate()
    assert [key["kid"] for key in issuer.jwks["keys"]] == [before, issuer.key.key_id]
    issuer.forget_old()
    assert [key["kid"] for key in issuer.jwks["keys"]] == [issuer.key.key_id] != [before]


def test_outage_is_a_503_and_is_counted(issuer: TokenIssuer, authority: CertificateAuthority) -> None:
    issuer.available = False
    assert fetch(issuer, "/.well-known/jwks.json", authority.bundle).status_code == 503
    assert issuer.fetches == 1


def test_user_token_has_the_shape_of_a_cognito_access_token(issuer: TokenIssuer) -> None:
    token = issuer.user_token(username="ada", client_id="abc", groups=["mlflow-viewer"])
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["token_use"] == "access"
    assert claims["cognito:groups"] == ["mlflow-viewer"]
    assert "aud" not in claims
