"""A load balancer's authenticate-cognito action: the authorization code flow, and a session in cookies.

Cookies, callback path, headers for the target, refresh and status codes follow "Authenticate users using an
Application Load Balancer" in ELB's user guide. What ties a sign-in to the browser that began it is not
documented; here it is a cookie and the id token's nonce.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from local.edge.sealed import CookieSeal, joined, shards
from local.edge.token_check import InvalidTokenError, TokenCheck

CALLBACK_PATH = "/oauth2/idpresponse"
# The target trusts these headers, so a client's own are dropped.
IDENTITY_HEADERS = ("x-amzn-oidc-accesstoken", "x-amzn-oidc-identity", "x-amzn-oidc-data")
NONCE_COOKIE = "AWSALBAuthNonce"
SIGN_IN_SECONDS = 15 * 60.0
_DEFAULT_SESSION_SECONDS = 604_800
_NONCE = re.compile(r"[A-Za-z0-9_-]{43}")
# A token is renewed this long before it expires.
_RENEW_BEFORE_SECONDS = 10.0

Post = Callable[[str, Mapping[str, str], str], Awaitable[dict[str, Any] | None]]
Get = Callable[[str, str], Awaitable[dict[str, Any] | None]]


@dataclass(frozen=True)
class Visit:
    """A request as the sign-in sees it: where it goes, and what the browser sent."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    cookie_header: str
    target: str

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name; none if the header is malformed."""
        try:
            return {name: morsel.value for name, morsel in SimpleCookie(self.cookie_header).items()}
        except CookieError:
            return {}


@dataclass(frozen=True)
class Verdict:
    """What becomes of a request: a response, or headers for the target; and cookies for the browser."""

    status: int | None = None
    location: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Client:
    """The app client that signs people in, where its user pool is, and its secret."""

    client_id: str
    secret: str
    issuer: str
    base_url: str


class CognitoSignIn:
    """Signs people in with the user pool's page, for the rules of one listener.

    `post(url, form, basic)` and `get(url, token)` ask the user pool; None if it refuses, else its JSON.
    """

    def __init__(self, *, check: TokenCheck, post: Post, get: Get, load_balancer: str) -> None:
        self._check = check
        self._post = post
        self._get = get
        self._load_balancer = load_balancer
        self._seal = CookieSeal()
        self._claims_key = ec.generate_private_key(ec.SECP256R1())
        self._claims_key_id = secrets.token_hex(16)

    async def admit(self, visit: Visit, config: Mapping[str, Any], client: Client) -> Verdict:
        """Let a signed-in person's request pass, or say what must happen first."""
        name = str(config.get("SessionCookieName") or "AWSELBAuthSessionCookie")
        lasts = int(config.get("SessionTimeout") or _DEFAULT_SESSION_SECONDS)
        if visit.path == CALLBACK_PATH:
            return await self._callback(visit, client, name, lasts)
        session = self._seal.open(joined(name, visit.cookies), purpose=_session_purpose(name, client))
        if session is not None:
            verdict = await self._pass(session, client, name)
            if verdict is not None:
                return verdict
        unauthenticated = config.get("OnUnauthenticatedRequest") or "authenticate"
        if unauthenticated == "allow":
            return Verdict()
        if unauthenticated == "deny":
            return Verdict(status=401)
        return self._to_page(visit, config, client)

    def _to_page(self, visit: Visit, config: Mapping[str, Any], client: Client) -> Verdict:
        """Send the browser to the sign-in page, with a state that only this browser can bring back."""
        known = visit.cookies.get(NONCE_COOKIE, "")
        # Kept while a sign-in is under way, so that another tab's does not break it.
        nonce = known if _NONCE.fullmatch(known) else secrets.token_urlsafe(32)
        state = self._seal.close(
            # After signing in, only a safe request is repeated.
            {"to": visit.target if visit.method in ("GET", "HEAD") else "/", "nonce": _digest(nonce)},
            purpose=f"state {client.client_id}",
            seconds=SIGN_IN_SECONDS,
        )
        asked = {
            **(config.get("AuthenticationRequestExtraParams") or {}),
            "client_id": client.client_id,
            "redirect_uri": f"https://{visit.host}{CALLBACK_PATH}",
            "response_type": "code",
            "scope": str(config.get("Scope") or "openid"),
            "state": state,
            "nonce": _digest(nonce),
        }
        return Verdict(
            status=302,
            location=f"{client.base_url}/oauth2/authorize?{urlencode(asked)}",
            cookies=(_cookie(NONCE_COOKIE, nonce, SIGN_IN_SECONDS),),
        )

    async def _callback(self, visit: Visit, client: Client, name: str, lasts: int) -> Verdict:
        state = self._seal.open(visit.query.get("state", ""), purpose=f"state {client.client_id}")
        nonce = visit.cookies.get(NONCE_COOKIE, "")
        if state is None or not hmac.compare_digest(state["nonce"], _digest(nonce)):
            return Verdict(status=401)
        tokens = None
        if visit.query.get("code"):
            tokens = await self._tokens(
                client,
                {
                    "grant_type": "authorization_code",
                    "code": visit.query["code"],
                    "redirect_uri": f"https://{visit.host}{CALLBACK_PATH}",
                },
            )
        session = await self._session(tokens, client, nonce=state["nonce"]) if tokens else None
        if session is None:
            return Verdict(status=561)
        session["until"] = time.time() + lasts
        return Verdict(
            status=302,
            location=f"https://{visit.host}{state['to']}",
            cookies=(*self._cookies(session, client, name), _cookie(NONCE_COOKIE, "", 0)),
        )

    async def _pass(self, session: dict[str, Any], client: Client, name: str) -> Verdict | None:
        """Let the request pass with its session, renewed if its token has expired; None if that fails."""
        cookies: tuple[str, ...] = ()
        if session["ends"] - _RENEW_BEFORE_SECONDS < time.time():
            tokens = await self._tokens(
                client, {"grant_type": "refresh_token", "refresh_token": session["refresh_token"]}
            )
            renewed = await self._session(tokens, client, nonce=None) if tokens else None
            if renewed is None:
                return None
            session = {
                **renewed,
                "refresh_token": renewed["refresh_token"] or session["refresh_token"],
                "until": session["until"],
            }
            cookies = self._cookies(session, client, name)
        headers = {
            "x-amzn-oidc-accesstoken": session["access_token"],
            "x-amzn-oidc-identity": str(session["claims"].get("sub", "")),
            "x-amzn-oidc-data": self._user_claims(session, client),
        }
        return Verdict(headers=headers, cookies=cookies)

    async def _tokens(self, client: Client, form: Mapping[str, str]) -> dict[str, Any] | None:
        basic = base64.b64encode(f"{client.client_id}:{client.secret}".encode()).decode()
        asked = {**form, "client_id": client.client_id}
        return await self._post(f"{client.base_url}/oauth2/token", asked, basic)

    async def _session(
        self, tokens: Mapping[str, Any], client: Client, *, nonce: str | None
    ) -> dict[str, Any] | None:
        """What is kept of a user's tokens; None if the pool's response is not for this client and sign-in."""
        try:
            who = await self._check.claims(
                str(tokens.get("id_token", "")),
                issuer=client.issuer,
                jwks=f"{client.issuer}/.well-known/jwks.json",
            )
        except InvalidTokenError:
            return None
        if who.get("aud") != client.client_id or (nonce is not None and who.get("nonce") != nonce):
            return None
        access = str(tokens.get("access_token", ""))
        claims = await self._get(f"{client.base_url}/oauth2/userInfo", access)
        if not claims or claims.get("sub") != who.get("sub"):
            return None
        return {
            "access_token": access,
            "refresh_token": str(tokens.get("refresh_token", "")),
            "claims": claims,
            "ends": time.time() + float(tokens.get("expires_in", 0)),
        }

    def _cookies(self, session: Mapping[str, Any], client: Client, name: str) -> tuple[str, ...]:
        left = max(session["until"] - time.time(), 0.0)
        sealed = self._seal.close(session, purpose=_session_purpose(name, client), seconds=left)
        return tuple(_cookie(each, part, left) for each, part in shards(name, sealed).items())

    def _user_claims(self, session: Mapping[str, Any], client: Client) -> str:
        """The user's claims as ELB signs them: ES256, with base64 padding, which standard JWTs leave out."""
        header = {
            "typ": "JWT",
            "kid": self._claims_key_id,
            "alg": "ES256",
            "iss": client.issuer,
            "client": client.client_id,
            "signer": self._load_balancer,
            "exp": int(session["ends"]),
        }
        content = ".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).decode()
            for part in (header, session["claims"])
        )
        r, s = decode_dss_signature(self._claims_key.sign(content.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return f"{content}.{base64.urlsafe_b64encode(signature).decode()}"


def _session_purpose(name: str, client: Client) -> str:
    return f"session {name} {client.client_id}"


def _digest(nonce: str) -> str:
    return hashlib.sha256(nonce.encode()).hexdigest()


def _cookie(name: str, value: str, seconds: float) -> str:
    return f"{name}={value}; Max-Age={int(seconds)}; Path=/; Secure; HttpOnly; SameSite=Lax"
