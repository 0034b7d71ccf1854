"""The user pool's hosted sign-in, its keys and its token endpoint, over HTTPS, as Cognito has at its domain.

MiniStack has users, clients, codes and tokens; this gives them a host of their own, which serves nothing
else, and a page. Paths and responses follow Cognito's "User pool endpoints and managed login reference".
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

Answer = tuple[int, Mapping[str, str], bytes]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_LARGEST_FORM = 64 * 1024
_POOL_PATH = re.compile(r"/(?P<pool>[\w-]+)/\.well-known/(?P<document>jwks\.json|openid-configuration)")

_STYLE = """
:root { color-scheme: light dark; --ink: #11171c; --muted: #5f7281; --line: #d1d9e1; --page: #f3f6f8;
  --card: #fff; --accent: #0073c9; --press: #00579b; --wrong: #c82d4c; --soft: #fdecef }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecf0; --muted: #92a4b3; --line: #37444f;
  --page: #11171c; --card: #1b242c; --accent: #1f7fcf; --press: #2b93ea; --wrong: #ff8ca1; --soft: #3a2027 } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif }
main { width: 100%; max-width: 25rem; padding: 2.5rem 2.25rem 2rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 14px; box-shadow: 0 12px 40px rgb(17 23 28 / 8%) }
.mark { display: flex; align-items: center; gap: .6rem; font-weight: 650; letter-spacing: -.01em }
.mark i { width: .75rem; height: .75rem; border-radius: 50%; background: var(--accent) }
h1 { margin: 1.4rem 0 1.5rem; font-size: 1.5rem; line-height: 1.2; font-weight: 650; letter-spacing: -.02em }
label { display: block; margin-bottom: .35rem; font-size: .875rem; font-weight: 550 }
input { width: 100%; margin-bottom: 1.1rem; padding: .65rem .8rem; font: inherit; color: inherit;
  background: transparent; border: 1px solid var(--line); border-radius: 8px }
input:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; border-color: transparent }
button { width: 100%; margin-top: .4rem; padding: .7rem; font: inherit; font-weight: 600; color: #fff;
  background: var(--accent); border: 0; border-radius: 8px; cursor: pointer }
button:hover { background: var(--press) }
button:focus-visible { outline: 2px solid var(--ink); outline-offset: 2px }
.error { margin-bottom: 1.2rem; padding: .65rem .8rem; font-size: .9rem; color: var(--wrong);
  background: var(--soft); border-radius: 8px }
footer { margin-top: 1.6rem; font-size: .8rem; color: var(--muted) }
"""


def page(title: str, heading: str, form: str) -> str:
    """A page around a form, whose HTML MiniStack has already escaped."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)} · MLflow</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<div class="mark"><i></i>MLflow on AWS</div>
<h1>{html.escape(heading)}</h1>
{form}
<footer>Amazon Cognito user pool, emulated on this machine.</footer>
</main>
</body>
</html>"""


def protection(origins: Sequence[str]) -> dict[str, str]:
    """Headers that forbid frames, scripts and caches, and allow forms only to this host and `origins`."""
    style = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    # Browsers also check where a form's response redirects: back to the application.
    forms = " ".join(["'self'", *origins])
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{style}'; form-action {forms}; "
        "base-uri 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


class HostedSignIn:
    """An ASGI app with Cognito's user-facing endpoints; `url` is where it is served."""

    def __init__(self, *, url: str, origins: Sequence[str]) -> None:
        self._url = url
        self._protection = protection(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the server's lifespan events."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            status, headers, body = await self._answer(scope, receive)
            named = {**headers, **self._protection, "Content-Length": str(len(body))}
            encoded = [(name.lower().encode(), value.encode()) for name, value in named.items()]
            await send({"type": "http.response.start", "status": status, "headers": encoded})
            await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        from ministack.services import cognito

        method, path = scope["method"], scope["path"]
        query = parse_qs(scope.get("query_string", b"").decode(), keep_blank_values=True)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if method == "POST":
            body = await _body(receive)
            if body is None:
                return _json(413, {"error": "invalid_request", "error_description": "too large"})
            if path == "/oauth2/token":
                return _answered(await cognito.handle_oauth2_token(method, path, headers, body, query))
            if path == "/login":
                return _answered(cognito.handle_login_submit(method, path, headers, body, query))
        if path == "/oauth2/userInfo" and method in ("GET", "POST"):
            return _answered(cognito.handle_oauth2_userinfo(method, path, headers, b"", query))
        if method == "GET":
            if path in ("/oauth2/authorize", "/login"):
                return _answered(cognito.handle_oauth2_authorize(method, path, headers, query))
            if path == "/logout":
                return _answered(cognito.handle_logout(method, path, headers, query))
            if (match := _POOL_PATH.fullmatch(path)) and cognito._get_pool_unscoped(
                match["pool"]
            ) is not None:
                return self._document(match["pool"], match["document"])
        return _json(404, {"error": "not_found"})

    def _document(self, pool: str, document: str) -> Answer:
        from ministack.services import cognito

        if document == "jwks.json":
            return _answered(cognito.well_known_jwks(pool))
        return _json(
            200,
            {
                "issuer": f"{self._url}/{pool}",
                "jwks_uri": f"{self._url}/{pool}/.well-known/jwks.json",
                "authorization_endpoint": f"{self._url}/oauth2/authorize",
                "token_endpoint": f"{self._url}/oauth2/token",
                "userinfo_endpoint": f"{self._url}/oauth2/userInfo",
                "end_session_endpoint": f"{self._url}/logout",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            },
        )


def _answered(answer: Any) -> Answer:
    status, headers, body = answer
    return int(status), headers, bytes(body)


def _json(status: int, document: Mapping[str, Any]) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(document).encode()


async def _body(receive: Receive) -> bytes | None:
    body: bytes = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > _LARGEST_FORM:
            return None
        if not message.get("more_body"):
            return body


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
