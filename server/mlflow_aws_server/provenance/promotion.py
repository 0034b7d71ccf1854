"""Changes of stages and aliases, and deletions of versions: one at a time for each model, and recorded."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.entities.model_registry.model_version_stages import get_canonical_stage
from mlflow.exceptions import MlflowException

from mlflow_aws_server.asgi import App, Scope, replay
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.errors import UnavailableError
from mlflow_aws_server.provenance import documents, inner
from mlflow_aws_server.provenance.chain import PendingEntry, written_with_the_change
from mlflow_aws_server.provenance.conditions import Conditions
from mlflow_aws_server.provenance.decisions import FIELD, PromotionDecision, figures_as_json
from mlflow_aws_server.provenance.errors import conflict, later, unclear
from mlflow_aws_server.provenance.inner import BufferedResponse
from mlflow_aws_server.provenance.locks import ModelLocks
from mlflow_aws_server.provenance.routes import Concern
from mlflow_aws_server.provenance.versions import Standing, latest_metrics, standing

_logger = logging.getLogger(__name__)

EnsureSeal = Callable[[str, str], Awaitable[object | None]]
"""Seals a version of a model if it is not sealed yet. None: it has nothing to seal, as a prompt.

Raises a `RefusedError` if it is not sealed within seconds.
"""

_LIVE = frozenset(("Staging", "Production"))
_ACTIONS = {
    Concern.STAGE: "stage",
    Concern.ALIAS: "alias",
    Concern.ALIAS_REMOVAL: "alias-removed",
    Concern.DELETION: "version-deleted",
}
_LARGEST_VERSION = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One change of a stage or an alias, or a version's deletion, as MLflow understands it."""

    concern: Concern
    model: str
    version: str | None
    stage: str | None = None
    alias: str | None = None
    archive_existing_versions: bool = False
    decision: PromotionDecision | None = None

    @classmethod
    def read(cls, concern: Concern, document: Mapping[str, Any]) -> Promotion:
        """Read a request.

        Raises:
            ProvenanceError: a field is missing or not valid.
        """
        model = _required(document, "name")
        decision = PromotionDecision.read(document.get(FIELD))
        if decision is not None and concern not in (Concern.STAGE, Concern.ALIAS):
            raise unclear(f"`{FIELD}` goes with a change of a stage or an alias only")
        if concern is Concern.ALIAS_REMOVAL:
            return cls(concern=concern, model=model, version=None, alias=_required(document, "alias"))
        version = _version(_required(document, "version"))
        if concern is Concern.DELETION:
            return cls(concern=concern, model=model, version=version)
        if concern is Concern.ALIAS:
            alias = _required(document, "alias")
            return cls(concern=concern, model=model, version=version, alias=alias, decision=decision)
        try:
            stage = get_canonical_stage(_required(document, "stage"))
        except MlflowException as error:
            raise unclear(error.message) from None
        return cls(
            concern=concern,
            model=model,
            version=version,
            stage=stage,
            archive_existing_versions=documents.field(document, "archive_existing_versions", bool) or False,
            decision=decision,
        )

    def document(self) -> dict[str, Any]:
        """The request's body, with nothing but what MLflow knows of the fields that were read."""
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
        if self.alias is not None:
            return f"The alias {self.alias!r} of the model {self.model!r}"
        if self.stage is not None:
            return f"The stage {self.stage} of the model {self.model!r}"
        return f"Version {self.version} of the model {self.model!r}"

    @property
    def makes_live(self) -> bool:
        """Whether consumers may load the version by a name once this is done."""
        return self.concern is Concern.ALIAS or self.stage in _LIVE

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


class Promotions:
    """Makes the changes, through the application behind."""

    def __init__(
        self,
        app: App,
        locks: ModelLocks,
        questions: ConnectionPool,
        *,
        ensure_seal: EnsureSeal,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._app = app
        self._locks = locks
        self._questions = questions
        self._ensure_seal = ensure_seal
        self._now = now

    async def make(
        self, promotion: Promotion, conditions: Conditions, scope: Scope, body: bytes, *, principal: str
    ) -> BufferedResponse:
        """Check what must hold, make the change and record it, under the model's lock.

        Raises:
            RefusedError: a condition does not hold (412), the version's state or its figures do not allow it
                (409), or the model is locked, not sealed yet or unreachable (503). Nothing was changed.
        """
        sealed = await self._seal(promotion)
        async with self._locks.hold(promotion.model):
            known = await inner.get(self._app, scope, "registered-models/get", name=promotion.model)
            if known.status in (400, 404):
                return known
            if known.status != 200:
                _logger.error("model %r cannot be read: %d %r", promotion.model, known.status, known.body)
                raise UnavailableError(
                    "The model registry cannot be read at the moment. Nothing was changed."
                )
            previous = promotion.holder(known.json()["registered_model"])
            conditions.check(previous, place=promotion.place)
            version = promotion.version or previous
            state = await self._standing(promotion.model, version)
            if version is None or state is None:
                # MLflow says so in its own words.
                return await inner.response_to(self._app, scope, replay(body))
            if promotion.concern is Concern.DELETION:
                _refuse_if_live(promotion, state)
            if sealed and state.seal is None:
                raise later(f"{promotion.place}: version {version} is not sealed. Nothing was changed.")
            facts = {
                "principal": principal,
                "action": _ACTIONS[promotion.concern],
                "stage": state.stage if promotion.concern is Concern.DELETION else promotion.stage,
                "alias": promotion.alias,
                "archive_existing_versions": promotion.archive_existing_versions,
                "previous": previous,
                "seal": state.seal,
                **await self._judged(promotion.decision, state),
            }
            return await self._change(
                PendingEntry(
                    model=promotion.model,
                    version=int(version),
                    facts=facts,
                    deletes=promotion.concern is Concern.DELETION,
                    now=self._now,
                ),
                scope,
                body,
            )

    async def _seal(self, promotion: Promotion) -> bool:
        """Whether the version must be sealed, as it is now. Done before the lock: a copy takes its time."""
        if not promotion.makes_live or await self._standing(promotion.model, promotion.version) is None:
            return False
        assert promotion.version is not None  # noqa: S101 - a version that stands somewhere
        return await self._ensure_seal(promotion.model, promotion.version) is not None

    async def _standing(self, model: str, version: str | None) -> Standing | None:
        return None if version is None else await standing(self._questions, model, int(version))

    async def _judged(self, decision: PromotionDecision | None, state: Standing) -> dict[str, Any]:
        """What the entry says of a decision: as it came, and its figures as they are in the database."""
        if decision is None:
            return {"decision": None, "figures": None}
        found = await latest_metrics(self._questions, state.run_id, tuple(decision.figures))
        decision.check(found, run_id=state.run_id)
        return {"decision": decision.document, "figures": figures_as_json(found)}

    async def _change(self, entry: PendingEntry, scope: Scope, body: bytes) -> BufferedResponse:
        with written_with_the_change(entry):
            answer = await inner.response_to(self._app, scope, replay(body))
        if answer.status == 200 and not entry.written:
            # Another MLflow than the tested one: the change was made, so this line is its only record.
            _logger.error(
                "history was not written: %s",
                json.dumps({"model": entry.model, "version": entry.version, **entry.facts}),
            )
        return answer


def _refuse_if_live(promotion: Promotion, state: Standing) -> None:
    named = [f"is in the stage {state.stage}"] if state.stage in _LIVE else []
    named += [f"has the alias {alias!r}" for alias in state.aliases[:3]]
    if named:
        raise conflict(
            f"{promotion.place} {' and '.join(named)}, so others load it by that name. Nothing was deleted: "
            "archive it, or move the alias to another version, first."
        )


def _version(text: str) -> str:
    """A version's number as the database writes it: MLflow reads `01` as `1`."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 0 < number <= _LARGEST_VERSION:
        raise unclear(f"the version is {text[:40]!r}, which is not the number of a version")
    return str(number)


def _required(document: Mapping[str, Any], name: str) -> str:
    value = documents.field(document, name, str)
    if not value:
        raise unclear(f"Missing value for required parameter '{name}'.")
    return str(value)
