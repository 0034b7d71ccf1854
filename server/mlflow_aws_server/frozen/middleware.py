"""Frozen as an ASGI application around another one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import asyncpg

from mlflow_aws_server.asgi import PRINCIPAL, App, Receive, Scope, Send, refuse, replay, whole, with_length
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.errors import RefusedError, UnavailableError
from mlflow_aws_server.frozen.changes import Reader, detach, reader_of
from mlflow_aws_server.frozen.states import LineageState, refuse_change, states
from mlflow_aws_server.identity.mapping import RoleMap
from mlflow_aws_server.identity.roles import Permission, Place, Principal, rights
from mlflow_aws_server.provenance import documents

_logger = logging.getLogger(__name__)

_READS = frozenset(("GET", "HEAD", "OPTIONS"))


class Frozen:
    """Refuses changes of runs and logged models behind a version, unless the caller may approve.

    A run or logged model is frozen once its run has ended, or the version was ever promoted. A run that has
    ended without a version is changed by its author. Metrics that another run measures of a frozen model are
    stored as that run's, and are not attached to the model.

    MLflow gets exactly what was judged: a body that was parsed here is written again.
    """

    def __init__(
        self, app: App, questions: ConnectionPool, roles: RoleMap, *, ended_runs_by_author: bool
    ) -> None:
        """`questions` is for short statements; the `roles` that approve are named to whoever is refused."""
        self._app = app
        self._questions = questions
        self._approvers = roles.giving(Permission.APPROVE)
        self._by_author = ended_runs_by_author

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        reader = None
        if scope["type"] == "http" and scope["method"] not in _READS:
            # Werkzeug reads `post` as `POST`.
            reader = reader_of(scope["method"].upper(), scope["path"])
        if reader is None or Permission.APPROVE in rights(scope[PRINCIPAL], Place.DEPLOYMENT):
            await self._app(scope, receive, send)
            return
        raw = await whole(receive)
        if raw is None:
            return
        try:
            body = documents.write(await self._judged(reader, documents.read(raw), scope[PRINCIPAL]))
        except RefusedError as refusal:
            await refuse(send, refusal)
            return
        await self._app(with_length(scope, len(body)), replay(body, receive), send)

    async def _judged(
        self, reader: Reader, document: Mapping[str, Any], principal: Principal
    ) -> Mapping[str, Any]:
        """What may be passed on of a request.

        Raises:
            RefusedError: nothing, because something is frozen or cannot be known.
        """
        change = reader(document)
        if change.describes:
            return document
        left_out = set()
        for state in await self._states(change.runs, change.models | change.measured):
            if state.id in change.measured:
                if state.frozen:
                    left_out.add(state.id)
                continue
            refuse_change(
                change,
                state,
                caller=principal.name,
                by_author=self._by_author,
                approvers=self._approvers,
            )
        return detach(document, left_out) if left_out else document

    async def _states(self, runs: frozenset[str], models: frozenset[str]) -> tuple[LineageState, ...]:
        try:
            return await self._questions.run(lambda connection: states(connection, runs, models))
        except (UnavailableError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            _logger.error("whether a run is frozen cannot be read: %r", error)
            raise UnavailableError(
                "The database cannot be reached at the moment. Nothing was changed."
            ) from None
