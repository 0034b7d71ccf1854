"""Changes of stages and aliases: conditional, one at a time for each model, and recorded."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.entities.model_registry.model_version_stages import get_canonical_stage
from mlflow.exceptions import MlflowException

from mlflow_aws_server.asgi import App, Scope, replay
from mlflow_aws_server.provenance import documents, inner
from mlflow_aws_server.provenance.conditions import Conditions
from mlflow_aws_server.provenance.errors import later, unclear
from mlflow_aws_server.provenance.inner import BufferedResponse
from mlflow_aws_server.provenance.locks import ModelLocks
from mlflow_aws_server.provenance.routes import Concern
from mlflow_aws_server.provenance.tags import HISTORY

_logger = logging.getLogger(__name__)

# Waits before the second and later attempts to write the history.
_RETRY_SECONDS = (0.1, 0.5, 1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One change of a stage or an alias, as MLflow understands it."""

    concern: Concern
    model: str
    version: str | None
    stage: str | None = None
    alias: str | None = None
    archive_existing_versions: bool = False

    @classmethod
    def read(cls, concern: Concern, document: Mapping[str, Any]) -> Promotion:
        """Read a request.

        Raises:
            ProvenanceError: a field is missing or not valid.
        """
        model = _required(document, "name")
        if concern is Concern.ALIAS_REMOVAL:
            return cls(concern=concern, model=model, version=None, alias=_required(document, "alias"))
        version = _required(document, "version")
        if concern is Concern.ALIAS:
            return cls(concern=concern, model=model, version=version, alias=_required(document, "alias"))
        try:
            stage = get_canonical_stage(_required(document, "stage"))
        except MlflowException as error:
            raise unclear(error.message) from None
        archive = documents.field(document, "archive_existing_versions", bool) or False
        return cls(
            concern=concern, model=model, version=version, stage=stage, archive_existing_versions=archive
        )

    def document(self) -> dict[str, Any]:
        """The request's body, with nothing but the fields that were read."""
        fields: dict[str, Any] = {"name": self.model}
        if self.version is not None:
            fields["version"] = self.version
        if self.alias is not None:
            fields["alias"] = self.alias
        if self.stage is not None:
            fields["stage"] = self.stage
            fields["archive_existing_versions"] = self.archive_existing_versions
        return fields

    @property
    def place(self) -> str:
        """What the change is about, in words."""
        what = f"The stage {self.stage}" if self.alias is None else f"The alias {self.alias!r}"
        return f"{what} of the model {self.model!r}"

    def holder(self, model: Mapping[str, Any]) -> str | None:
        """The version that holds the place now, read from MLflow's `RegisteredModel`.

        Of several in one stage it is the newest, which `models:/NAME/STAGE` loads.
        """
        if self.alias is not None:
            held = (item["version"] for item in model.get("aliases", ()) if item["alias"] == self.alias)
        else:
            held = (
                item["version"]
                for item in model.get("latest_versions", ())
                if item["current_stage"] == self.stage
            )
        return next((str(version) for version in held), None)

    def entry(self, *, previous: str | None, principal: str, at: datetime.datetime) -> dict[str, Any]:
        """The entry in the history."""
        return {
            "at": at.isoformat(timespec="microseconds"),
            "principal": principal,
            "action": {Concern.STAGE: "stage", Concern.ALIAS: "alias"}.get(self.concern, "alias-removed"),
            "stage": self.stage,
            "alias": self.alias,
            "archive_existing_versions": self.archive_existing_versions,
            "previous": previous,
        }


class Promotions:
    """Makes the changes, through the application behind."""

    def __init__(
        self,
        app: App,
        locks: ModelLocks,
        *,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._app = app
        self._locks = locks
        self._now = now

    async def make(
        self, promotion: Promotion, conditions: Conditions, scope: Scope, body: bytes, *, principal: str
    ) -> BufferedResponse:
        """Check the conditions, make the change and record it, under the model's lock.

        Raises:
            ProvenanceError: a condition does not hold (412), or the model is locked or unreachable (503).
        """
        async with self._locks.hold(promotion.model):
            known = await inner.get(self._app, scope, "registered-models/get", name=promotion.model)
            if known.status == 404:
                return known
            if known.status != 200:
                _logger.error("model %r cannot be read: %d %r", promotion.model, known.status, known.body)
                raise later("The model registry cannot be read at the moment. Nothing was changed.")
            previous = promotion.holder(known.json()["registered_model"])
            conditions.check(previous, place=promotion.place)
            answer = await inner.response_to(self._app, scope, replay(body))
            version = promotion.version or previous
            if answer.status == 200 and version is not None:
                at = self._now()
                entry = promotion.entry(previous=previous, principal=principal, at=at)
                await self._record(scope, promotion.model, version, entry, at)
            return answer

    async def _record(
        self, scope: Scope, model: str, version: str, entry: dict[str, Any], at: datetime.datetime
    ) -> None:
        key = f"{HISTORY}{at:%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(2)}"
        tag = {"name": model, "version": version, "key": key, "value": json.dumps(entry)}
        problem: object = None
        for wait in (*_RETRY_SECONDS, None):
            try:
                answer = await inner.post(self._app, scope, "model-versions/set-tag", tag)
                if answer.status == 200:
                    return
                problem = f"{answer.status} {answer.body[:200]!r}"
            except Exception as error:
                problem = repr(error)
            if wait is not None:
                await asyncio.sleep(wait)
        # The change was made, so this line is the only record of who made it.
        _logger.error(
            "history could not be written (%s): %s",
            problem,
            json.dumps({"model": model, "version": version, **entry}),
        )


def _required(document: Mapping[str, Any], name: str) -> str:
    value = documents.field(document, name, str)
    if not value:
        raise unclear(f"Missing value for required parameter '{name}'.")
    return str(value)
