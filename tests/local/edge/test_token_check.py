"""The load balancer's jwt-validation."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest

from local.edge.token_check import InvalidTokenError, TokenCheck, bearer, has_claim, read_keys
from local.parts.token_issuer import SigningKey

ISSUER, JWKS = "https://issuer.example.com", "https://issuer.example.com/.well-known/jwks.json"
KEY, STRANGER = SigningKey.generate(), SigningKey.generate()
NOW = 4_000_000_000  # 2096: valid, and not in the past of any test run


class Publisher:
    """Serves the keys of an issuer, and counts how often it was asked."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.asked = 0

    async def __call__(self, url: str) -> bytes:
        assert url == JWKS
        self.asked += 1
        return json.dumps({"keys": [key.public_jwk for key in self.keys]}).encode()


def token(key: SigningKey = KEY, **claims: Any) -> str:
    content = {"iss": ISSUER, "exp": NOW, "aud": "us", **claims}
    return key.sign({name: value for name, value in content.items() if value is not None})


async def claims_of(text: str) -> dict[str, Any]:
    return await TokenCheck(Publisher(KEY)).claims(text, issuer=ISSUER, jwks=JWKS)


async def test_a_token_of_the_issuer_passes() -> None:
    assert (await claims_of(token(sub="me")))["sub"] == "me"


@pytest.mark.parametrize(
    "text",
    [
        token(STRANGER),
        STRANGER.sign({"iss": ISSUER, "exp": NOW}, headers={"kid": KEY.key_id}),
        token(iss="https://elsewhere.example.com"),
        token(iss=None),
        token(exp=1),
        token(exp=None),
        token(nbf=NOW - 1),
        token(iat=NOW - 1),
        jwt.encode({"iss": ISSUER, "exp": NOW}, "", "none", {"kid": KEY.key_id}),
        jwt.encode({"iss": ISSUER, "exp": NOW}, "k" * 32, "HS256", {"kid": KEY.key_id}),
        token()[:-2],
        "not a token",
        "",
    ],
    ids=[
        "unknown key",
        "foreign signature under a known key id",
        "foreign issuer",
        "no issuer",
        "expired",
        "no expiry",
        "not yet valid",
        "issued in the future",
        "alg none",
        "HS256",
        "truncated",
        "no token",
        "empty",
    ],
)
async def test_what_is_not_a_valid_token_of_the_issuer_is_refused(text: str) -> None:
    with pytest.raises(InvalidTokenError):
        await claims_of(text)


async def test_keys_are_fetched_once_and_again_for_a_new_key() -> None:
    publisher, now = Publisher(KEY), [0.0]
    check = TokenCheck(publisher, clock=lambda: now[0])
    for _ in range(3):
        await check.claims(token(), issuer=ISSUER, jwks=JWKS)
    assert publisher.asked == 1
    publisher.keys.append(STRANGER)
    with pytest.raises(InvalidTokenError):
        await check.claims(token(STRANGER), issuer=ISSUER, jwks=JWKS)
    assert publisher.asked == 1, "an unknown key id must not make us ask at once, time and again"
    now[0] += 3
    await check.claims(token(STRANGER), issuer=ISSUER, jwks=JWKS)
    assert publisher.asked == 2


def test_a_jwks_beyond_the_load_balancer_s_limits_gives_no_key() -> None:
    eleven = [{**KEY.public_jwk, "kid": str(number)} for number in range(11)]
    with pytest.raises(InvalidTokenError, match="10 keys"):
        read_keys(json.dumps({"keys": eleven}).encode())
    with pytest.raises(InvalidTokenError, match="150 KB"):
        read_keys(json.dumps({"keys": [], "filler": "x" * 160_000}).encode())


@pytest.mark.parametrize(
    "headers", [[], ["Bearer a", "Bearer b"], ["Basic a"], ["Bearer"], ["Bearer  "]], ids=str
)
def test_one_bearer_header_is_needed(headers: list[str]) -> None:
    with pytest.raises(InvalidTokenError):
        bearer(headers)


def test_the_scheme_is_found_in_any_case() -> None:
    assert (bearer(["bearer a"]), bearer(["BEARER  a"])) == ("a", "a")


@pytest.mark.parametrize(
    ("form", "value", "has"),
    [
        ("single-string", "us", True),
        ("single-string", "them", False),
        ("single-string", ["us"], False),
        ("single-string", None, False),
        ("string-array", ["them", "us"], True),
        ("string-array", ["them"], False),
        ("string-array", "us", False),
        ("space-separated-values", "them us", True),
        ("space-separated-values", "themus", False),
        ("unheard-of", "us", False),
    ],
)
def test_an_additional_claim_is_read_in_its_format(form: str, value: object, has: bool) -> None:
    assert has_claim({"aud": value}, {"Name": "aud", "Format": form, "Values": ["us"]}) is has
