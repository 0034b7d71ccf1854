from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path

import jwt

from bench.identity import contributor, person
from local.parts.certificates import CertificateAuthority


def test_the_token_verifies_against_the_published_keys_and_is_a_contributors(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "ca", name="bench")
    with contributor(authority, audience="https://mlflow.bench.example") as identity:
        _, _, issuer = identity.environment["MLFLOW_AWS_TOKEN_ISSUERS"].partition("=")
        tls = ssl.create_default_context(cafile=identity.environment["SSL_CERT_FILE"])
        with urllib.request.urlopen(f"{issuer}/.well-known/jwks.json", context=tls) as answer:
            (key,) = jwt.PyJWKSet.from_dict(json.load(answer)).keys
    token = identity.headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(
        token, key, algorithms=["RS256"], issuer=issuer, audience="https://mlflow.bench.example"
    )
    roles = json.loads(identity.environment["MLFLOW_AWS_ROLES"])
    assert roles == {"contributor": {"permissions": ["read", "write"], "iam_roles": [claims["sub"]]}}
    assert token not in repr(identity)


def test_a_person_has_the_rights_of_the_program_that_a_server_knows_too(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "ca", name="bench")
    with (
        contributor(authority, audience="https://mlflow.bench.example") as program,
        person(authority) as user,
    ):
        known = [json.loads(each.environment["MLFLOW_AWS_ROLES"])["contributor"] for each in (program, user)]
        claims = jwt.decode(user.headers["x-amzn-oidc-accesstoken"], options={"verify_signature": False})
    assert claims["iss"] == user.environment["MLFLOW_AWS_USER_POOL_ISSUER"]
    assert known[1] == {**known[0], "groups": claims["cognito:groups"]}
