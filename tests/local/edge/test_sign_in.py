"""The load balancer's authenticate-cognito, with a user pool that answers as Cognito does."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from local.edge.sign_in import CALLBACK_PATH, Client, CognitoSignIn, Verdict, Visit
from local.edge.token_check import TokenCheck
from local.parts.token_issuer import SigningKey

KEY = SigningKey.generate()
POOL = "https://pools.example.com/eu-central-1_Tested"
CLIENT = Client(client_id="app", secret="s3cret", issuer=POOL, base_url="https://pools.example.com")
CONFIG = {"SessionTimeout": "28800", "OnUnauthenticatedRequest": "authenticate", "Scope": "openid"}
DENY = {**CONFIG, "OnUnauthenticatedRequest": "deny"}


class UserPool:
    """Gives tokens for the code `good`, and renews them while `renews`."""

    def __init__(self) -> None:
        self.nonce: str | None = None
        self.audience = "app"
        self.lasts = 900
        self.renews = True
        self.asked: list[tuple[Mapping[str, str], str]] = []

    async def keys(self, url: str) -> bytes:
        assert url == f"{POOL}/.well-known/jwks.json"
        return json.dumps({"keys": [KEY.public_jwk]}).encode()

    async def post(self, url: str, form: Mapping[str, str], basic: str) -> dict[str, Any] | None:
        assert url == "https://pools.example.com/oauth2/token"
        self.asked.append((form, base64.b64decode(basic).decode()))
        renewal = form["grant_type"] == "refresh_token"
        if not (self.renews if renewal else form["code"] == "good"):
            return None
        claims = {"iss": POOL, "exp": time.time() + 60, "aud": self.audience, "sub": "u-1"}
        return {
            "id_token": KEY.sign({**claims, **({} if renewal else {"nonce": self.nonce})}),
            "access_token": f"access-{len(self.asked)}",
            "expires_in": self.lasts,
            **({} if renewal else {"refresh_token": "refresh"}),
        }

    async def get(self, url: str, token: str) -> dict[str, Any] | None:
        assert (url, token[:7]) == ("https://pools.example.com/oauth2/userInfo", "access-")
        return {"sub": "u-1", "username": "viewer"}


class Browser:
    """Keeps cookies, as a browser does."""

    def __init__(self, sign_in: CognitoSignIn, pool: UserPool) -> None:
        self.sign_in = sign_in
        self.pool = pool
        self.cookies: dict[str, str] = {}
        self.set: list[str] = []

    async def visit(self, target: str, config: Mapping[str, Any] = CONFIG, *, method: str = "GET") -> Verdict:
        path, _, query = target.partition("?")
        verdict = await self.sign_in.admit(
            Visit(
                method=method,
                host="mlflow.example.com",
                path=path,
                query={name: values[0] for name, values in parse_qs(query).items()},
                cookie_header="; ".join(f"{name}={value}" for name, value in self.cookies.items()),
                target=target,
            ),
            config,
            CLIENT,
        )
        for cookie in verdict.cookies:
            self.set.append(cookie)
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return verdict

    async def to_page(self, target: str = "/") -> dict[str, str]:
        """Visit, follow to the sign-in page and keep its nonce; returns the page's query."""
        sent = await self.visit(target)
        asked = {name: values[0] for name, values in parse_qs(urlsplit(sent.location).query).items()}
        self.pool.nonce = asked["nonce"]
        return asked

    async def sign_on(self, target: str = "/") -> Verdict:
        asked = await self.to_page(target)
        return await self.visit(f"{CALLBACK_PATH}?code=good&state={asked['state']}")


@pytest.fixture
def pool() -> UserPool:
    return UserPool()


@pytest.fixture
def browser(pool: UserPool) -> Browser:
    arn = "arn:aws:elasticloadbalancing:eu-central-1:000000000000:loadbalancer/app/x/1"
    sign_in = CognitoSignIn(check=TokenCheck(pool.keys), post=pool.post, get=pool.get, load_balancer=arn)
    return Browser(sign_in, pool)


async def test_without_a_session_a_visit_leads_to_the_sign_in_page(browser: Browser) -> None:
    verdict = await browser.visit("/")
    assert (verdict.status, verdict.headers) == (302, {})
    url = urlsplit(verdict.location)
    assert (url.netloc, url.path) == ("pools.example.com", "/oauth2/authorize")
    asked = parse_qs(url.query)
    assert asked["redirect_uri"] == ["https://mlflow.example.com/oauth2/idpresponse"]
    assert (asked["client_id"], asked["response_type"], asked["scope"]) == (["app"], ["code"], ["openid"])


async def test_without_a_session_a_fetch_is_refused(browser: Browser) -> None:
    verdict = await browser.visit("/ajax-api/2.0/mlflow/experiments/search", DENY)
    assert (verdict.status, verdict.location, verdict.cookies) == (401, "", ())


async def test_signing_in_leads_back_to_where_it_began(browser: Browser, pool: UserPool) -> None:
    verdict = await browser.sign_on("/pages/1?x=%20y")
    assert verdict.status == 302
    assert verdict.location == "https://mlflow.example.com/pages/1?x=%20y"
    form, basic = pool.asked[0]
    assert basic == "app:s3cret"
    assert form["redirect_uri"] == "https://mlflow.example.com/oauth2/idpresponse"


async def test_session_cookies_are_secure_http_only_and_encrypted(
    browser: Browser,
) -> None:
    await browser.sign_on()
    session = [each for each in browser.set if each.startswith("AWSELBAuthSessionCookie-0=")]
    assert session
    for cookie in browser.set:
        assert {"Secure", "HttpOnly", "Path=/"} <= set(cookie.split("; "))
    assert "access-1" not in session[0]


async def test_the_target_is_told_who_it_is(browser: Browser) -> None:
    await browser.sign_on()
    verdict = await browser.visit("/ajax-api/2.0/mlflow/runs/search", DENY)
    assert verdict.status is None
    assert verdict.headers["x-amzn-oidc-accesstoken"] == "access-1"
    assert verdict.headers["x-amzn-oidc-identity"] == "u-1"
    header, claims, signature = verdict.headers["x-amzn-oidc-data"].split(".")
    assert json.loads(base64.urlsafe_b64decode(header))["alg"] == "ES256"
    assert json.loads(base64.urlsafe_b64decode(claims))["username"] == "viewer"
    assert len(base64.urlsafe_b64decode(signature)) == 64


async def test_a_sign_in_that_another_browser_began_is_refused(browser: Browser, pool: UserPool) -> None:
    victim = Browser(browser.sign_in, pool)
    asked = await browser.to_page()
    verdict = await victim.visit(f"{CALLBACK_PATH}?code=good&state={asked['state']}")
    assert (verdict.status, verdict.cookies) == (401, ())


@pytest.mark.parametrize("state", ["", "forged", "AAAA"])
async def test_an_unsolicited_callback_is_refused(browser: Browser, state: str) -> None:
    await browser.to_page()
    assert (await browser.visit(f"{CALLBACK_PATH}?code=good&state={state}")).status == 401


async def test_a_second_tab_does_not_break_the_first_tab_s_sign_in(browser: Browser) -> None:
    first = await browser.to_page("/first")
    await browser.to_page("/second")
    verdict = await browser.visit(f"{CALLBACK_PATH}?code=good&state={first['state']}")
    assert verdict.location == "https://mlflow.example.com/first"


@pytest.mark.parametrize("query", ["code=bad", "error=access_denied"])
async def test_a_refusal_of_the_user_pool_is_an_authentication_error(browser: Browser, query: str) -> None:
    asked = await browser.to_page()
    assert (await browser.visit(f"{CALLBACK_PATH}?{query}&state={asked['state']}")).status == 561


async def test_tokens_for_another_client_or_sign_in_open_nothing(browser: Browser, pool: UserPool) -> None:
    pool.audience = "another-app"
    assert (await browser.sign_on()).status == 561
    pool.audience = "app"
    asked = await browser.to_page()
    pool.nonce = "replayed"
    assert (await browser.visit(f"{CALLBACK_PATH}?code=good&state={asked['state']}")).status == 561


async def test_an_expired_token_is_renewed(browser: Browser, pool: UserPool) -> None:
    pool.lasts = 0
    await browser.sign_on()
    pool.lasts = 900
    renewed = await browser.visit("/")
    assert renewed.headers["x-amzn-oidc-accesstoken"] == "access-2"
    assert any(each.startswith("AWSELBAuthSessionCookie-0=") for each in renewed.cookies)
    again = await browser.visit("/")
    assert (again.headers["x-amzn-oidc-accesstoken"], again.cookies) == ("access-2", ())


async def test_a_session_that_cannot_be_renewed_is_over(browser: Browser, pool: UserPool) -> None:
    pool.lasts = 0
    await browser.sign_on()
    pool.renews = False
    assert (await browser.visit("/", DENY)).status == 401
    assert (await browser.visit("/")).status == 302


async def test_a_session_ends_when_the_rule_says(browser: Browser) -> None:
    asked = await browser.to_page()
    short = {**CONFIG, "SessionTimeout": "0"}
    await browser.visit(f"{CALLBACK_PATH}?code=good&state={asked['state']}", short)
    assert (await browser.visit("/", DENY)).status == 401


async def test_what_is_not_safe_to_repeat_is_not_repeated_after_signing_in(browser: Browser) -> None:
    sent = await browser.visit("/submit", method="POST")
    asked = parse_qs(urlsplit(sent.location).query)
    browser.pool.nonce = asked["nonce"][0]
    verdict = await browser.visit(f"{CALLBACK_PATH}?code=good&state={asked['state'][0]}")
    assert verdict.location == "https://mlflow.example.com/"


async def test_allow_lets_requests_without_a_session_pass_without_an_identity(browser: Browser) -> None:
    assert await browser.visit("/", {**CONFIG, "OnUnauthenticatedRequest": "allow"}) == Verdict()
