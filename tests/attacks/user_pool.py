"""A user pool that signs in whoever comes: the part of Cognito that a load balancer talks to."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from local.parts.token_issuer import KEYS_PATH, TokenIssuer

POOL_ID = "eu-central-1_Attacked"
CLIENT_ID = "1example23456789"
SUBJECT = "6f1d1c1e-user"


@dataclass
class UserPool(TokenIssuer):
    """Issues Cognito's tokens; the code of a sign-in is the nonce that its id token shall carry."""

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
        """What the signed-in person's access token is."""
        return self.user_token(
            username=self.username, client_id=CLIENT_ID, groups=[self.group], claims=claims or None
        )

    def id_token(self, **claims: Any) -> str:
        """What the signed-in person's id token is, with the groups that Cognito writes into it too."""
        person = {"cognito:username": self.username, "cognito:groups": [self.group], "token_use": "id"}
        return self.token(subject=SUBJECT, audience=CLIENT_ID, claims={**person, **claims})

    @contextlib.contextmanager
    def serving(self) -> Iterator[UserPool]:
        """Serve keys, tokens and the user's claims until the end of the `with` block."""
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self.certificate.certificate, self.certificate.key)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.daemon_threads = True
        self.port = int(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5)


def _handler(pool: UserPool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path == f"/{POOL_ID}{KEYS_PATH}":
                self._answer(pool.jwks)
            elif self.path == "/oauth2/userInfo":
                self._answer({"sub": SUBJECT, "username": pool.username})
            else:
                self._answer(None)

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self._answer(
                {
                    "id_token": pool.id_token(nonce=form["code"][0]),
                    "access_token": pool.access_token(),
                    "refresh_token": "refresh",
                    "expires_in": 300,
                }
            )

        def _answer(self, document: dict[str, Any] | None) -> None:
            body = json.dumps(document).encode()
            self.send_response(404 if document is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
