"""A gate whose issuers are in this process, in front of an application that says what reached it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from mlflow_aws_server.identity import AuditLog, Gate, IdentitySettings, RoleMap, UserPool
from mlflow_aws_server.identity.keys import Keys

from local.parts.certificates import ServerCertificate
from local.parts.token_issuer import TokenIssuer
from stacks.roles import BY_NAME
from tests.roles import server_roles

AUDIENCE = "https://mlflow.example.com"
CLIENT_ID = "1example23456789"
ACCOUNT = "123456789012"
PARTNER = "222233334444"
_NOWHERE = ServerCertificate(Path("/nowhere"), Path("/nowhere"))


def arn(role: str, account: str = ACCOUNT) -> str:
    return f"arn:aws:iam::{account}:role/mlflow-{role}"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.body)
        return made


@dataclass
class Behind:
    """Stands for MLflow: answers 200 and remembers the scopes and bodies that reached it."""

    reached: list[dict[str, Any]] = field(default_factory=list)
    answer: bytes = b"{}"
    status: int = 200

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope)
        if scope["type"] != "http":
            return
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": self.answer})


@dataclass
class World:
    """A gate, what is behind it, its issuers, and how often their keys were fetched.

    `partner` issues the tokens of a second account, whose role `mlflow-viewer` is a viewer here.
    """

    sts: TokenIssuer
    user_pool: TokenIssuer
    partner: TokenIssuer
    now: float | None = None
    audited: list[dict[str, Any]] = field(default_factory=list)
    behind: Behind = field(default_factory=Behind)
    fetched: int = 0

    def __post_init__(self) -> None:
        import time

        self.settings = IdentitySettings(
            token_issuers={
                self.sts.url: f"arn:aws:iam::{ACCOUNT}",
                self.partner.url: f"arn:aws:iam::{PARTNER}",
            },
            token_audience=AUDIENCE,
            public_url=AUDIENCE,
            roles=RoleMap.parse(
                server_roles(
                    {
                        role: {
                            "iam_roles": [arn(role), *([arn(role, PARTNER)] if role == "viewer" else [])],
                            "groups": [f"mlflow-{role}"],
                        }
                        for role in BY_NAME
                    }
                )
            ),
            user_pool=UserPool(issuer=self.user_pool.url, client_id=CLIENT_ID),
        )
        audit = AuditLog(lambda line: self.audited.append(json.loads(line)))
        self.gate = Gate(
            self.behind, self.settings, audit=audit, fetch=self._fetch, clock=lambda: self.now or time.time()
        )

    def _fetch(self, url: str) -> Keys:
        self.fetched += 1
        [issuer] = [each for each in (self.sts, self.user_pool, self.partner) if each.url == url]
        if not issuer.available:
            raise ConnectionRefusedError("nobody listens")
        return {key.key_id: key.private.public_key() for key in issuer.keys}

    def token(self, role: str = "contributor", **changes: Any) -> str:
        return self.sts.token(**{"subject": arn(role), "audience": AUDIENCE, **changes})

    def partner_token(self, **changes: Any) -> str:
        """A token of the second account's viewer."""
        given = {"subject": arn("viewer", PARTNER), "audience": AUDIENCE}
        return self.partner.token(**{**given, **changes})

    def user_token(self, role: str = "contributor", **changes: Any) -> str:
        given = {"username": "someone", "client_id": CLIENT_ID, "groups": [f"mlflow-{role}"]}
        return self.user_pool.user_token(**{**given, **changes})

    async def call(
        self,
        method: str = "GET",
        path: str = "/api/2.0/mlflow/runs/get",
        *,
        token: str | None = None,
        person: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        query: bytes = b"",
    ) -> Answer:
        """One request, `path` as it would stand in the request line."""
        sent = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        if token is not None:
            sent.append((b"authorization", b"Bearer " + token.encode("latin-1")))
        if person is not None:
            sent.append((b"x-amzn-oidc-accesstoken", person.encode("latin-1")))
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode("latin-1"),
            "query_string": query,
            "root_path": "",
            "headers": sent,
        }
        messages: list[Mapping[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        await self.gate(scope, receive, send)
        start = messages[0]
        headers_of_answer = {k.decode(): v.decode() for k, v in start["headers"]}
        return Answer(start["status"], headers_of_answer, b"".join(m.get("body", b"") for m in messages[1:]))


@pytest.fixture(scope="session")
def issuers() -> tuple[TokenIssuer, ...]:
    return (
        TokenIssuer(_NOWHERE, host="sts.example.com", port=443),
        TokenIssuer(_NOWHERE, host="cognito.example.com", port=443),
        TokenIssuer(_NOWHERE, host="sts-of-partner.example.com", port=443),
    )


@pytest.fixture
def world(issuers: tuple[TokenIssuer, ...]) -> World:
    """A fresh gate; its issuers start with the keys they had and are available."""
    sts, pool, partner = (
        TokenIssuer(_NOWHERE, host=each.host, port=each.port, keys=list(each.keys)) for each in issuers
    )
    return World(sts, pool, partner)


@pytest.fixture
def lines(world: World) -> list[dict[str, Any]]:
    """The audit lines of this test."""
    return world.audited
