"""The gate: an ASGI application in front of MLflow that lets verified callers do what their roles permit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import html
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mlflow_aws_server.asgi import (
    JSON,
    MAY_LAG,
    NOT_STORED,
    PRINCIPAL,
    ROUTE,
    App,
    Header,
    Message,
    Receive,
    Scope,
    Send,
    header_values,
    refusal_headers,
    refuse,
    respond,
)
from mlflow_aws_server.database.admission import STATE
from mlflow_aws_server.errors import OverloadedError
from mlflow_aws_server.fast_path_state import FastPathState
from mlflow_aws_server.identity.access import EXPOSITION, HEALTH, WHOAMI, Route, require, route_of
from mlflow_aws_server.identity.audit import LARGEST_BODY, OBJECT, AuditRecord, event
from mlflow_aws_server.identity.audit_log import AuditLog, to_standard_output
from mlflow_aws_server.identity.callers import Callers
from mlflow_aws_server.identity.errors import (
    AccessDeniedError,
    MalformedRequestError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from mlflow_aws_server.identity.keys import Keys, KeyStore, fetch_keys
from mlflow_aws_server.identity.own_models import concerns, require_own
from mlflow_aws_server.identity.paths import refuse_ambiguous
from mlflow_aws_server.identity.roles import Lane, Permission, Place, Principal, rights
from mlflow_aws_server.identity.settings import IdentitySettings
from mlflow_aws_server.metrics.prometheus import CONTENT_TYPE
from mlflow_aws_server.shares import Shares

_BEARER = b"Bearer "
_ACCESS_TOKEN = b"x-amzn-oidc-accesstoken"
_ALB_HEADERS = b"x-amzn-oidc-"
_OVERRIDES = frozenset((b"x-http-method-override", b"x-http-method", b"x-method-override"))
_HARMLESS_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_HTML = b"text/html; charset=utf-8"
_NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
_POLICY_VIOLATION = 1008

# A person's browser carries it for some seconds after a change, to whichever process answers next. Readers
# are usually less than a second behind. It is no credential: it only asks for rows that are not old.
_CHANGED = b"mlflow-aws-changed"
_SET_CHANGED: Header = (
    b"set-cookie",
    _CHANGED + b"=1; Max-Age=10; Path=/; Secure; HttpOnly; SameSite=Strict",
)

_log = logging.getLogger("mlflow_aws_server.identity")


@dataclass(frozen=True, slots=True)
class _Request:
    """What a request's headers say about its sender, and the headers that remain for MLflow."""

    bearer: bytes | None
    person: bytes | None
    origin: bytes | None
    changed: bool
    headers: list[Header]


class Gate:
    """Verifies who calls, decides whether they may, and keeps the audit log.

    A request that passes carries its `Principal` in the scope, and no credential any more. `/health`
    alone needs no identity. WebSockets are refused.
    """

    def __init__(
        self,
        app: App,
        settings: IdentitySettings,
        *,
        audit: AuditLog | None = None,
        fetch: Callable[[str], Keys] = fetch_keys,
        clock: Callable[[], float] = time.time,
        may_lag: bool = False,
        shares: Shares | None = None,
        fast_path: FastPathState | None = None,
        exposition: Callable[[], bytes] = bytes,
    ) -> None:
        """`fetch` gets the keys of an issuer, in a thread; see `keys.fetch_keys`.

        `audit`: where audit lines go; to standard output without it.
        `exposition`: the metrics, for auditors and administrators, in Prometheus's format.
        `may_lag`: people may be shown rows that are some moments old, but for their own changes.
        """
        self._audit = audit or AuditLog(to_standard_output)
        self._may_lag = may_lag
        self._app = app
        self._settings = settings
        programs = {issuer: _store(issuer, fetch) for issuer in settings.token_issuers}
        pool = settings.user_pool
        people = {pool.issuer: _store(pool.issuer, fetch)} if pool is not None else {}
        self._stores = [*programs.values(), *people.values()]
        # The account's own issuer is the first of the setting. A partner's may be down for days: it keeps
        # nobody but its own callers out.
        self._required = [*list(programs.values())[:1], *people.values()]
        self._programs = Callers(Lane.IAM, settings, programs, clock=clock)
        self._people = Callers(Lane.COGNITO, settings, people, clock=clock) if people else None
        self._shares = shares or Shares()
        self._fast_path = fast_path
        self._exposition = exposition
        self._upkeep: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._audit.open(event("started", self._audit))
            await self._app(scope, receive, self._with_upkeep(send))
            await self._audit.write(event("ended", self._audit))
        else:
            # MLflow has none. The client of a WebSocket that is closed before it is accepted gets 403.
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            if scope["type"] == "websocket":
                record = AuditRecord(
                    self._audit, {**scope, "method": "WEBSOCKET"}, principal=None, route=None
                )
                record.status = 403
                await record.write(PermissionDeniedError("websocket", "This server has no WebSockets."))

    def require_keys(self) -> None:
        """Return once callers can be verified: the first keys are there of the account's own issuer and the
        user pool. From then on it always does, since known keys outlast an outage of their issuer.

        Raises:
            RuntimeError: no keys have been fetched yet; the message names whose.
        """
        if missing := [store.name for store in self._required if store.generation == 0]:
            raise RuntimeError(f"nobody can be verified yet: no keys from {' and '.join(missing)}")

    def keys_age(self) -> float:
        """Seconds since the keys of the account's own issuer and the user pool were fetched; of the older."""
        return max(store.age for store in self._required)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            refuse_ambiguous(scope)
            request = _read(scope["headers"])
            if scope["path"] == HEALTH and scope["method"] in ("GET", "HEAD"):
                # Not MLflow's, which waits for a thread.
                await respond(send, 200, b"OK", content_type=_HTML, headers=[NOT_STORED, _NOSNIFF])
                return
            principal = await self._who(request)
        except AccessDeniedError as refusal:
            await self._refuse(refusal, scope, send, principal=None, route=None)
            return
        if not self._shares.enter_now(principal.name):
            try:
                await self._shares.enter(principal.name)
            except OverloadedError as overload:
                await refuse(send, overload, [_NOSNIFF])
                return
        try:
            await self._known(principal, request, scope, receive, send)
        except OverloadedError as overload:
            await refuse(send, overload, [_NOSNIFF])
        finally:
            self._shares.leave(principal.name)

    async def _known(
        self, principal: Principal, request: _Request, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve a request of this principal, if it may be made."""
        scope[PRINCIPAL] = principal
        route: Route | None = None
        try:
            scope[ROUTE] = route = route_of(scope["method"], scope["path"])
            if principal.own_models and concerns(route):
                receive = await require_own(principal, receive)
            else:
                require(principal, route, place=Place.DEPLOYMENT, roles=self._settings.roles)
            self._refuse_other_origins(scope["method"], principal, request)
        except AccessDeniedError as refusal:
            self._shares.refused(principal.name)
            await self._shares.answer(principal.name)
            await self._refuse(refusal, scope, send, principal=principal, route=route)
            return
        if route.path in WHOAMI:
            await self._shares.answer(principal.name)
            await respond(
                send, 200, self._whoami(principal), content_type=JSON, headers=[NOT_STORED, _NOSNIFF]
            )
            return
        if route.path in EXPOSITION:
            await self._shares.answer(principal.name)
            metrics = self._exposition()
            await respond(send, 200, metrics, content_type=CONTENT_TYPE, headers=[NOT_STORED, _NOSNIFF])
            return
        # Programs read what they have just written, or what another step of theirs has.
        lags = self._may_lag and principal.lane is Lane.COGNITO
        inner = {
            **scope,
            "headers": request.headers,
            MAY_LAG: lags and not request.changed,
        }
        if route.changes and scope["method"] not in _HARMLESS_METHODS:
            record = AuditRecord(self._audit, scope, principal=principal, route=route)
            await self._audited(record, inner, receive, _marking(send) if lags else send)
        elif route.signs:
            record = AuditRecord(self._audit, scope, principal=principal, route=route)
            await self._audited(record, inner, receive, send)
        else:
            await self._app(inner, receive, send)

    async def _who(self, request: _Request) -> Principal:
        if request.bearer is not None:
            return await self._programs.who(request.bearer)
        if request.person is not None:
            if self._people is None:
                raise UnauthenticatedError("no-user-pool", "This server has no sign-in for people.")
            return await self._people.who(request.person)
        raise UnauthenticatedError(
            "no-identity",
            "This MLflow server needs to know who you are. Programs: pip install mlflow-aws-auth and set "
            "MLFLOW_TRACKING_AUTH=aws, or set MLFLOW_TRACKING_TOKEN to the token that `aws sts "
            f"get-web-identity-token --audience {self._settings.token_audience} --signing-algorithm RS256` "
            f"gives. People: sign in at {self._settings.public_url} with a browser.",
        )

    def _refuse_other_origins(self, method: str, principal: Principal, request: _Request) -> None:
        """A browser sends a person's session with any request that any web page makes (CSRF)."""
        if principal.lane is not Lane.COGNITO or method in _HARMLESS_METHODS or request.origin is None:
            return
        if request.origin != self._settings.public_url.encode("ascii"):
            raise PermissionDeniedError(
                "origin", f"Changes from a browser must come from {self._settings.public_url}."
            )

    def _whoami(self, principal: Principal) -> bytes:
        may = rights(principal, Place.DEPLOYMENT)
        process: dict[str, object] = {"process": os.getpid(), "schema": STATE.said()}
        if self._fast_path is not None:
            process |= {"fast_path": self._fast_path.said()}
            if Permission.ADMINISTER in may:
                process |= {"left_to_stock": self._fast_path.left}
        return json.dumps(
            {
                "principal": principal.name,
                "role": principal.role,
                "permissions": sorted(may, key=list(Permission).index),
                "lane": principal.lane.value,
                "ui_url": self._settings.public_url,
                # No stage Staging or Production, and no alias, names a version before it is sealed.
                "seals": True,
                **({"own_models": principal.own_models} if principal.own_models else {}),
                # Another process may say something else.
                **process,
            }
        ).encode()

    async def _audited(self, record: AuditRecord, scope: Scope, receive: Receive, send: Send) -> None:
        scope[OBJECT] = record.found

        async def receive_and_record() -> Message:
            message = await receive()
            record.body = _more(record.body, message)
            return message

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            else:
                record.answer = _more(record.answer, message)
                if not message.get("more_body", False):
                    # Before the response ends: no caller learns of a change that is not in the log.
                    await record.write()
            await send(message)

        try:
            await self._app(scope, receive_and_record, send_and_record)
        except BaseException:
            if record.status is None:
                record.status = 500
            raise
        finally:
            await record.write()

    async def _refuse(
        self,
        refusal: AccessDeniedError,
        scope: Scope,
        send: Send,
        *,
        principal: Principal | None,
        route: Route | None,
    ) -> None:
        record = AuditRecord(self._audit, scope, principal=principal, route=route)
        record.status = refusal.status
        await record.write(refusal)
        headers = [_NOSNIFF]
        if refusal.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if _is_navigation(scope):
            headers += refusal_headers(refusal)
            await respond(send, refusal.status, _page(refusal), content_type=_HTML, headers=headers)
        else:
            await refuse(send, refusal, headers)

    def _with_upkeep(self, send: Send) -> Send:
        async def send_with_upkeep(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                # Not awaited: a server must start even if its issuer is unreachable.
                self._upkeep = [asyncio.create_task(store.keep_fresh()) for store in self._stores]
            elif message["type"].startswith("lifespan.shutdown."):
                for task in self._upkeep:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
            await send(message)

        return send_with_upkeep


def _store(issuer: str, fetch: Callable[[str], Keys]) -> KeyStore:
    return KeyStore(functools.partial(fetch, issuer), name=issuer)


def _read(headers: Iterable[Header]) -> _Request:
    """Find the credentials among the headers, and the headers that MLflow gets.

    Raises:
        UnauthenticatedError: they name two identities, or one in a way that the load balancer would miss.
        MalformedRequestError: they could turn the request into another one.
    """
    bearers: list[bytes] = []
    alb_headers: dict[bytes, bytes] = {}
    origin: bytes | None = None
    changed = False
    kept: list[Header] = []
    for header in headers:
        name, value = header
        if name == b"authorization":
            bearers.append(value)
        elif name.startswith(_ALB_HEADERS):
            if name in alb_headers:
                raise UnauthenticatedError("two-identities", "A header of the load balancer occurs twice.")
            alb_headers[name] = value
        elif name in _OVERRIDES:
            raise MalformedRequestError("method-override", "The method of a request cannot be overridden.")
        elif name == b"upgrade":
            # Neither WebSockets nor h2c: after an upgrade, requests would no longer be checked.
            raise MalformedRequestError("upgrade", "This server speaks HTTP/1.1 and does not upgrade.")
        elif name == b"cookie":
            # Not passed on: the load balancer's session is a credential too, and MLflow has no cookies.
            changed = changed or _CHANGED in value
        else:
            kept.append(header)
            if name == b"origin":
                origin = value
    if len(bearers) > 1:
        raise UnauthenticatedError("two-identities", "A request may have only one Authorization header.")
    if bearers and alb_headers:
        raise UnauthenticatedError(
            "two-identities",
            "A request has either a program's bearer token or a person's session, never both.",
        )
    if not bearers:
        return _Request(None, alb_headers.get(_ACCESS_TOKEN), origin, changed, kept)
    if not bearers[0].startswith(_BEARER):
        # The load balancer's rule for programs matches only this spelling.
        raise UnauthenticatedError("scheme", "The Authorization header must say `Bearer` and a token.")
    return _Request(bearers[0][len(_BEARER) :], None, origin, changed, kept)


def _marking(send: Send) -> Send:
    """Send, and let the caller's browser remember that it has just changed something."""

    async def send_and_mark(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] < 400:
            message = {**message, "headers": [*message.get("headers", ()), _SET_CHANGED]}
        await send(message)

    return send_and_mark


def _more(seen: bytearray | None, message: Message) -> bytearray | None:
    """What was seen of a body, and this message's part; None once it is too large to read."""
    if seen is None:
        return None
    part = message.get("body", b"")
    if len(seen) + len(part) > LARGEST_BODY:
        return None
    seen += part
    return seen


def _is_navigation(scope: Scope) -> bool:
    """Whether a browser opens a page, rather than calls the API: a person will read the response."""
    return (
        scope["method"] == "GET"
        and not scope["path"].startswith(("/api/", "/ajax-api/"))
        and any(b"text/html" in value for value in header_values(scope, b"accept"))
    )


def _page(refusal: AccessDeniedError) -> bytes:
    heading = {401: "Please sign in", 403: "You may not do this", 503: "Try again in a moment"}.get(
        refusal.status, "There is no such page"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>MLflow: {heading}</title>'
        '<body style="font:16px system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem">'
        f"<h1>{heading}</h1><p>{html.escape(refusal.message)}</p></body></html>"
    ).encode()
