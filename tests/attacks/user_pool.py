"""A user pool that signs in anybody: the part of Cognito that a load balancer calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from local.parts.http_server import JsonHandler
from local.parts.token_issuer import KEYS_PATH, TokenIssuer

POOL_ID = "eu-central-1_Attacked"
CLIENT_ID = "1example23456789"
SUBJECT = "6f1d1c1e-user"


@dataclass
class UserPool(TokenIssuer):
    """Issues Cognito's tokens; the code of a sign-in is the nonce for its id token."""

    username: str = "someone"
    group: str = "mlflow-contributor"

    @property
    def base_url(self) -> str:
        """Where the pool's pages and token endpoint are."""
        return f"https://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The issuer's identifier."""
        return f"{self.base_url}/{POOL_ID}"

    def access_token(self, **claims: Any) -> str:
        """The signed-in person's access token."""
        return self.user_token(
            username=self.username, client_id=CLIENT_ID, groups=[self.group], claims=claims or None
        )

    def id_token(self, **claims: Any) -> str:
        """The signed-in person's id token, which in Cognito has the groups too."""
        person = {"cognito:username": self.username, "cognito:groups": [self.group], "token_use": "id"}
        return self.token(subject=SUBJECT, audience=CLIENT_ID, claims={**person, **claims})

    def handler(self) -> type[JsonHandler]:
        """Serves keys, tokens and the user's claims."""
        pool = self

        class Handler(JsonHandler):
            def do_GET(self) -> None:
                if self.path == f"/{POOL_ID}{KEYS_PATH}":
                    self.answer(200, pool.jwks)
                elif self.path == "/oauth2/userInfo":
                    self.answer(200, {"sub": SUBJECT, "username": pool.username})
                else:
                    self.answer(404, None)

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.answer(
                    200,
                    {
                        "id_token": pool.id_token(nonce=form["code"][0]),
                        "access_token": pool.access_token(),
                        "refresh_token": "refresh",
                        "expires_in": 300,
                    },
                )

        return Handler
