"""What stock MLflow does around every request, so that the fast path's responses look like its own."""

from __future__ import annotations

import importlib.util
import os
from collections import OrderedDict

from mlflow.environment_variables import (
    MLFLOW_ENABLE_WORKSPACES,
    MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE,
)
from mlflow.server.constants import (
    ARTIFACTS_ONLY_ENV_VAR,
    PROMETHEUS_EXPORTER_ENV_VAR,
    READ_REPLICA_BACKEND_STORE_URI_ENV_VAR,
)
from mlflow.server.fastapi_security import get_allowed_hosts, get_allowed_origins
from mlflow.server.handlers import STATIC_PREFIX_ENV_VAR
from mlflow.server.security_utils import is_allowed_host_header, should_block_cors_request
from mlflow.version import VERSION

from mlflow_aws_server.asgi import App, Header, Message, Scope, replay

TESTED_VERSIONS = frozenset(("3.17.2",))

_REMEMBERED_CALLERS = 256
_BODY_HEADERS = frozenset((b"content-type", b"content-length"))


def environment_obstacle() -> str | None:
    """Which of MLflow's own settings asks for something the fast path does not support, or None."""
    if VERSION not in TESTED_VERSIONS:
        return f"MLflow {VERSION}, tested only with {', '.join(sorted(TESTED_VERSIONS))}"
    if MLFLOW_ENABLE_WORKSPACES.get():
        return "workspaces are enabled"
    for variable, meaning in (
        (STATIC_PREFIX_ENV_VAR, "a static prefix"),
        (ARTIFACTS_ONLY_ENV_VAR, "artifacts-only mode"),
        (PROMETHEUS_EXPORTER_ENV_VAR, "the Prometheus exporter, which counts requests"),
        (READ_REPLICA_BACKEND_STORE_URI_ENV_VAR, "a read replica"),
    ):
        if os.environ.get(variable):
            return f"{meaning} is configured ({variable})"
    if importlib.util.find_spec("flask_wtf") is not None:
        return "Flask-WTF is installed, which makes MLflow filter searches by its own users"
    return None


class ResponseHeaders:
    """The headers stock MLflow adds to a response, learnt by asking it.

    They depend on how MLflow is configured (CORS, framing) and on the caller's Origin. Stock's
    `/version`, which touches no database, passes the same layers as any other route.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._learnt: OrderedDict[tuple[bytes, bytes | None, str], list[Header] | None] = OrderedDict()
        security = MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE.get() != "true"
        self._allowed_hosts = get_allowed_hosts() if security else ["*"]
        self._allowed_origins = get_allowed_origins() if security else ["*"]

    async def to(self, *, host: bytes, origin: bytes | None, method: str) -> list[Header] | None:
        """All headers but content type and length, or None if stock would refuse this caller."""
        caller = (host, origin, method)
        if caller in self._learnt:
            return self._learnt[caller]
        learnt = await self._ask(host, origin) if self._is_welcome(host, origin, method) else None
        while len(self._learnt) >= _REMEMBERED_CALLERS:
            self._learnt.popitem(last=False)
        self._learnt[caller] = learnt
        return learnt

    def _is_welcome(self, host: bytes, origin: bytes | None, method: str) -> bool:
        try:
            if not is_allowed_host_header(self._allowed_hosts, host.decode("ascii")):
                return False
            return origin is None or not should_block_cors_request(
                origin.decode("ascii"), method, self._allowed_origins
            )
        except UnicodeDecodeError:
            return False

    async def _ask(self, host: bytes, origin: bytes | None) -> list[Header] | None:
        headers: list[Header] = [(b"host", host)]
        if origin is not None:
            headers.append((b"origin", origin))
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/version",
            "raw_path": b"/version",
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": None,
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        answer: list[Message] = []

        async def send(message: Message) -> None:
            answer.append(message)

        await self._app(scope, replay(b""), send)
        start = answer[0]
        if start.get("status") != 200:
            return None
        return [(bytes(k), bytes(v)) for k, v in start["headers"] if bytes(k).lower() not in _BODY_HEADERS]
