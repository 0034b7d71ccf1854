"""What the gate lets through, what it refuses, and what it says."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow_aws_server.asgi import PRINCIPAL
from mlflow_aws_server.database.admission import STATE
from mlflow_aws_server.fast_path_state import FastPathState
from mlflow_aws_server.identity import Gate, Lane, Principal

from local.parts.token_issuer import SigningKey
from tests.server.identity.conftest import ACCOUNT, AUDIENCE, CLIENT_ID, PARTNER, World, arn

_READ = "/api/2.0/mlflow/runs/get"
_AWS_CLAIMS = "https://sts.amazonaws.com/"
_PROMOTE = "/api/2.0/mlflow/model-versions/transition-stage"


def _part(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def _claims(world: World, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {"iss": world.sts.url, "aud": AUDIENCE, "sub": arn("admin"), "iat": now, "exp": now + 300}
    return {**made, **changes}


def _unsigned(world: World) -> str:
    return f"{_part({'alg': 'none', 'kid': world.sts.key.key_id})}.{_part(_claims(world))}."


def _signed_with_the_public_key(world: World) -> str:
    import hashlib
    import hmac

    head = _part({"alg": "HS256", "kid": world.sts.key.key_id, "typ": "JWT"})
    signed = f"{head}.{_part(_claims(world))}"
    digest = hmac.new(world.sts.key.public_pem, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def _elliptic(world: World) -> str:
    key = ec.generate_private_key(ec.SECP384R1())
    return jwt.encode(_claims(world), key, algorithm="ES384", headers={"kid": world.sts.key.key_id})


def _with_another_key(world: World) -> str:
    return SigningKey(world.user_pool.key.private, world.sts.key.key_id).sign(_claims(world))


def _changed_afterwards(world: World) -> str:
    head, _, signature = world.token("viewer").split(".")
    return f"{head}.{_part(_claims(world))}.{signature}"


_TOKENS: dict[str, tuple[Callable[[World], str], str]] = {
    "no signature": (_unsigned, "malformed"),
    "an HMAC with the public key": (_signed_with_the_public_key, "algorithm"),
    "an elliptic curve": (_elliptic, "algorithm"),
    "another key under a known id": (_with_another_key, "signature"),
    "claims changed afterwards": (_changed_afterwards, "signature"),
    "algorithm in lower case": (
        lambda w: ".".join([_part({"alg": "rs256", "kid": w.sts.key.key_id}), *w.token().split(".")[1:]]),
        "algorithm",
    ),
    "unknown key id": (lambda w: w.token(headers={"kid": "unknown"}), "unknown-key"),
    "key id that is a path": (lambda w: w.token(headers={"kid": "../../dev/null"}), "key-id"),
    "key id that is a URL": (lambda w: w.token(headers={"kid": "https://evil.example/k"}), "key-id"),
    "key id that is too long": (lambda w: w.token(headers={"kid": "k" * 129}), "key-id"),
    "jku": (lambda w: w.token(headers={"jku": "https://evil.example/jwks.json"}), "header"),
    "x5u": (lambda w: w.token(headers={"x5u": "https://evil.example/chain.pem"}), "header"),
    "x5c": (lambda w: w.token(headers={"x5c": ["MIIB"]}), "header"),
    "jwk": (lambda w: w.token(headers={"jwk": w.sts.key.public_jwk}), "header"),
    "crit": (lambda w: w.token(headers={"crit": ["exp"]}), "header"),
    "foreign issuer": (lambda w: w.token(claims={"iss": "https://evil.example"}), "issuer"),
    "issuer with a slash more": (lambda w: w.token(claims={"iss": w.sts.url + "/"}), "issuer"),
    "no issuer": (lambda w: w.token(claims={"iss": None}), "claims"),
    "no audience": (lambda w: w.token(claims={"aud": None}), "audience"),
    "another audience": (lambda w: w.token(audience="https://other.example.com"), "audience"),
    "audience that begins alike": (lambda w: w.token(audience=AUDIENCE + ".evil.example"), "audience"),
    "list of audiences": (lambda w: w.token(audience=[AUDIENCE]), "audience"),
    "expired": (lambda w: w.token(seconds=-31), "expired"),
    "no expiry": (lambda w: w.token(claims={"exp": None}), "claims"),
    "expiry that is not a number": (lambda w: w.token(claims={"exp": "soon"}), "malformed"),
    "infinite expiry": (lambda w: w.token(claims={"exp": float("inf")}), "malformed"),
    "not yet valid": (lambda w: w.token(claims={"nbf": int(time.time()) + 330}), "not-yet-valid"),
    "issued in the future": (lambda w: w.token(claims={"iat": int(time.time()) + 330}), "not-yet-valid"),
    "no subject": (lambda w: w.token(claims={"sub": None}), "claims"),
    "assumed role": (
        lambda w: w.token(subject=f"arn:aws:sts::{ACCOUNT}:assumed-role/mlflow-admin/session"),
        "subject",
    ),
    "user": (lambda w: w.token(subject=f"arn:aws:iam::{ACCOUNT}:user/mlflow-admin"), "subject"),
    "person's token": (lambda w: w.user_token("admin"), "issuer"),
    "role of the other account": (lambda w: w.partner_token(subject=arn("admin")), "account"),
    "role of an account that begins alike": (
        lambda w: w.partner_token(subject=arn("viewer", PARTNER).replace("iam::", "iam::0", 1)),
        "subject",
    ),
    "role in another partition": (
        lambda w: w.partner_token(subject=arn("viewer", PARTNER).replace("arn:aws:", "arn:aws-cn:")),
        "account",
    ),
    "role of our account, by the other's key under its id": (
        lambda w: w.partner.key.sign(_claims(w)),
        "unknown-key",
    ),
    "role of our account, by the other's key under our id": (
        lambda w: SigningKey(w.partner.key.private, w.sts.key.key_id).sign(_claims(w)),
        "signature",
    ),
    "the other's issuer, by our key under our id": (
        lambda w: w.token(claims={"iss": w.partner.url}),
        "unknown-key",
    ),
    "the other's issuer, by our key under its id": (
        lambda w: SigningKey(w.sts.key.private, w.partner.key.key_id).sign(
            _claims(w, iss=w.partner.url, sub=arn("viewer", PARTNER))
        ),
        "signature",
    ),
    "both issuers": (
        lambda w: f"{w.token().split('.')[0]}.{_part(_claims(w, iss=[w.sts.url, w.partner.url]))}.c2ln",
        "issuer",
    ),
    "the other's issuer in capitals": (
        lambda w: w.partner_token(claims={"iss": w.partner.url.replace("sts", "STS")}),
        "issuer",
    ),
    "the other's issuer with a slash more": (
        lambda w: w.partner_token(claims={"iss": w.partner.url + "/"}),
        "issuer",
    ),
    "the other's issuer with its port left out": (
        lambda w: w.partner_token(claims={"iss": w.partner.url.removesuffix(":443")}),
        "issuer",
    ),
    "account of AWS's claims is another": (
        lambda w: w.token(claims={_AWS_CLAIMS: {"aws_account": PARTNER}}),
        "account",
    ),
    "asked for by another role on somebody's behalf": (
        lambda w: w.token("admin", claims={_AWS_CLAIMS: {"principal_id": arn("viewer")}}),
        "account",
    ),
    "AWS's claims cannot be read": (lambda w: w.token(claims={_AWS_CLAIMS: "123456789012"}), "account"),
    "truncated": (lambda w: w.token()[:-41], "malformed"),
    "truncated by whole bytes": (lambda w: w.token()[:-42], "signature"),
    "two parts": (lambda w: ".".join(w.token().split(".")[:2]), "malformed"),
    "four parts": (lambda w: w.token() + ".e30", "malformed"),
    "padding": (lambda w: w.token() + "==", "malformed"),
    "empty": (lambda w: "", "malformed"),
    "a space": (lambda w: " " + w.token(), "malformed"),
    "not ASCII": (lambda w: w.token() + "\xe9", "malformed"),
    "oversized": (lambda w: w.token(claims={"filling": "x" * 16_384}), "oversized"),
    "header that is a list": (lambda w: f"W10.{_part(_claims(w))}.c2ln", "malformed"),
    "header nested deeply": (
        lambda w: base64.urlsafe_b64encode(b"[" * 6000).decode().rstrip("=") + ".e30.c2ln",
        "malformed",
    ),
}


@pytest.mark.parametrize("name", _TOKENS)
async def test_program_s_token_is_refused(world: World, name: str, lines: list[dict[str, Any]]) -> None:
    make, reason = _TOKENS[name]
    token = make(world)
    answer = await world.call(path=_READ, token=token)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json["error_code"] == "UNAUTHENTICATED"
    assert not world.behind.reached
    (line,) = lines
    assert (line["audit"], line["reason"], line["principal"]) == ("refused", reason, None)
    # Neither the caller nor the log is told any part of it.
    told = answer.body.decode() + json.dumps(line)
    assert not [part for part in token.split(".") if len(part) > 8 and part in told]


_PEOPLE: dict[str, tuple[Callable[[World], str], str]] = {
    "id token": (
        lambda w: w.user_token(claims={"token_use": "id", "aud": CLIENT_ID, "client_id": None}),
        "token-use",
    ),
    "id token that names the client": (lambda w: w.user_token(claims={"token_use": "id"}), "token-use"),
    "another application's": (lambda w: w.user_token(client_id="another"), "client-id"),
    "no client": (lambda w: w.user_token(claims={"client_id": None}), "client-id"),
    "another user pool's": (
        lambda w: w.user_token(claims={"iss": w.user_pool.url + "2"}),
        "issuer",
    ),
    "expired": (lambda w: w.user_token(seconds=-31), "expired"),
    "no name": (lambda w: w.user_token(claims={"username": None}), "username"),
    "name with a line break": (lambda w: w.user_token(username="a\nb"), "username"),
    "groups that are a text": (
        lambda w: w.user_token(claims={"cognito:groups": "mlflow-admin"}),
        "claims",
    ),
    "program's token": (lambda w: w.token("admin"), "issuer"),
    "not signed": (lambda w: _unsigned(w), "malformed"),
}


@pytest.mark.parametrize("name", _PEOPLE)
async def test_person_s_token_is_refused(world: World, name: str, lines: list[dict[str, Any]]) -> None:
    make, reason = _PEOPLE[name]
    answer = await world.call(path=_READ, person=make(world))
    assert (answer.status, lines[0]["reason"]) == (401, reason)
    assert not world.behind.reached


async def test_program_passes_and_its_credentials_end_here(world: World) -> None:
    answer = await world.call(
        path=_READ,
        token=world.token("viewer"),
        headers=[("Cookie", "AWSELBAuthSessionCookie-0=x"), ("X-A", "b")],
    )
    assert answer.status == 200
    (scope,) = world.behind.reached
    assert scope[PRINCIPAL] == Principal(
        name=arn("viewer"), roles=world.settings.roles.of_iam_role(arn("viewer")), lane=Lane.IAM
    )
    assert scope["headers"] == [(b"x-a", b"b")]


async def test_person_passes_and_her_credentials_end_here(world: World) -> None:
    forwarded = [("x-amzn-oidc-identity", "sub"), ("x-amzn-oidc-data", "a.b.c")]
    answer = await world.call(path=_READ, person=world.user_token("approver"), headers=forwarded)
    assert answer.status == 200
    (scope,) = world.behind.reached
    assert scope[PRINCIPAL] == Principal(
        name="cognito:someone", roles=world.settings.roles.of_groups(["mlflow-approver"]), lane=Lane.COGNITO
    )
    assert scope["headers"] == []


async def test_highest_of_a_person_s_groups_counts(world: World) -> None:
    token = world.user_token(groups=["other", "mlflow-viewer", "mlflow-admin"])
    assert (await world.call(path="/api/2.0/mlflow/webhooks", person=token)).status == 200


async def test_clocks_may_differ(world: World) -> None:
    now = int(time.time())
    assert (await world.call(path=_READ, token=world.token(seconds=-25))).status == 200
    assert (
        await world.call(path=_READ, token=world.token(claims={"nbf": now + 295, "iat": now + 295}))
    ).status == 200


@pytest.mark.parametrize(
    ("name", "headers", "with_token"),
    [
        ("nothing", [], False),
        ("two tokens", [("Authorization", "Bearer a.b.c")], True),
        ("lower-case scheme", [("Authorization", "bearer {token}")], False),
        ("mixed-case scheme", [("Authorization", "bEARER {token}")], False),
        ("tab", [("Authorization", "Bearer\t{token}")], False),
        ("two spaces", [("Authorization", "Bearer  {token}")], False),
        ("list", [("Authorization", "Bearer {token}, Bearer {token}")], False),
        ("basic", [("Authorization", "Basic YWRtaW46cGFzc3dvcmQ=")], False),
        ("bare token", [("Authorization", "{token}")], False),
        ("both lanes", [("x-amzn-oidc-accesstoken", "{person}")], True),
        ("identity beside a bearer", [("x-amzn-oidc-identity", "admin")], True),
        (
            "lower-case scheme on a session",
            [("authorization", "bearer x"), ("x-amzn-oidc-accesstoken", "{person}")],
            False,
        ),
        ("forged identity", [("x-amzn-oidc-identity", "admin"), ("x-amzn-oidc-data", "a.b.c")], False),
        ("two access tokens", [("x-amzn-oidc-accesstoken", "{person}")] * 2, False),
        (
            "two identities",
            [("x-amzn-oidc-accesstoken", "{person}"), *[("x-amzn-oidc-identity", "x")] * 2],
            False,
        ),
    ],
)
async def test_headers_that_do_not_name_exactly_one_identity_are_refused(
    world: World, name: str, headers: list[tuple[str, str]], with_token: bool
) -> None:
    token, person = world.token("admin"), world.user_token("admin")
    sent = [(key, value.format(token=token, person=person)) for key, value in headers]
    answer = await world.call(path=_READ, token=token if with_token else None, headers=sent)
    assert answer.status == 401
    assert not world.behind.reached


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
async def test_method_cannot_be_overridden(world: World, name: str) -> None:
    answer = await world.call(path=_READ, token=world.token("admin"), headers=[(name, "DELETE")])
    assert answer.status == 400
    assert not world.behind.reached


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_no_request_upgrades_to_another_protocol(world: World, protocol: str) -> None:
    headers = [("Connection", "Upgrade"), ("Upgrade", protocol)]
    assert (await world.call(path=_READ, token=world.token("admin"), headers=headers)).status == 400
    assert not world.behind.reached


@pytest.mark.parametrize(
    "headers",
    [
        [("Host", "localhost")],
        [("X-Forwarded-For", "127.0.0.1")],
        [("X-Forwarded-Host", "localhost"), ("X-Forwarded-Prefix", "/health")],
        [("X-Original-URL", "/health"), ("X-Rewrite-URL", "/health")],
        [("Forwarded", "for=127.0.0.1;host=localhost")],
    ],
)
async def test_no_header_makes_a_request_another_one(world: World, headers: list[tuple[str, str]]) -> None:
    assert (await world.call("POST", _PROMOTE, headers=headers)).status == 401
    answer = await world.call("POST", _PROMOTE, token=world.token("viewer"), headers=headers)
    assert answer.status == 403
    assert not world.behind.reached


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_health_alone_is_open(world: World, method: str) -> None:
    assert (await world.call(method, "/health")).status == 200
    # No thread of MLflow's is waited for.
    assert world.behind.reached == []


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
async def test_head_and_options_need_the_role_too(world: World, method: str) -> None:
    assert (await world.call(method, _READ)).status == 401
    assert (await world.call(method, "/api/2.0/mlflow/webhooks", token=world.token("viewer"))).status == 403
    assert not world.behind.reached


async def test_role_too_low_is_told_which_is_needed(world: World) -> None:
    answer = await world.call("POST", _PROMOTE, token=world.token("contributor"))
    assert answer.status == 403
    assert answer.json["error_code"] == "PERMISSION_DENIED"
    assert "needs the role approver" in answer.json["message"]
    assert f"{arn('contributor')} is contributor" in answer.json["message"]


async def test_unknown_route_is_denied_to_the_administrator_too(world: World) -> None:
    answer = await world.call("POST", "/api/2.0/mlflow/anything/new", token=world.token("admin"))
    assert (answer.status, answer.json["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert not world.behind.reached


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/gateway/openai/v1/embeddings", "not a gateway"),
        # Provenance relies on it: what this route makes cannot say who made it.
        ("/ajax-api/2.0/mlflow/runs/create-promptlab-run", "from the client to S3"),
    ],
)
async def test_what_is_not_offered_says_so(world: World, path: str, why: str) -> None:
    answer = await world.call("POST", path, token=world.token("admin"))
    assert answer.status == 403
    assert why in answer.json["message"]
    assert not world.behind.reached


async def test_a_path_that_werkzeug_would_read_as_another_reaches_nobody(world: World) -> None:
    answer = await world.call("POST", "//api/2.0/mlflow/runs/set-tag", token=world.token("admin"))
    assert answer.status == 400
    assert not world.behind.reached
    assert not world.behind.reached


@pytest.mark.parametrize(
    "subject",
    [
        f"arn:aws:iam::{ACCOUNT}:role/mlflow-adminx",
        f"arn:aws:iam::{ACCOUNT}:role/mlflow-admi",
        f"arn:aws:iam::{ACCOUNT}:role/team/mlflow-admin",
    ],
)
async def test_caller_without_a_role_is_told_who_can_help(
    world: World, subject: str, lines: list[dict[str, Any]]
) -> None:
    answer = await world.call(path=_READ, token=world.token(subject=subject))
    assert (answer.status, answer.json["error_code"]) == (403, "PERMISSION_DENIED")
    assert subject in answer.json["message"]
    assert lines[0]["principal"] == subject
    assert not world.behind.reached


async def test_person_without_a_role_is_told_who_can_help(world: World) -> None:
    answer = await world.call(path=_READ, person=world.user_token(groups=[]))
    assert answer.status == 403
    assert "cognito:someone has no role" in answer.json["message"]


@pytest.mark.parametrize("prefix", ["/api", "/ajax-api"])
async def test_whoami_is_answered_by_the_gate(world: World, prefix: str) -> None:
    answer = await world.call(path=f"{prefix}/2.0/mlflow-aws/whoami", token=world.token("contributor"))
    assert answer.json == {
        "principal": arn("contributor"),
        "role": "contributor",
        "permissions": ["read", "write"],
        "lane": "iam",
        "ui_url": AUDIENCE,
        "seals": True,
        "schema": STATE.said(),
        "process": os.getpid(),
    }
    assert not world.behind.reached


@pytest.mark.parametrize("role", ["viewer", "admin"])
async def test_whoami_says_whether_the_fast_path_of_this_process_serves(world: World, role: str) -> None:
    state = FastPathState()
    state.step_aside("the schema is another")
    state.left["unknown fields"] += 2
    world.gate = Gate(world.behind, world.settings, fetch=world._fetch, fast_path=state)
    answer = await world.call(path="/api/2.0/mlflow-aws/whoami", token=world.token(role))
    assert answer.json["fast_path"] == {"serving": False, "reason": "the schema is another"}
    assert answer.json.get("left_to_stock") == ({"unknown fields": 2} if role == "admin" else None)


async def test_a_person_of_two_groups_may_do_what_either_permits(world: World) -> None:
    person = world.user_token(groups=["mlflow-auditor", "mlflow-approver"])
    answer = await world.call(path="/api/2.0/mlflow-aws/whoami", person=person)
    assert answer.json["role"] == "approver"
    assert answer.json["permissions"] == ["read", "audit", "write", "approve"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [(AUDIENCE, 200), ("https://evil.example", 403), ("http://localhost:3000", 403), ("null", 403)],
)
async def test_person_s_session_changes_nothing_for_another_site(
    world: World, origin: str, status: int
) -> None:
    answer = await world.call(
        "POST",
        "/ajax-api/2.0/mlflow/runs/create",
        person=world.user_token(),
        headers=[("Origin", origin)],
    )
    assert answer.status == status


async def test_browser_gets_a_page_and_a_program_gets_json(world: World) -> None:
    html = [("Accept", "text/html,*/*")]
    page = await world.call(
        path="/", person=world.user_token(groups=["a<b>"], username="<script>"), headers=html
    )
    assert (page.status, page.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert b"cognito:&lt;script&gt; has no role" in page.body
    assert (await world.call(path=_READ, headers=html)).json["error_code"] == "UNAUTHENTICATED"


async def test_web_socket_is_refused(world: World, lines: list[dict[str, Any]]) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    token = world.token("admin").encode()
    scope = {"type": "websocket", "path": _READ, "headers": [(b"authorization", b"Bearer " + token)]}
    await world.gate(scope, asyncio.Queue[Any]().get, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert not world.behind.reached
    assert lines[0]["method"] == "WEBSOCKET"


async def test_verified_token_is_not_verified_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token = world.token()
    assert (await world.call(path=_READ, token=token)).status == 200
    monkeypatch.setattr(jwt, "decode", None)
    assert (await world.call(path=_READ, token=token)).status == 200


async def test_remembered_token_expires_all_the_same(world: World) -> None:
    token = world.token(seconds=60)
    assert (await world.call(path=_READ, token=token)).status == 200
    world.now = time.time() + 61
    monitored = world.token(seconds=60, claims={"exp": int(time.time()) - 31})
    assert (await world.call(path=_READ, token=monitored)).status == 401


async def test_remembered_tokens_are_forgotten_when_keys_change(world: World) -> None:
    token = world.token()
    assert (await world.call(path=_READ, token=token)).status == 200
    world.sts.rotate()
    world.sts.forget_old()
    store = world.gate._stores[0]
    store._tried_at = float("-inf")
    assert (await world.call(path=_READ, token=world.token())).status == 200
    assert (await world.call(path=_READ, token=token)).status == 401


async def test_issuer_out_of_reach_at_the_start_makes_clients_try_again(world: World) -> None:
    world.sts.available = False
    answer = await world.call(path=_READ, token=world.token())
    assert (answer.status, answer.json["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) > 0


async def test_role_of_a_second_account_has_its_role_here(world: World) -> None:
    assert (await world.call(path=_READ, token=world.partner_token())).status == 200
    assert (await world.call("POST", _PROMOTE, token=world.partner_token())).status == 403


async def test_accounts_do_not_share_their_issuers_outages(world: World) -> None:
    world.partner.available = False
    assert (await world.call(path=_READ, token=world.partner_token())).status == 503
    assert (await world.call(path=_READ, token=world.token())).status == 200


async def test_accounts_do_not_share_their_issuers_new_keys(world: World) -> None:
    ours, theirs = world.token(), world.partner_token()
    for token in (ours, theirs):
        assert (await world.call(path=_READ, token=token)).status == 200
    asked = world.fetched
    for _ in range(20):
        invented = world.partner_token(headers={"kid": "invented"})
        assert (await world.call(path=_READ, token=invented)).status == 401
    assert world.fetched == asked, "a key id that was just looked for is not looked for again"
    store = world.gate._stores[1]
    world.partner.rotate()
    world.partner.forget_old()
    store._tried_at = float("-inf")
    assert (await world.call(path=_READ, token=world.partner_token())).status == 200
    assert (await world.call(path=_READ, token=theirs)).status == 401
    assert (await world.call(path=_READ, token=ours)).status == 200
    assert world.fetched == asked + 1


async def test_people_can_work_while_the_programs_issuer_is_out_of_reach(world: World) -> None:
    world.sts.available = False
    assert (await world.call(path=_READ, person=world.user_token())).status == 200


@pytest.mark.parametrize("needed", ["sts", "user_pool"])
async def test_server_is_not_ready_before_it_can_verify_anybody(world: World, needed: str) -> None:
    issuer = getattr(world, needed)
    issuer.available = False
    for store in world.gate._stores:
        await store._refresh()
    with pytest.raises(RuntimeError, match=f"no keys from {issuer.url}$"):
        world.gate.require_keys()
    issuer.available = True
    await _later(world)
    world.gate.require_keys()
    world.sts.available = world.user_pool.available = False
    await _later(world)
    world.gate.require_keys()


async def test_partner_s_issuer_out_of_reach_keeps_the_server_from_nobody_else(world: World) -> None:
    world.partner.available = False
    for store in world.gate._stores:
        await store._refresh()
    world.gate.require_keys()


async def _later(world: World) -> None:
    for store in world.gate._stores:
        store._tried_at = float("-inf")
        await store._refresh()
