"""The attacks, by their names in the requirements; each must be refused at both doors."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.attacks import forged_tokens as forged
from tests.attacks.deployed_rules import AUDIENCE
from tests.attacks.doors import CUT_OFF, Headers, Request
from tests.attacks.world import ACCOUNT, ADMIN, PARTNER_ADMIN, READ, VIEWER, WRITE, World


@dataclass(frozen=True)
class Attempt:
    """A request, its headers, and the statuses that refuse it."""

    headers: Headers = ()
    requests: Sequence[Request] = (READ, WRITE)
    refusals: frozenset[int] = frozenset((401,))


Attack = Callable[[World], Attempt]
ANY_REFUSAL = frozenset((400, 401, 403, 404))
TOO_LARGE = frozenset((400, 401, 431, CUT_OFF))


def bearer(token: str, *more: tuple[str, str]) -> Headers:
    return (("Authorization", f"Bearer {token}"), *more)


def person(token: str) -> Headers:
    return (("x-amzn-oidc-accesstoken", token), ("x-amzn-oidc-identity", "someone"))


def _token(make: Callable[[World], str]) -> Attack:
    return lambda world: Attempt(bearer(make(world)))


def _person(make: Callable[[World], str]) -> Attack:
    return lambda world: Attempt(person(make(world)))


def _subject(subject: str, *refusals: int) -> Attack:
    return lambda world: Attempt(bearer(world.token(subject)), refusals=frozenset(refusals))


def _path(target: str) -> Attack:
    """A path that a proxy may take for one that needs less; with too low a role, and without a token."""

    def attempt(world: World) -> Attempt:
        requests = [
            Request("POST", target, WRITE.body, bearer(world.token(VIEWER))),
            Request("POST", target, WRITE.body),
            Request("GET", target),
        ]
        return Attempt(requests=requests, refusals=ANY_REFUSAL)

    return attempt


def _plain(headers: Headers, *requests: Request, refusals: frozenset[int] = ANY_REFUSAL) -> Attack:
    return lambda world: Attempt(headers, requests or (READ, WRITE), refusals)


def _kid(kid: str) -> Mapping[str, Attack]:
    return {
        f"{kid} by the attacker": _token(
            lambda world: forged.with_header(world.token(), world.mallory.key, kid=kid)
        ),
        f"{kid} by the true key": _token(
            lambda world: forged.with_header(world.token(), world.sts.key, kid=kid)
        ),
    }


def _now(seconds: float) -> int:
    return int(time.time() + seconds)


ATTACKS: Mapping[str, Mapping[str, Attack]] = {
    "alg none": {
        "none": _token(lambda w: forged.unsigned(w.token(), algorithm="none")),
        "None": _token(lambda w: forged.unsigned(w.token(), algorithm="None")),
        "nOnE with a signature": _token(
            lambda w: forged.unsigned(w.token(), algorithm="nOnE", signature=w.token().rpartition(".")[2])
        ),
        "empty": _token(lambda w: forged.unsigned(w.token(), algorithm="", signature="AAAA")),
        "in the person's lane": _person(
            lambda w: forged.unsigned(w.pool.access_token(), algorithm="none", signature="AAAA")
        ),
    },
    "HS256 signed with the public key": {
        "as PEM": _token(lambda w: forged.by_public_key(w.token(), w.sts.key)),
        "in the person's lane": _person(lambda w: forged.by_public_key(w.pool.access_token(), w.pool.key)),
    },
    "ES384": {
        "by the attacker": _token(lambda w: forged.by_elliptic_curve(w.token())),
        "PS256 by the true key": _token(
            lambda w: forged.by_true_key(w.token(), w.sts.key, algorithm="PS256")
        ),
        "RS384 by the true key": _token(
            lambda w: forged.by_true_key(w.token(), w.sts.key, algorithm="RS384")
        ),
    },
    "unknown kid": {
        "a new one": _token(lambda w: forged.with_header(w.token(), w.sts.key, kid="nobody-knows-it")),
        "none": _token(lambda w: forged.with_header(w.token(), w.sts.key, kid=None)),
        "empty": _token(lambda w: forged.with_header(w.token(), w.sts.key, kid="")),
        "a number": _token(lambda w: forged.with_header(w.token(), w.sts.key, kid=0)),
        "a list": _token(lambda w: forged.with_header(w.token(), w.sts.key, kid=[w.sts.key.key_id])),
        "the known one, another key": _token(
            lambda w: forged.with_header(w.token(), w.mallory.key, kid=w.sts.key.key_id)
        ),
    },
    "kid with a path or URL": {
        **_kid("../../../../../../dev/null"),
        **_kid("/etc/passwd"),
        **_kid("https://evil.example/jwks.json#1"),
        "the attacker's published key": _token(
            lambda w: forged.with_header(
                w.token(), w.mallory.key, kid=f"{w.mallory.url}/.well-known/jwks.json"
            )
        ),
    },
    "jku/x5u headers": {
        "jku": _token(
            lambda w: forged.with_header(
                w.token(),
                w.mallory.key,
                kid=w.mallory.key.key_id,
                jku=f"{w.mallory.url}/.well-known/jwks.json",
            )
        ),
        "x5u": _token(
            lambda w: forged.with_header(
                w.token(), w.mallory.key, kid=w.mallory.key.key_id, x5u=f"{w.mallory.url}/chain.pem"
            )
        ),
        "jwk": _token(
            lambda w: forged.with_header(
                w.token(), w.mallory.key, kid=w.mallory.key.key_id, jwk=w.mallory.key.public_jwk
            )
        ),
        "jku under the known kid": _token(
            lambda w: forged.with_header(
                w.token(),
                w.mallory.key,
                kid=w.sts.key.key_id,
                jku=f"{w.mallory.url}/.well-known/jwks.json",
            )
        ),
    },
    "foreign issuer": {
        "its own": _token(lambda w: w.mallory.token(subject=ADMIN, audience=AUDIENCE)),
        "ours by name": _token(
            lambda w: w.mallory.token(subject=ADMIN, audience=AUDIENCE, claims={"iss": w.sts.url})
        ),
        "its own, our key": _token(lambda w: w.token(claims={"iss": w.mallory.url})),
        "ours and a slash": _token(lambda w: w.token(claims={"iss": w.sts.url + "/"})),
        "ours in a list": _token(
            lambda w: forged.with_header(forged.with_claims(w.token(), iss=[w.sts.url]), w.sts.key)
        ),
        "none": _token(lambda w: w.token(claims={"iss": None})),
        "another pool": _person(lambda w: w.pool.access_token(iss=f"{w.pool.base_url}/eu-central-1_Another")),
    },
    "one account's issuer for another account": {
        "the second account's, our admin": _token(lambda w: w.partner_token(ADMIN)),
        "ours, the second account's admin": _token(lambda w: w.token(PARTNER_ADMIN)),
        "the second account's, a third's admin": _token(
            lambda w: w.partner_token("arn:aws:iam::333344445555:role/admin")
        ),
        "its key under our issuer": _token(lambda w: w.partner_token(ADMIN, claims={"iss": w.sts.url})),
        "its key under our issuer and key id": _token(
            lambda w: forged.with_header(w.token(), w.partner.key, kid=w.sts.key.key_id)
        ),
        "our key under its issuer": _token(lambda w: w.token(PARTNER_ADMIN, claims={"iss": w.partner.url})),
        "our key under its issuer and key id": _token(
            lambda w: forged.with_header(w.partner_token(), w.sts.key, kid=w.partner.key.key_id)
        ),
        "its issuer and a slash": _token(lambda w: w.partner_token(claims={"iss": w.partner.url + "/"})),
        "its issuer in capitals": _token(lambda w: w.partner_token(claims={"iss": w.partner.url.upper()})),
        "its issuer beside ours": _token(
            lambda w: w.token(claims={"issuer": w.partner.url, "iss": w.partner.url, "note": w.sts.url})
        ),
        "its admin asked for by another role": _token(
            lambda w: w.partner_token(claims={"https://sts.amazonaws.com/": {"principal_id": VIEWER}})
        ),
        "its admin in another account's claims": _token(
            lambda w: w.partner_token(claims={"https://sts.amazonaws.com/": {"aws_account": "123456789012"}})
        ),
        "as a person's": _person(lambda w: w.partner_token()),
    },
    "missing / wrong / array audience": {
        "missing": _token(lambda w: w.token(claims={"aud": None})),
        "another": _token(lambda w: w.token(audience="https://other.example.com")),
        "empty": _token(lambda w: w.token(audience="")),
        "with a slash": _token(lambda w: w.token(audience=AUDIENCE + "/")),
        "in upper case": _token(lambda w: w.token(audience=AUDIENCE.upper())),
        "array of ours": _token(lambda w: w.token(audience=[AUDIENCE])),
        "array with ours": _token(lambda w: w.token(audience=["https://other.example.com", AUDIENCE])),
        "object": _token(lambda w: w.token(claims={"aud": {AUDIENCE: True}})),
        "changed afterwards": _token(
            lambda w: forged.with_claims(w.token(audience="https://other.example.com"), aud=AUDIENCE)
        ),
    },
    "expired": {
        "an hour ago": _token(lambda w: w.token(seconds=-3600)),
        "beyond the leeway": _token(lambda w: w.token(seconds=-60)),
        "never": _token(lambda w: w.token(claims={"exp": None})),
        "no time": _token(lambda w: w.token(claims={"exp": "tomorrow"})),
        "changed afterwards": _token(lambda w: forged.with_claims(w.token(seconds=-60), exp=_now(300))),
        "in the person's lane": _person(lambda w: w.pool.access_token(exp=_now(-60))),
    },
    "not yet valid": {
        "nbf": _token(lambda w: w.token(claims={"nbf": _now(3600)})),
        "nbf beyond the leeway": _token(lambda w: w.token(claims={"nbf": _now(330)})),
        "iat": _token(lambda w: w.token(claims={"iat": _now(3600)})),
    },
    "token of another service": {
        "for S3 from our issuer": _token(lambda w: w.token(audience="sts.amazonaws.com")),
        "GitHub's": _token(
            lambda w: w.mallory.token(
                subject="repo:example/models:ref:refs/heads/main",
                audience=AUDIENCE,
                claims={"iss": "https://token.actions.githubusercontent.com"},
            )
        ),
        "the person's as a program's": _token(lambda w: w.pool.access_token()),
        "the person's with our audience as a program's": _token(lambda w: w.pool.access_token(aud=AUDIENCE)),
        "the program's as a person's": _person(lambda w: w.token()),
    },
    "truncated, oversized (> 16 KB) or non-ASCII tokens": {
        "without the end": _token(lambda w: w.token()[:-12]),
        "without signature": _token(lambda w: w.token().rpartition(".")[0] + "."),
        "two parts": _token(lambda w: w.token().rpartition(".")[0]),
        "four parts": _token(lambda w: w.token() + ".AAAA"),
        "empty": _token(lambda w: ""),
        "a word": _token(lambda w: "token"),
        "oversized": lambda w: Attempt(bearer(w.token(claims={"padding": "x" * 17_000})), refusals=TOO_LARGE),
        "very much oversized": lambda w: Attempt(bearer("A" * 200_000), refusals=TOO_LARGE),
        "non-ASCII": lambda w: Attempt(bearer(w.token() + "é"), refusals=frozenset((400, 401))),
        "with a space": _token(lambda w: w.token().replace(".", ". ", 1)),
        "with a tab": _token(lambda w: w.token().replace(".", ".\t", 1)),
        "with padding": _token(lambda w: w.token() + "=="),
        "oversized in the person's lane": lambda w: Attempt(
            person(w.pool.access_token(padding="x" * 17_000)), refusals=TOO_LARGE
        ),
    },
    "two Authorization headers": {
        "both good": lambda w: Attempt(bearer(w.token(), *bearer(w.token()))),
        "good and bad": lambda w: Attempt(bearer(w.token(), *bearer("bad"))),
        "bad and good": lambda w: Attempt(bearer("bad", *bearer(w.token()))),
        "the second in lower case": lambda w: Attempt(
            bearer(w.token(VIEWER), ("authorization", f"bearer {w.token()}"))
        ),
        "in one": lambda w: Attempt(bearer(f"{w.token()}, Bearer {w.token()}")),
    },
    "lower-case and mixed-case scheme": {
        scheme.strip() + ("" if scheme == scheme.rstrip() else " and much space"): (
            lambda w, scheme=scheme: Attempt((("Authorization", f"{scheme} {w.token()}"),))
        )
        for scheme in ("bearer", "BEARER", "bEaReR", "Bearer ", "Token", "Basic")
    }
    | {
        "no scheme": lambda w: Attempt((("Authorization", w.token()),)),
        "a tab for the space": lambda w: Attempt((("Authorization", f"Bearer\t{w.token()}"),)),
        "a password": _plain(
            (("Authorization", f"Basic {base64.b64encode(b'admin:password1234').decode()}"),),
            refusals=frozenset((401,)),
        ),
    },
    "bearer together with ALB identity headers": {
        "both good": lambda w: Attempt(bearer(w.token(), *person(w.pool.access_token()))),
        "the viewer's with an admin's": lambda w: Attempt(
            bearer(w.token(VIEWER), *person(w.pool.access_token(**{"cognito:groups": ["mlflow-admin"]})))
        ),
        "identity alone": lambda w: Attempt(bearer(w.token(), ("x-amzn-oidc-identity", "admin"))),
        "data alone": lambda w: Attempt(bearer(w.token(), ("X-Amzn-Oidc-Data", "e30.e30.e30"))),
        "an empty one": lambda w: Attempt(bearer(w.token(), ("x-amzn-oidc-accesstoken", ""))),
    },
    "forged `x-amzn-oidc-*` without the ALB": {
        "identity": _plain((("x-amzn-oidc-identity", "admin"),), refusals=frozenset((401,))),
        "data": lambda w: Attempt(
            (
                ("x-amzn-oidc-data", forged.by_elliptic_curve(w.pool.id_token())),
                ("x-amzn-oidc-identity", "admin"),
            )
        ),
        "access token by the attacker": _person(
            lambda w: forged.with_header(w.pool.access_token(), w.mallory.key, kid=w.pool.key.key_id)
        ),
        "access token with another group": _person(
            lambda w: forged.with_claims(w.pool.access_token(), **{"cognito:groups": ["mlflow-admin"]})
        ),
        "twice": lambda w: Attempt((*person(w.pool.access_token()), *person(w.pool.access_token()))),
        "with underscores": lambda w: Attempt((("x_amzn_oidc_accesstoken", w.pool.access_token()),)),
        "a session cookie": _plain(
            (("Cookie", "AWSELBAuthSessionCookie-0=forged"),), refusals=frozenset((401,))
        ),
    },
    "another client id's access token": {
        "another": _person(lambda w: w.pool.user_token(username="a", client_id="x", groups=["mlflow-admin"])),
        "none": _person(lambda w: w.pool.access_token(client_id=None)),
        "in a list": _person(lambda w: w.pool.access_token(client_id=["1example23456789"])),
        "as audience": _person(lambda w: w.pool.access_token(client_id="x", aud="1example23456789")),
    },
    "an id token in place of an access token": {
        "as it is": _person(lambda w: w.pool.id_token()),
        "with the client's id": _person(
            lambda w: w.pool.id_token(client_id="1example23456789", username="a")
        ),
        "without its use": _person(lambda w: w.pool.access_token(token_use=None)),
        "as a program's": _token(lambda w: w.pool.id_token()),
    },
    "`//`, `/./`, `%2e%2e`, `%2f`, `;x`, trailing dots and upper case in paths": {
        path: _path(path)
        for path in (
            "//api/2.0/mlflow/experiments/create",
            "///api/2.0/mlflow/experiments/create",
            "/api//2.0/mlflow/experiments/create",
            "/api/2.0/mlflow/experiments//create",
            "/./api/2.0/mlflow/experiments/create",
            "/api/2.0/./mlflow/experiments/create",
            "/health/../api/2.0/mlflow/experiments/create",
            "/health/%2e%2e/api/2.0/mlflow/experiments/create",
            "/static-files/%2E%2E/api/2.0/mlflow/experiments/create",
            "/health/.%2e/api/2.0/mlflow/experiments/create",
            "/health/%252e%252e/api/2.0/mlflow/experiments/create",
            "/%2fapi/2.0/mlflow/experiments/create",
            "/api%2f2.0/mlflow/experiments/create",
            "/api/2.0/mlflow%2Fexperiments/create",
            "/health%2f..%2fapi/2.0/mlflow/experiments/create",
            "/api/2.0/mlflow/experiments/create;x",
            "/health;x/../api/2.0/mlflow/experiments/create",
            "/api;x/2.0/mlflow/experiments/create",
            "/api/2.0/mlflow/experiments/create.",
            "/api/2.0/mlflow/experiments/create..",
            "/api/2.0/mlflow/experiments./create",
            "/api/2.0/mlflow/experiments/create/",
            "/api/2.0/mlflow/experiments/create/.",
            "/API/2.0/mlflow/experiments/create",
            "/api/2.0/MLFLOW/experiments/create",
            "/api/2.0/mlflow/experiments/Create",
            "/%61pi/2.0/mlflow/experiments/create",
            "/api/2.0/mlflow/experiments/create%00",
            "/api/2.0/mlflow/experiments/create%20",
            "/api/2.0/mlflow/experiments/create%3fx",
            "/api/2.0/mlflow/experiments/create%23x",
            "/api\\2.0\\mlflow\\experiments\\create",
            "/api/2.0/mlflow/experiments%5ccreate",
            "/HEALTH",
            "/health/",
            "/health/x",
            "/health.",
        )
    },
    "X-HTTP-Method-Override": {
        f"{header} {method}": (
            lambda w, header=header, method=method: Attempt(
                bearer(w.token(VIEWER), (header, "POST")),
                [Request(method, WRITE.target, WRITE.body)],
                ANY_REFUSAL,
            )
        )
        for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
        for method in ("GET", "PUT")
    }
    | {
        "to nothing's harm": _plain((("X-HTTP-Method-Override", "GET"),)),
        "as a read": lambda w: Attempt(
            bearer(w.token(VIEWER), ("X-HTTP-Method-Override", "HEAD")), [WRITE], ANY_REFUSAL
        ),
        "in the query": lambda w: Attempt(
            bearer(w.token(VIEWER)),
            [Request("GET", WRITE.target + "?_method=POST", WRITE.body)],
            ANY_REFUSAL,
        ),
    },
    "Host and X-Forwarded-* tricks": {
        "from this machine": _plain((("X-Forwarded-For", "127.0.0.1"), ("X-Real-IP", "127.0.0.1"))),
        "Forwarded": _plain((("Forwarded", "for=127.0.0.1;proto=https;host=localhost"),)),
        "a user in a header": _plain(
            (("X-Forwarded-User", "admin"), ("X-Remote-User", "admin"), ("Remote-User", "admin"))
        ),
        "another address": _plain((("X-Original-URL", "/health"), ("X-Rewrite-URL", "/health"))),
        "a prefix": _plain((("X-Forwarded-Prefix", "/health"), ("X-Script-Name", "/health"))),
        "another host": lambda w: Attempt(
            bearer(w.token()),
            [
                Request(READ.method, READ.target, host="evil.example"),
                Request(WRITE.method, WRITE.target, WRITE.body, host="evil.example"),
            ],
            ANY_REFUSAL,
        ),
        "localhost": _plain(
            (),
            Request(READ.method, READ.target, host="localhost"),
            Request(WRITE.method, WRITE.target, WRITE.body, host="127.0.0.1:5000"),
        ),
        "a whole URL whose host looks harmless": _plain(
            (),
            Request("GET", f"http://localhost/health/..{READ.target}"),
            Request("POST", f"https://localhost{WRITE.target}", WRITE.body),
            Request("POST", f"http:/health{WRITE.target}", WRITE.body),
        ),
        "readiness from outside": _plain(
            (("X-Forwarded-For", "203.0.113.9"),), Request("GET", "/ready"), Request("POST", "/ready", {})
        ),
        "another origin, a person's session": lambda w: Attempt(
            (*person(w.pool.access_token()), ("Origin", "https://evil.example")), [WRITE], ANY_REFUSAL
        ),
    },
    "WebSocket upgrade": {
        name: (
            lambda w, headers=headers: Attempt(  # type: ignore[misc]
                (
                    ("Connection", "Upgrade"),
                    ("Upgrade", "websocket"),
                    ("Sec-WebSocket-Version", "13"),
                    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                    *headers(w),
                ),
                [Request("GET", READ.target), Request("GET", "/health/x"), Request("GET", WRITE.target)],
                ANY_REFUSAL | {426},
            )
        )
        for name, headers in (
            ("of nobody", lambda w: ()),
            ("with a forged token", lambda w: bearer(w.mallory.token(subject=ADMIN, audience=AUDIENCE))),
            (
                "with the token as its protocol",
                lambda w: (("Sec-WebSocket-Protocol", f"bearer, {w.token()}"),),
            ),
        )
    },
    "HEAD/OPTIONS on protected routes": {
        "of nobody": _plain(
            (),
            *(
                Request(method, target)
                for method in ("HEAD", "OPTIONS")
                for target in (READ.target, WRITE.target)
            ),
            Request("OPTIONS", "*"),
            Request("TRACE", READ.target),
            Request("CONNECT", READ.target),
        ),
        "a browser's question from elsewhere": _plain(
            (("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")),
            Request("OPTIONS", WRITE.target),
        ),
        "of a viewer": lambda w: Attempt(
            bearer(w.token(VIEWER)),
            [
                Request("HEAD", WRITE.target, WRITE.body),
                Request("OPTIONS", WRITE.target, WRITE.body),
                Request("PATCH", WRITE.target, WRITE.body),
                Request("post", WRITE.target, WRITE.body),
                Request("FROB", WRITE.target, WRITE.body),
            ],
            ANY_REFUSAL | {405},
        ),
    },
    "a role ARN that is a prefix of, or differs in path from, an allowed one": {
        "shorter": _subject(ADMIN[:-1], 403),
        "longer": _subject(ADMIN + "2", 403),
        "its path alone": _subject(f"{ACCOUNT}:role/team/", 401, 403),
        "its directory": _subject(f"{ACCOUNT}:role/team", 403),
        "without its path": _subject(f"{ACCOUNT}:role/admin", 403),
        "deeper": _subject(f"{ACCOUNT}:role/team/x/admin", 403),
        "beneath": _subject(ADMIN + "/x", 403),
        "before": _subject(f"{ACCOUNT}:role/x/team/admin", 403),
        "in upper case": _subject(f"{ACCOUNT}:role/team/Admin", 403),
        "doubled slash": _subject(f"{ACCOUNT}:role/team//admin", 403),
        "line end": _subject(ADMIN + "\n", 401, 403),
        "space": _subject(ADMIN + " ", 401, 403),
        "wildcard of its own": _subject(f"{ACCOUNT}:role/*", 403),
        "the pattern's directory": _subject(f"{ACCOUNT}:role/batch", 403),
        "the pattern's neighbour": _subject(f"{ACCOUNT}:role/batches/train", 403),
        "a user": _subject(f"{ACCOUNT}:user/team/admin", 401, 403),
        "the account": _subject(f"{ACCOUNT}:root", 401, 403),
        "nobody": _subject("", 401),
        "another partition": _subject(ADMIN.replace("arn:aws:", "arn:aws-cn:"), 401),
    },
    "the assumed-role form in place of the role ARN": {
        "of the admin": _subject("arn:aws:sts::123456789012:assumed-role/admin/session", 401, 403),
        "with the path": _subject("arn:aws:sts::123456789012:assumed-role/team/admin/session", 401, 403),
        "as an IAM ARN": _subject("arn:aws:iam::123456789012:assumed-role/team/admin", 401, 403),
        "of the pattern": _subject("arn:aws:sts::123456789012:assumed-role/batch/x", 401, 403),
    },
    "wildcard patterns that would match another account": {
        "its name in another account": _subject("arn:aws:iam::210987654321:role/batch/train", 401),
        "our ARN in its name": _subject(f"arn:aws:iam::210987654321:role/{ACCOUNT}:role/batch/train", 401),
        "our account in its name": _subject("arn:aws:iam::210987654321:role/123456789012:role/batch/x", 401),
        "two accounts": _subject(f"{ACCOUNT},arn:aws:iam::210987654321:role/batch/x", 401),
        "an admin there": _subject("arn:aws:iam::210987654321:role/team/admin", 401),
        "no account": _subject("arn:aws:iam:::role/batch/train", 401),
    },
}
