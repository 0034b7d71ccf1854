"""A version is never READY and unsealed: its state is set with its row, in MLflow's own transaction."""

from __future__ import annotations

from typing import Any

from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from sqlalchemy import event

from mlflow_aws_server.sealing.versions import BEGUN, PENDING, PROMPT_SOURCES

PRINCIPAL_TAG = "mlflow_aws.principal"
_LONGEST_USER = 256


class NewVersions:
    """Sets the user of each new version to its verified principal, and its state to `pending`."""

    def __init__(self, *, pending: bool) -> None:
        self._pending = pending

    def watch(self) -> None:
        """Begin, in this process."""
        event.listen(SqlModelVersion, "before_insert", self._complete)

    def ignore(self) -> None:
        """End it."""
        event.remove(SqlModelVersion, "before_insert", self._complete)

    def _complete(self, _mapper: Any, _connection: Any, row: Any) -> None:
        tags = {tag.key: tag.value for tag in row.model_version_tags}
        if PRINCIPAL_TAG in tags:
            row.user_id = tags[PRINCIPAL_TAG][:_LONGEST_USER]
        if self._pending and row.source not in PROMPT_SOURCES:
            row.status, row.status_message = PENDING, BEGUN
