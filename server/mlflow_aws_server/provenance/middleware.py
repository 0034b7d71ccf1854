"""Provenance as an ASGI application around another one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Protocol

from mlflow_aws_server.fastpath import bodies
from mlflow_aws_server.fastpath.bodies import Bodies
from mlflow_aws_server.fastpath.database import Connection, connector
from mlflow_aws_server.fastpath.errors import OverloadedError, SlowBodyError
from mlflow_aws_server.fastpath.settings import FastPathSettings
from mlflow_aws_server.fastpath.stock import App, Receive, Scope, Send
from mlflow_aws_server.provenance import documents, tags
from mlflow_aws_server.provenance.conditions import conditions_of
from mlflow_aws_server.provenance.errors import RefusedError, reserved
from mlflow_aws_server.provenance.inner import replay
from mlflow_aws_server.provenance.locks import ModelLocks
from mlflow_aws_server.provenance.promotion import Promotion, Promotions
from mlflow_aws_server.provenance.routes import Concern, concern_of

PRINCIPAL = "mlflow_aws.principal"
"""The key under which the gate leaves the verified principal in the ASGI scope."""

_READS = frozenset(("GET", "HEAD", "OPTIONS"))


class Principal(Protocol):
    """Who is calling, verified."""

    @property
    def name(self) -> str:
        """The role's ARN, or `cognito:` and the user's name."""


class Provenance:
    """Writes into MLflow who did what, and lets no client write or remove it.

    Runs, logged models and model versions are created with the tag `mlflow_aws.principal`. Each change of
    a stage or an alias leaves a tag `mlflow_aws.history.*` on the version, and can be made conditional by
    `If-Match: "VERSION"` and `If-None-Match: *`. Whoever tries to set or delete such a tag gets 403.

    What was judged is what MLflow gets: a body that needed a closer look is written anew. One that cannot
    be understood, or a caller whom the gate did not name, is refused.
    """

    def __init__(
        self,
        app: App,
        settings: FastPathSettings,
        *,
        open_connection: Callable[[], Awaitable[Connection]] | None = None,
    ) -> None:
        """`open_connection` replaces the way to the database that `settings` describe (in tests)."""
        self._app = app
        self._bodies = Bodies()
        self._promotions = Promotions(app, ModelLocks(open_connection or connector(settings)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http" or scope["method"] in _READS:
            await self._app(scope, receive, send)
            return
        # Werkzeug takes `post` for `POST`.
        known = concern_of(scope["method"].upper(), scope["path"])
        if known is None:
            await self._app(scope, receive, send)
            return
        concern, key = known
        try:
            await self._serve(concern, key, scope, receive, send)
        except RefusedError as refused:
            await _refuse(send, refused)

    async def _serve(self, concern: Concern, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        principal = _principal(scope)
        if concern is Concern.UNATTRIBUTED:
            raise RefusedError(
                501,
                "NOT_IMPLEMENTED",
                "Runs made this way cannot say who made them; use runs/create instead.",
            )
        if concern is Concern.GUARD_PATH:
            if tags.is_reserved(key):
                raise reserved(key)
            await self._app(scope, receive, send)
            return
        try:
            raw = await self._bodies.read(receive, _length(scope))
        except OverloadedError as error:
            raise RefusedError(429, "RESOURCE_EXHAUSTED", str(error), retry_after=1) from None
        except SlowBodyError as error:
            raise RefusedError(408, "REQUEST_LIMIT_EXCEEDED", str(error)) from None
        if raw is None:
            return
        try:
            await self._judge(concern, raw, principal, scope, receive, send)
        finally:
            self._bodies.release(raw)

    async def _judge(
        self, concern: Concern, raw: bytes, principal: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if concern is Concern.GUARD and not tags.may_name_reserved(raw):
            await self._app(scope, replay(raw, receive), send)
            return
        document = documents.read(raw)
        if concern is Concern.GUARD:
            tags.refuse_reserved(document)
        elif concern is Concern.STAMP:
            document = tags.stamp(document, principal=principal)
        else:
            promotion = Promotion.read(concern, document)
            body = documents.write(promotion.document())
            answer = await self._promotions.make(
                promotion, conditions_of(scope["headers"]), _with(scope, body), body, principal=principal
            )
            await answer.pass_to(send)
            return
        body = documents.write(document)
        await self._app(_with(scope, body), replay(body, receive), send)


def _principal(scope: Scope) -> str:
    principal: Principal | None = scope.get(PRINCIPAL)
    if principal is None or not principal.name:
        raise RefusedError(
            500, "INTERNAL_ERROR", "The caller's identity is unknown here; nothing was changed."
        )
    return principal.name


def _length(scope: Scope) -> int:
    """The length of the body that comes.

    Raises:
        RefusedError: it is not said, or is larger than any such call can need.
    """
    lengths = {value for name, value in scope["headers"] if name == b"content-length"}
    if any(name == b"transfer-encoding" for name, _ in scope["headers"]) or len(lengths) > 1:
        raise RefusedError(411, "INVALID_PARAMETER_VALUE", "Send the body with one Content-Length.")
    text = lengths.pop() if lengths else b"0"
    if not text.isdigit():
        raise RefusedError(400, "INVALID_PARAMETER_VALUE", "Content-Length is no number.")
    if int(text) > bodies.LARGEST:
        raise RefusedError(
            413,
            "INVALID_PARAMETER_VALUE",
            f"The body has {int(text)} bytes; at most {bodies.LARGEST} can be taken. Send less at once.",
        )
    return int(text)


def _with(scope: Scope, body: bytes) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", b"%d" % len(body))]}


async def _refuse(send: Send, refused: RefusedError) -> None:
    body = json.dumps({"error_code": refused.code, "message": refused.message}).encode("ascii")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if refused.retry_after is not None:
        headers.append((b"retry-after", b"%d" % refused.retry_after))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
