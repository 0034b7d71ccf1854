"""Budgets as an ASGI application around another one."""

from __future__ import annotations

from mlflow_aws_server.asgi import App, Receive, Scope, Send, refuse
from mlflow_aws_server.budgets import questions
from mlflow_aws_server.errors import RefusedError


class Budgets:
    """Refuses requests that are beyond a limit, before they have an effect; see `limits`."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            try:
                questions.check(scope["method"].upper(), scope["path"], scope.get("query_string", b""), b"")
            except RefusedError as refusal:
                await refuse(send, refusal)
                return
        await self._app(scope, receive, send)
