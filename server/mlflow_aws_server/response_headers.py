"""What every response tells a browser not to do with it.

Strict-Transport-Security is not among it: the load balancer's listener adds it, to its own answers too.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from mlflow_aws_server.asgi import App, Header, Message, Receive, Scope, Send, refuse
from mlflow_aws_server.errors import UnexpectedError

_PAGE = "/"
_FILES_OF_THE_PAGE = "/static-files/"
_POLICY = b"content-security-policy"

_COMMON: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    # Not `no-referrer`: a form's POST would then come with `Origin: null`.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NO_DEVICES: Header = (
    b"permissions-policy",
    b"camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), bluetooth=(), hid=()",
)
# For what is not MLflow's page: a browser that opens it as a document runs nothing of it, in no origin.
# Inline styles are those of our own refusals.
_DATA_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'; sandbox"
)
_OURS = frozenset((_POLICY, _NO_DEVICES[0], *(name for name, _ in _COMMON)))


class SecurityHeaders:
    """ASGI middleware around all others: no response leaves without the headers for browsers.

    MLflow's page gets a policy that its scripts can work under; everything else, artifacts above all, one
    that lets a document do nothing. An error that nobody has answered is answered here.
    """

    def __init__(self, app: App, *, bucket_origins: tuple[str, ...] = ()) -> None:
        """`bucket_origins`: where the page is redirected to for large artifacts."""
        self._app = app
        policy = page_policy(bucket_origins).encode("ascii")
        self._page = (*_COMMON, (_POLICY, policy), _NO_DEVICES)
        self._data = (*_COMMON, (_POLICY, _DATA_POLICY))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        own = self._page if path == _PAGE or path.startswith(_FILES_OF_THE_PAGE) else self._data
        started = False

        # No coroutine of its own: the hot path passes here.
        def send_with_headers(message: Message) -> object:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = [header for header in message.get("headers", ()) if header[0] not in _OURS]
                message = {**message, "headers": [*headers, *own]}
            return send(message)

        try:
            await self._app(scope, receive, send_with_headers)  # type: ignore[arg-type]
        except Exception:
            if not started:
                error = UnexpectedError("The server failed at this request; its log says where.")
                await refuse(send_with_headers, error)  # type: ignore[arg-type]
            raise


def page_policy(bucket_origins: tuple[str, ...]) -> str:
    """The Content-Security-Policy of MLflow's page and of its scripts.

    A preview of an HTML artifact is a sandboxed frame without an origin that inherits it. Reports need inline
    scripts there, and MLflow's own `log_figure` asks for plotly.js from its CDN; so both are allowed, and
    what injected markup would need in the page itself (event handlers, `eval`) is not.
    """
    bucket = "".join(f" {origin}" for origin in bucket_origins)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "script-src-elem 'self' 'unsafe-inline' https://cdn.plot.ly",
            "script-src-attr 'none'",
            "style-src 'self' 'unsafe-inline'",
            f"img-src 'self' data: blob:{bucket}",
            f"media-src 'self' data: blob:{bucket}",
            "font-src 'self' data:",
            f"connect-src 'self' data: blob:{bucket}",
            "worker-src 'self' blob:",
            "frame-src 'self' blob:",
            "manifest-src 'self'",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        )
    )


def bucket_origins(artifact_root: str, region: str) -> tuple[str, ...]:
    """The origins of presigned URLs of the artifact bucket.

    S3's own, with the region and without; or the endpoint that AWS's clients are told of.
    """
    bucket = urlsplit(artifact_root).netloc
    if told := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        endpoint = urlsplit(told)
        return (f"{endpoint.scheme}://{endpoint.netloc}",)
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    if "." in bucket:
        # A wildcard certificate covers one label, so clients put such a bucket into the path.
        return (f"https://s3.{region}.{suffix}",)
    return (f"https://{bucket}.s3.{region}.{suffix}", f"https://{bucket}.s3.{suffix}")
