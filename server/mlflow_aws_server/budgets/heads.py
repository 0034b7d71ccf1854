"""What a request may have before its body, judged before anybody asks who sends it."""

from __future__ import annotations

from mlflow_aws_server.asgi import App, Receive, Scope, Send, refuse
from mlflow_aws_server.errors import RefusedError
from mlflow_aws_server.limits import HEADER_BYTES, HEADERS, PATH, QUERY


class Heads:
    """Refuses requests with too long a path or query, or too many or too long headers."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            try:
                _check(scope)
            except RefusedError as refusal:
                await refuse(send, refusal)
                return
        await self._app(scope, receive, send)


def _check(scope: Scope) -> None:
    PATH.check(len(scope.get("raw_path") or scope["path"]))
    QUERY.check(len(scope.get("query_string", b"")))
    headers = scope["headers"]
    HEADERS.check(len(headers))
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
    HEADER_BYTES.check(size)
