"""The ASGI application of one worker: headers for browsers, readiness, gate, and so on down to stock MLflow.

uvicorn calls `create_app` in every worker process. `mlflow server --app-name mlflow-aws` finds it too, by
the entry point group `mlflow.app`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Protocol

from mlflow_aws_server.asgi import App, Message, Receive, Scope, Send
from mlflow_aws_server.budgets import Budgets, Heads
from mlflow_aws_server.fast_path_state import TURNED_OFF, FastPathState
from mlflow_aws_server.identity import AuditLog, AuditPipe, Gate, IdentitySettings, to_standard_output
from mlflow_aws_server.metrics import Measured, Probe
from mlflow_aws_server.readiness import Readiness
from mlflow_aws_server.response_headers import SecurityHeaders, bucket_origins
from mlflow_aws_server.settings import ServerSettings
from mlflow_aws_server.shares import Shares

# How many callers may wait for the connection on which questions are asked.
_QUEUE = 1024
# While a thread computes, each callback of the event loop waits for the interpreter, by default for 5 ms.
_SWITCH_SECONDS = 0.0005


def create_app() -> App:
    """Build the application of one worker process, configured by the environment.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    # Imported here, so that importing this module does not import MLflow.
    from mlflow_aws_server.artifacts import Artifacts
    from mlflow_aws_server.database.check import DatabaseCheck
    from mlflow_aws_server.database.connect import connector
    from mlflow_aws_server.database.errors import conceal
    from mlflow_aws_server.database.pool import ConnectionPool
    from mlflow_aws_server.events.dispatcher import Dispatcher
    from mlflow_aws_server.events.outbox import OUTBOX
    from mlflow_aws_server.frozen import Frozen
    from mlflow_aws_server.probes import of_database, of_process
    from mlflow_aws_server.provenance import ArtifactPlaces, Provenance, StoredPlaces
    from mlflow_aws_server.redaction import Redaction
    from mlflow_aws_server.sealing import Sealing
    from mlflow_aws_server.stock import StockMlflow, mlflow_app
    from mlflow_aws_server.webhook_key import WebhookKey

    sys.setswitchinterval(_SWITCH_SECONDS)
    settings = ServerSettings.from_environ(os.environ)
    open_connection = connector(settings.database, settings.database_user)
    identity = IdentitySettings.from_environ(os.environ)
    questions = ConnectionPool(open_connection, connections=1, queue=_QUEUE)
    conceal()
    if settings.webhook_key_arn:
        WebhookKey(settings.webhook_key_arn, settings.database.region).use()
    app: App = StockMlflow(mlflow_app(), threads=settings.connections.threads)
    databases = (settings.database, settings.reader) if settings.reader else (settings.database,)
    app = Redaction(app, hosts=[database.host for database in databases])
    app = Frozen(app, questions, identity.roles, ended_runs_by_author=settings.ended_runs_by_author)
    fast_path = FastPathState()
    if not settings.fast_path:
        fast_path.step_aside(TURNED_OFF)
    else:
        from mlflow_aws_server.fastpath import FastPath

        app = FastPath(
            app,
            open_connection,
            connections=settings.connections.fast_path,
            open_reader=connector(settings.reader, settings.database_user) if settings.reader else None,
            reader_connections=settings.connections.reader,
            state=fast_path,
        )
    sealing = Sealing(open_connection, questions, settings.sealing)
    beside: list[Service] = [sealing]
    backlogs: list[Probe] = [sealing.backlog]
    if settings.event_bus_arn:
        OUTBOX.keep()
        events = Dispatcher(questions, settings.event_bus_arn, settings.database.region)
        beside.append(events)
        backlogs.append(events.backlog)
    app = _Accompanied(app, beside)
    places = ArtifactPlaces(settings.artifact_root)
    StoredPlaces(places).watch()
    app = Provenance(app, open_connection, questions, sealing, places)
    app = Artifacts(app, questions, places, region=settings.database.region)
    shares = Shares(
        in_flight=settings.requests_in_flight,
        per_minute=settings.requests_per_minute,
        workers=settings.workers,
    )
    app = Budgets(app, shares)
    audit = AuditLog(AuditPipe(settings.audit_pipe) if settings.audit_pipe else to_standard_output)
    gate = Gate(
        app,
        identity,
        audit=audit,
        may_lag=settings.reader is not None,
        shares=shares,
        fast_path=fast_path,
        exposition=lambda: measured.exposition(),
    )
    database = DatabaseCheck(settings)

    def check() -> None:
        gate.require_keys()
        database()

    measured = Measured(
        Heads(gate),
        deployment=settings.deployment,
        state=of_process(gate, fast_path),
        probes=(of_database(questions), *backlogs),
    )
    app = Readiness(measured, check, fast_path=fast_path)
    return SecurityHeaders(
        app, bucket_origins=bucket_origins(settings.artifact_root, settings.database.region)
    )


class Service(Protocol):
    """What runs beside the application, from its start to its end."""

    async def startup(self) -> None:
        """Begin."""

    async def shutdown(self) -> None:
        """End, with what is under way done or left to another server."""


class _Accompanied:
    """The application `app`, with services beside it."""

    def __init__(self, app: App, services: Sequence[Service]) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_services(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                for each in self._services:
                    await each.startup()
            elif message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await asyncio.gather(*(each.shutdown() for each in self._services))
            await send(message)

        await self._app(scope, receive, send_with_services if scope["type"] == "lifespan" else send)
