"""The last look at what stock MLflow answers: no error shows how the server is built."""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterable

from mlflow_aws_server.asgi import JSON, App, Message, Receive, Scope, Send

_logger = logging.getLogger(__name__)

_LONGEST_LINE = 4000
_INSIDE = (
    r"\[SQL:|\[parameters:|sqlalche\.me|sqlalchemy\.|psycopg2?\.|asyncpg\.|Traceback \(most recent call|"
    r"connection to server at|/site-packages/"
)
# A store wraps whatever its code raises, as an error of the server's.
_UNREADABLE = re.compile(
    rb"invalid literal for int\(\)|int\(\) argument must be|could not convert string to float|"
    rb"object is not iterable|object is not subscriptable|object has no attribute"
)
_INTERNAL = "INTERNAL_ERROR"
_GRAPHQL = "/graphql"
_REPLACED = frozenset((b"content-type", b"content-length"))


class Redaction:
    """Replaces errors of `app` that hold SQL, a driver's words, a traceback or one of `hosts`.

    The original is in the log, under a reference that the answer names. `database.errors` keeps such errors
    from being made; this is the net behind it.
    """

    def __init__(self, app: App, *, hosts: Iterable[str]) -> None:
        self._app = app
        self._inside = re.compile("|".join([_INSIDE, *map(re.escape, hosts)]).encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_graphql = scope["path"] == _GRAPHQL
        start: Message | None = None
        pieces: list[bytes] = []

        async def send_checked(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if message["status"] >= 400 or is_graphql:
                    start = message
                    return
            elif start is not None:
                pieces.append(message.get("body", b""))
                if message.get("more_body", False):
                    return
                body = b"".join(pieces)
                if start["status"] >= 400 or b'"errors"' in body:
                    start, body = self._checked(start, body)
                await send(start)
                message = {"type": "http.response.body", "body": body}
            await send(message)

        await self._app(scope, receive, send_checked)

    def _checked(self, start: Message, body: bytes) -> tuple[Message, bytes]:
        status = start["status"]
        if status == 500 and _UNREADABLE.search(body):
            return _replaced(
                start, body, 400, "INVALID_PARAMETER_VALUE", "MLflow cannot read a value of this request."
            )
        if self._inside.search(body):
            return _replaced(start, body, status, _code(body), "The request failed.")
        return start, body


def _replaced(start: Message, body: bytes, status: int, code: str | None, what: str) -> tuple[Message, bytes]:
    reference = secrets.token_hex(4)
    seen = body[:_LONGEST_LINE].decode(errors="replace")
    _logger.error("answer %d withheld, reference %s: %s", start["status"], reference, seen)
    message = f"{what} Reference: {reference}."
    # GraphQL reports errors with 200.
    told = {"error_code": code, "message": message} if status >= 400 else {"data": None, "errors": [message]}
    body = json.dumps(told).encode("ascii")
    kept = [(name, value) for name, value in start["headers"] if name.lower() not in _REPLACED]
    headers = [(b"content-type", JSON), (b"content-length", b"%d" % len(body)), *kept]
    return {**start, "status": status, "headers": headers}, body


def _code(body: bytes) -> str:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    return str(told.get("error_code", _INTERNAL)) if isinstance(told, dict) else _INTERNAL
