"""What the load balancer does with requests: the actions of the deployed listener's rules."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from local.edge import listener
from local.edge.identity_provider import IdentityProvider
from local.edge.listener import Action, Request, Rule, UnsupportedError
from local.edge.meter import Meter
from local.edge.sign_in import IDENTITY_HEADERS, Client, CognitoSignIn, Visit
from local.edge.target_group import FIRST_CHECK_SECONDS, Target, TargetGroup
from local.edge.token_check import InvalidTokenError, TokenCheck, bearer, has_claim

# They belong to one connection, not to the message (RFC 9110).
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_CONNECT_SECONDS = 10.0
_CHUNK = 64 * 1024
LONGEST_LINE = 16 * 1024
# 561 is ELB's own status: the user pool gave no tokens for the code.
_ADDED_HEADERS = {
    "routing.http.response.strict_transport_security.header_value": "Strict-Transport-Security",
}
_REFUSALS = {401: "401 Authorization Required", 561: "561 Authentication Error"}


@dataclass
class Configuration:
    """What the balancer does now."""

    rules: tuple[Rule, ...]
    groups: dict[str, TargetGroup]
    idle_seconds: float
    drop_invalid_headers: bool
    tls: str
    load_balancer: str = ""
    # What every response gets, the load balancer's own too.
    added_headers: Mapping[str, str] = field(default_factory=dict)
    # Of the app clients that sign people in, by id.
    client_secrets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, snapshot: Mapping[str, Any], before: Configuration | None = None) -> Configuration:
        """Read a snapshot.

        Raises:
            UnsupportedError: it asks for something that is not supported here.
        """
        if snapshot["listener"]["Protocol"] != "HTTPS":
            raise UnsupportedError(f"the listener speaks {snapshot['listener']['Protocol']}, not HTTPS")
        known = before.groups if before else {}
        rules = listener.rules(snapshot["rules"])
        for action in (action for rule in rules for action in rule.actions):
            if action.type not in _ACTIONS:
                raise UnsupportedError(
                    f"the listener has an action that is not supported here: {action.type}"
                )
        return cls(
            rules=rules,
            groups={
                arn: TargetGroup.of(each, known.get(arn)) for arn, each in snapshot["target_groups"].items()
            },
            idle_seconds=float(snapshot["attributes"].get("idle_timeout.timeout_seconds", 60)),
            drop_invalid_headers=snapshot["attributes"].get("routing.http.drop_invalid_header_fields.enabled")
            == "true",
            tls=listener.minimum_tls(snapshot["listener"]["SslPolicy"]),
            load_balancer=str(snapshot["listener"].get("LoadBalancerArn", "")),
            added_headers={
                name: snapshot["attributes"][key]
                for key, name in _ADDED_HEADERS.items()
                if snapshot["attributes"].get(key)
            },
            client_secrets=dict(snapshot.get("client_secrets", {})),
        )


@dataclass
class ActionContext:
    """What actions leave for the next: identity headers for the target, cookies for the browser."""

    headers: dict[str, str] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)
    # Whether the load balancer sets the identity headers; where no rule identifies the caller, a client's own
    # headers of these names pass like any other.
    identifies: bool = False


class Balancer:
    """Serves requests by its configuration, and checks the health of its targets."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        port: int = 443,
        trust: ssl.SSLContext | None = None,
        user_pools: str = "",
    ) -> None:
        """Made inside the event loop that runs it.

        `trust` verifies the issuer of tokens and the user pools, which are at `user_pools`.
        """
        self.configuration = configuration
        self.meter = Meter()
        self._port = port
        self._user_pools = user_pools
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=configuration.idle_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            # The message as the client sent it, with no header of aiohttp's.
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
        )
        provider = IdentityProvider(self._client, trust or ssl.create_default_context())
        self._token_check = TokenCheck(provider.keys)
        self._sign_in = CognitoSignIn(
            check=self._token_check,
            post=provider.post_form,
            get=provider.get_with_token,
            load_balancer=configuration.load_balancer,
        )
        self._checks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Balancer:
        return self

    async def __aexit__(self, *_: object) -> None:
        for check in self._checks:
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await self._client.close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request by the first rule that matches it."""
        rule = listener.choose(self.configuration.rules, _seen(request))
        context = ActionContext()
        for action in rule.actions:
            response = await _ACTIONS[action.type](self, request, action, context)
            if response is not None:
                break
        else:
            response = _plain(500, "the rule ends without a response")
        if not response.prepared:
            self.meter.answered(response.status)
            response.headers.update(self.configuration.added_headers)
        return response

    async def check_targets(self) -> None:
        """Run the health checks that are due, until cancelled."""
        while True:
            now = time.monotonic()
            for group in self.configuration.groups.values():
                for target in group.targets.values():
                    if target.due <= now:
                        target.due = now + group.timeout + group.interval
                        check = asyncio.create_task(self._check(group, target))
                        self._checks.add(check)
                        check.add_done_callback(self._checks.discard)
            await asyncio.sleep(FIRST_CHECK_SECONDS / 3)

    async def validate(self, request: web.BaseRequest, action: Action) -> web.StreamResponse | None:
        """Refuse a request without a valid token of the action's issuer."""
        config = action.settings["JwtValidationConfig"]
        try:
            claims = await self._token_check.claims(
                bearer(request.headers.getall("Authorization", [])),
                issuer=config["Issuer"],
                jwks=config["JwksEndpoint"],
            )
            for wanted in config.get("AdditionalClaims") or []:
                if not has_claim(claims, wanted):
                    raise InvalidTokenError(f"{wanted['Name']} is {claims.get(wanted['Name'])!r}")
        except InvalidTokenError as error:
            print(f"token refused: {error}", flush=True)
            return _plain(401, "401 Authorization Required")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            print(f"no keys from {config['JwksEndpoint']}: {error}", flush=True)
            return _plain(500, "500 Internal Server Error")
        return None

    async def authenticate(
        self, request: web.BaseRequest, action: Action, context: ActionContext
    ) -> web.StreamResponse | None:
        """Let a signed-in person pass with their identity; send others to sign in, or refuse them."""
        config = action.settings["AuthenticateCognitoConfig"]
        client_id = config["UserPoolClientId"]
        client = Client(
            client_id=client_id,
            secret=self.configuration.client_secrets.get(client_id, ""),
            issuer=f"{self._user_pools}/{config['UserPoolArn'].rpartition('/')[2]}",
            base_url=self._user_pools,
        )
        visit = Visit(
            method=request.method,
            host=request.host,
            path=request.path,
            query=dict(request.query),
            cookie_header="; ".join(request.headers.getall("Cookie", [])),
            target=request.raw_path,
        )
        verdict = await self._sign_in.admit(visit, config, client)
        context.identifies = True
        context.headers.update(verdict.headers)
        context.cookies.extend(verdict.cookies)
        if verdict.status is None:
            return None
        headers: CIMultiDict[str] = CIMultiDict({"Cache-Control": "no-store"})
        for cookie in verdict.cookies:
            headers.add("Set-Cookie", cookie)
        if verdict.location:
            headers["Location"] = verdict.location
        text = "" if verdict.location else _REFUSALS[verdict.status]
        return web.Response(status=verdict.status, headers=headers, text=text)

    async def forward(
        self, request: web.BaseRequest, action: Action, context: ActionContext
    ) -> web.StreamResponse:
        """Stream the request to a target of the action's group, and its response back."""
        arn = _group_of(action)
        group = self.configuration.groups.get(arn)
        target = group.pick() if group else None
        if target is None:
            return _plain(503, "503 Service Temporarily Unavailable")
        response: web.StreamResponse | None = None
        self.meter.sent(arn)
        began = time.monotonic()
        try:
            async with self._client.request(
                request.method,
                # As encoded by the client: the target sees the bytes of its request line.
                _verbatim(f"http://{target.address}{request.raw_path}"),
                headers=self._headers_for_target(request, context),
                data=request.content.iter_chunked(_CHUNK) if request.can_read_body else None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=_CONNECT_SECONDS, sock_read=self.configuration.idle_seconds
                ),
            ) as upstream:
                self.meter.responded(arn, upstream.status, time.monotonic() - began)
                response = web.StreamResponse(
                    status=upstream.status,
                    reason=upstream.reason,
                    headers=_headers_for_client(upstream.headers),
                )
                response.headers.update(self.configuration.added_headers)
                for cookie in context.cookies:
                    response.headers.add("Set-Cookie", cookie)
                await response.prepare(request)
                async for chunk in upstream.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except TimeoutError:
            return _broken(response, request) or _plain(504, "504 Gateway Time-out")
        except (aiohttp.ClientError, ConnectionError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                self.meter.unreachable(arn)
            return _broken(response, request) or _plain(502, "502 Bad Gateway")

    def _headers_for_target(self, request: web.BaseRequest, context: ActionContext) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict()
        for name, value in request.headers.items():
            if name.lower() in _HOP_BY_HOP:
                continue
            if self.configuration.drop_invalid_headers and not listener.is_valid_header(name):
                continue
            if context.identifies and name.lower() in IDENTITY_HEADERS:
                continue
            headers.add(name, value)
        headers.update(context.headers)
        before = ", ".join(request.headers.getall("X-Forwarded-For", ()))
        headers["X-Forwarded-For"] = ", ".join(filter(None, [before, request.remote or ""]))
        headers["X-Forwarded-Proto"] = "https"
        headers["X-Forwarded-Port"] = str(self._port)
        trace = headers.get("X-Amzn-Trace-Id")
        own = f"1-{int(time.time()):08x}-{secrets.token_hex(12)}"
        headers["X-Amzn-Trace-Id"] = f"Self={own};{trace}" if trace else f"Root={own}"
        return headers

    async def _check(self, group: TargetGroup, target: Target) -> None:
        try:
            async with self._client.get(
                f"http://{target.address}{group.path}",
                headers={"User-Agent": "ELB-HealthChecker/2.0", "Host": target.name},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=group.timeout),
            ) as upstream:
                passed = upstream.status in group.codes
        except (aiohttp.ClientError, TimeoutError, OSError):
            passed = False
        before = target.state
        group.judge(target, passed=passed, now=time.monotonic())
        if target.state != before:
            print(f"target {target.name} ({target.address}): {before} -> {target.state}", flush=True)


async def _do_forward(
    balancer: Balancer, request: web.BaseRequest, action: Action, context: ActionContext
) -> web.StreamResponse:
    return await balancer.forward(request, action, context)


async def _do_jwt_validation(
    balancer: Balancer, request: web.BaseRequest, action: Action, _: ActionContext
) -> web.StreamResponse | None:
    return await balancer.validate(request, action)


async def _do_authenticate_cognito(
    balancer: Balancer, request: web.BaseRequest, action: Action, context: ActionContext
) -> web.StreamResponse | None:
    return await balancer.authenticate(request, action, context)


async def _do_fixed_response(
    _: Balancer, __: web.BaseRequest, action: Action, ___: ActionContext
) -> web.StreamResponse:
    config = action.settings["FixedResponseConfig"]
    return web.Response(
        status=int(config["StatusCode"]),
        body=str(config.get("MessageBody") or "").encode(),
        headers={"Content-Type": config.get("ContentType") or "text/plain"},
    )


async def _do_redirect(
    _: Balancer, request: web.BaseRequest, action: Action, __: ActionContext
) -> web.StreamResponse:
    config = action.settings["RedirectConfig"]
    host, _sep, port = request.host.partition(":")
    known = {
        "#{protocol}": "https",
        "#{host}": host,
        "#{port}": port or "443",
        "#{path}": request.path.lstrip("/"),
        "#{query}": request.query_string,
    }

    def filled(key: str, default: str) -> str:
        return re.sub(r"#\{\w+\}", lambda match: known.get(match[0], ""), str(config.get(key) or default))

    query = filled("Query", "#{query}")
    location = (
        f"{filled('Protocol', '#{protocol}').lower()}://{filled('Host', '#{host}')}"
        f":{filled('Port', '#{port}')}{filled('Path', '/#{path}')}{'?' + query if query else ''}"
    )
    return web.Response(
        status=301 if config.get("StatusCode") == "HTTP_301" else 302, headers={"Location": location}
    )


_Do = Callable[[Balancer, web.BaseRequest, Action, ActionContext], Awaitable[web.StreamResponse | None]]
# By ELBv2's names. An action responds, or returns None to let the next one run.
_ACTIONS: Mapping[str, _Do] = {
    "jwt-validation": _do_jwt_validation,
    "authenticate-cognito": _do_authenticate_cognito,
    "forward": _do_forward,
    "fixed-response": _do_fixed_response,
    "redirect": _do_redirect,
}


def _group_of(action: Action) -> str:
    groups = (action.settings.get("ForwardConfig") or {}).get("TargetGroups") or []
    if len(groups) > 1:
        weights = [int(each.get("Weight", 1)) for each in groups]
        return str(random.choices(groups, weights)[0]["TargetGroupArn"])  # noqa: S311 - a share of the load
    return str(action.settings.get("TargetGroupArn") or (groups[0]["TargetGroupArn"] if groups else ""))


def _seen(request: web.BaseRequest) -> Request:
    headers: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), []).append(value)
    return Request(
        method=request.method,
        path=request.raw_path.partition("?")[0],
        host=request.host,
        headers=headers,
        query=tuple(request.query.items()),
        source_ip=request.remote or "127.0.0.1",
    )


def _headers_for_client(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept: Iterable[tuple[str, str]] = (
        (name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP
    )
    return CIMultiDict(kept)


def _broken(response: web.StreamResponse | None, request: web.BaseRequest) -> web.StreamResponse | None:
    """Cut off a response that has begun, so that the client sees it is incomplete; None if none has."""
    if response is None or not response.prepared:
        return None
    if request.transport is not None:
        request.transport.abort()
    return response


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)


def _verbatim(url: str) -> Any:
    from yarl import URL

    return URL(url, encoded=True)
