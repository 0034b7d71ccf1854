"""The user pool as the load balancer, the server and a browser see it."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from tests.local.conftest import Account

CALLBACK = "https://localhost:8443/oauth2/idpresponse"
PASSWORD = "Corr3ct-horse-battery"
TEMPLATE: dict[str, Any] = {
    "Resources": {
        "Pool": {"Type": "AWS::Cognito::UserPool", "Properties": {"UserPoolName": "tested"}},
        "Client": {
            "Type": "AWS::Cognito::UserPoolClient",
            "Properties": {
                "UserPoolId": {"Ref": "Pool"},
                "GenerateSecret": True,
                "AllowedOAuthFlows": ["code"],
                "AllowedOAuthFlowsUserPoolClient": True,
                "AllowedOAuthScopes": ["openid"],
                # The deployed URL of the application; on this machine it has another.
                "CallbackURLs": ["https://deployed.example.com/oauth2/idpresponse"],
                "AccessTokenValidity": 15,
                "TokenValidityUnits": {"AccessToken": "minutes"},
            },
        },
        "Group": {
            "Type": "AWS::Cognito::UserPoolGroup",
            "Properties": {"GroupName": "mlflow-viewer", "UserPoolId": {"Ref": "Pool"}},
        },
    },
    "Outputs": {
        "Pool": {"Value": {"Ref": "Pool"}},
        "Client": {"Value": {"Ref": "Client"}},
        "Issuer": {"Value": {"Fn::GetAtt": ["Pool", "ProviderURL"]}},
    },
}


@dataclass
class Pool:
    """A user pool with one user, `viewer`, and a browser that trusts its page."""

    id: str
    client_id: str
    secret: str
    issuer: str
    browser: httpx.Client

    def asked(self, **more: str) -> dict[str, str]:
        return {
            "client_id": self.client_id,
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "scope": "openid",
            "state": "s t/a",
            "nonce": "n",
            **more,
        }

    def submit(self, *, password: str = PASSWORD) -> httpx.Response:
        """Fill in the page's form and send it."""
        page = self.browser.get("/oauth2/authorize", params=self.asked()).text
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
        return self.browser.post("/login", data={**hidden, "username": "viewer", "password": password})

    def tokens(self, **form: str) -> httpx.Response:
        return self.browser.post(
            "/oauth2/token", data={"client_id": self.client_id, **form}, auth=(self.client_id, self.secret)
        )

    def signed_in(self) -> dict[str, Any]:
        """The tokens of a user who has just signed in."""
        code = parse_qs(urlsplit(self.submit().headers["Location"]).query)["code"][0]
        answer = self.tokens(grant_type="authorization_code", code=code, redirect_uri=CALLBACK)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def claims(self, token: str, **more: Any) -> dict[str, Any]:
        keys = jwt.PyJWKSet.from_dict(self.browser.get(f"{self.issuer}/.well-known/jwks.json").json())
        key = keys[jwt.get_unverified_header(token)["kid"]]
        return dict(jwt.decode(token, key.key, ["RS256"], issuer=self.issuer, **more))


@pytest.fixture(scope="module")
def pool(account: Account) -> Iterator[Pool]:
    cloudformation = account.aws.client("cloudformation")
    cloudformation.create_stack(StackName="pool", TemplateBody=json.dumps(TEMPLATE))
    while True:
        stack = cloudformation.describe_stacks(StackName="pool")["Stacks"][0]
        if not stack["StackStatus"].endswith("IN_PROGRESS"):
            break
        time.sleep(0.05)
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    cognito, pool = account.aws.client("cognito-idp"), {"UserPoolId": outputs["Pool"]}
    cognito.admin_create_user(**pool, Username="viewer", MessageAction="SUPPRESS")
    cognito.admin_set_user_password(**pool, Username="viewer", Password=PASSWORD, Permanent=True)
    cognito.admin_add_user_to_group(**pool, Username="viewer", GroupName="mlflow-viewer")
    client = cognito.describe_user_pool_client(**pool, ClientId=outputs["Client"])["UserPoolClient"]
    trust = ssl.create_default_context(cafile=str(account.authority.bundle))
    with httpx.Client(base_url=account.sign_in_url, verify=trust, trust_env=False) as browser:
        yield Pool(
            id=outputs["Pool"],
            client_id=outputs["Client"],
            secret=client["ClientSecret"],
            issuer=outputs["Issuer"],
            browser=browser,
        )


def test_the_pool_s_issuer_is_where_its_keys_are(pool: Pool, account: Account) -> None:
    assert pool.issuer == f"{account.sign_in_url}/{pool.id}"
    document = pool.browser.get(f"{pool.issuer}/.well-known/openid-configuration").json()
    assert document["issuer"] == pool.issuer
    assert document["jwks_uri"] == f"{pool.issuer}/.well-known/jwks.json"


def test_signing_in_leads_back_with_a_code_and_the_state(pool: Pool) -> None:
    answer = pool.submit()
    assert answer.status_code == 302
    location = urlsplit(answer.headers["Location"])
    assert f"{location.scheme}://{location.netloc}{location.path}" == CALLBACK
    assert parse_qs(location.query)["state"] == ["s t/a"]


def test_the_access_token_says_who_it_is_and_in_which_groups(pool: Pool) -> None:
    claims = pool.claims(pool.signed_in()["access_token"])
    assert (claims["token_use"], claims["client_id"]) == ("access", pool.client_id)
    assert (claims["username"], claims["cognito:groups"]) == ("viewer", ["mlflow-viewer"])
    assert claims["exp"] - claims["iat"] == 900
    assert "aud" not in claims


def test_the_id_token_is_for_the_client_and_this_sign_in(pool: Pool) -> None:
    claims = pool.claims(pool.signed_in()["id_token"], audience=pool.client_id)
    assert (claims["token_use"], claims["nonce"]) == ("id", "n")


def test_a_renewed_token_still_names_the_groups(pool: Pool) -> None:
    first = pool.signed_in()
    renewed = pool.tokens(grant_type="refresh_token", refresh_token=first["refresh_token"]).json()
    assert pool.claims(renewed["access_token"])["cognito:groups"] == ["mlflow-viewer"]


def test_user_info_needs_an_access_token(pool: Pool) -> None:
    tokens = pool.signed_in()
    told = pool.browser.get("/oauth2/userInfo", headers={"Authorization": f"Bearer {tokens['access_token']}"})
    assert told.json()["username"] == "viewer"
    for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {tokens['id_token']}"}):
        assert pool.browser.get("/oauth2/userInfo", headers=wrong).status_code == 401


def test_a_wrong_password_shows_the_page_again_and_says_so(pool: Pool) -> None:
    answer = pool.submit(password="wrong")
    assert answer.status_code == 200
    assert "Incorrect username or password." in answer.text
    assert "wrong" not in answer.text.replace("--wrong", "")


def test_a_code_is_good_once_and_only_with_the_client_s_secret(pool: Pool) -> None:
    code = parse_qs(urlsplit(pool.submit().headers["Location"]).query)["code"][0]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    without = pool.browser.post("/oauth2/token", data={"client_id": pool.client_id, **form})
    assert without.status_code == 400
    assert pool.tokens(**form).status_code == 200
    assert pool.tokens(**form).status_code == 400


@pytest.mark.parametrize(
    "elsewhere",
    ["https://elsewhere.example.com/oauth2/idpresponse", "https://deployed.example.com/oauth2/idpresponse"],
)
def test_the_page_redirects_nowhere_else(pool: Pool, elsewhere: str) -> None:
    answer = pool.browser.get("/oauth2/authorize", params=pool.asked(redirect_uri=elsewhere))
    assert answer.status_code == 400
    assert "<form" not in answer.text


def test_the_page_forbids_frames_scripts_and_caches(pool: Pool) -> None:
    headers = pool.browser.get("/oauth2/authorize", params=pool.asked()).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self' https://localhost:8443;" in policy
    assert headers["Cache-Control"] == "no-store"


def test_input_is_escaped_in_the_page(pool: Pool) -> None:
    page = pool.browser.get("/oauth2/authorize", params=pool.asked(state='"><script>alert(1)</script>')).text
    assert "<script" not in page


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("POST", "/"), ("GET", "/_ministack/health"), ("GET", "/nobody/.well-known/jwks.json")],
)
def test_the_host_serves_nothing_else(pool: Pool, method: str, path: str) -> None:
    assert pool.browser.request(method, path).status_code == 404


def test_a_form_s_size_is_limited(pool: Pool) -> None:
    assert pool.browser.post("/login", content=b"x" * 70_000).status_code == 413
