"""Budgets as an ASGI application around another one."""

from __future__ import annotations

from functools import partial

from mlflow_aws_server.asgi import App, Receive, Scope, Send, header_values, refuse, replay, with_length
from mlflow_aws_server.aside import BODIES
from mlflow_aws_server.budgets import questions, shape, traces
from mlflow_aws_server.budgets.bodies import Bodies
from mlflow_aws_server.budgets.encodings import decode
from mlflow_aws_server.budgets.sizes import limit_of
from mlflow_aws_server.errors import BodyError, OverloadedError, RefusedError
from mlflow_aws_server.limits import BODY, LARGE_BODY, SMALL_BODY
from mlflow_aws_server.shares import CALLER, Shares

TRACES_PATH = "/v1/traces"
"""The only route that MLflow takes compressed bodies on, and others than JSON."""


class Budgets:
    """Refuses requests that are beyond a limit, before they have an effect; see `limits`.

    A request's body is read here, once, for all applications behind: they get it whole and plain.
    """

    def __init__(self, app: App, shares: Shares | None = None) -> None:
        self._app = app
        self._shares = shares or Shares()
        self.bodies = Bodies()
        """What is held now."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = b""
        try:
            try:
                length, coded = _declared(scope)
                if length != 0:
                    # No limit is smaller, and to look for one takes time.
                    small = length is not None and length <= SMALL_BODY
                    limit = BODY if small else limit_of(scope["path"])
                    sent = await self.bodies.read(receive, length, limit)
                    if sent is None:
                        return
                    body = sent
                    if coded or len(body) > LARGE_BODY or scope["path"] == TRACES_PATH:
                        body = self.bodies.exchange(body, await _plain(scope, body))
                        scope = _of_plain_body(scope, len(body))
                    receive = replay(body, receive)
                method, path, query = scope["method"].upper(), scope["path"], scope.get("query_string", b"")
                if len(body) + len(query) > questions.SHORT and questions.judges(method, path):
                    await self._shares.answer(CALLER.get())
                questions.check(method, path, query, body)
            except RefusedError as refusal:
                await self._refuse(send, refusal)
                return
            await self._app(scope, receive, send)
        finally:
            self.bodies.release(body)

    async def _refuse(self, send: Send, refusal: RefusedError) -> None:
        """Refuse, in turn: a loop of refused requests would leave no time for others' work."""
        who = CALLER.get()
        if refusal.retry_after is None:
            self._shares.refused(who)
        try:
            await self._shares.answer(who)
        except OverloadedError as overload:
            refusal = overload
        await refuse(send, refusal)


async def _plain(scope: Scope, body: bytes) -> bytes:
    """The body as it may be passed on: decompressed, and of a harmless shape."""
    path = scope["path"]
    encoding = b",".join(header_values(scope, b"content-encoding")).decode("latin-1").strip().lower()
    if encoding not in ("", "identity"):
        if path != TRACES_PATH or encoding not in ("gzip", "deflate"):
            raise BodyError(415, "A body with this Content-Encoding is not accepted here; send it plain.")
        body = await BODIES.run(decode, body, encoding, limit_of(path))
    if path != TRACES_PATH:
        await BODIES.run(shape.check, body)
        return body
    # Of several types MLflow takes the first, and refuses others than these.
    media = (header_values(scope, b"content-type") or [b""])[0].decode("latin-1").partition(";")[0].strip()
    if media == "application/json":
        await BODIES.run(shape.check, body)
    if media in ("application/json", "application/x-protobuf"):
        await BODIES.run(partial(traces.check, is_json=media == "application/json"), body)
    return body


def _declared(scope: Scope) -> tuple[int | None, bool]:
    """The length of a request's body, None if it is not said; and whether the body is coded for transport.

    Raises:
        BodyError: Content-Length is not one number.
    """
    length: int | None = None
    coded = chunked = False
    for name, value in scope["headers"]:
        if name == b"content-length":
            if length is not None or not value.isdigit() or len(value) > _LONGEST_NUMBER:
                raise BodyError(400, "Content-Length is not one number.")
            length = int(value)
        elif name in _CODING:
            coded = True
            chunked = chunked or name == b"transfer-encoding"
    return (None if chunked else length or 0), coded


def _of_plain_body(scope: Scope, length: int) -> Scope:
    return with_length(
        {**scope, "headers": [each for each in scope["headers"] if each[0] not in _CODING]}, length
    )


_LONGEST_NUMBER = 15
_CODING = frozenset((b"transfer-encoding", b"content-encoding"))
