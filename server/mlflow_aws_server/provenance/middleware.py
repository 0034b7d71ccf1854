"""Provenance as an ASGI application around another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from mlflow_aws_server.asgi import (
    PRINCIPAL,
    App,
    Receive,
    Scope,
    Send,
    refuse,
    replay,
    whole,
    with_length,
)
from mlflow_aws_server.database.connect import OpenConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.errors import RefusedError
from mlflow_aws_server.identity import Principal
from mlflow_aws_server.provenance import documents, inner, tags
from mlflow_aws_server.provenance.conditions import conditions_of
from mlflow_aws_server.provenance.errors import ProvenanceError, reserved, unclear
from mlflow_aws_server.provenance.evidence import Evidence, run_of
from mlflow_aws_server.provenance.experiments import ExperimentPlaces
from mlflow_aws_server.provenance.inner import BufferedResponse
from mlflow_aws_server.provenance.locks import ModelLocks
from mlflow_aws_server.provenance.places import ArtifactPlaces
from mlflow_aws_server.provenance.promotion import Promotion, Promotions
from mlflow_aws_server.provenance.routes import Concern, Matter, Thing, matter_of
from mlflow_aws_server.sealing import Seals

_READS = frozenset(("GET", "HEAD", "OPTIONS"))
_MAKING = frozenset((Concern.STAMP, Concern.CREATE))
# What training loops call: most of these requests are passed on without being parsed.
_TAGGING = frozenset((Concern.TAG, Concern.UNTAG))
# Their tags are deleted by a path that ends with the key.
_DELETED_BY_PATH = frozenset((Thing.LOGGED_MODEL, Thing.DATASET))


class Provenance:
    """Writes into MLflow who did what, and lets no client write or remove it.

    Runs, logged models and model versions are created with the tag `mlflow_aws.principal`, and MLflow's own
    fields for the author say the same. Each change of a stage or an alias leaves a tag `mlflow_aws.history.*`
    on the version, and can be made conditional with `If-Match: "VERSION"` and `If-None-Match: *`; a version's
    deletion leaves one on the registered model. Such a tag that a client sends back unchanged, or copies
    beside others, is left out; one that it changes, makes up or deletes is refused with 403. So are places
    outside of the artifact root, with 400.

    MLflow gets exactly what was checked: a body that was parsed here is written again. A body that cannot be
    understood is refused, and so is a request without a verified principal.
    """

    def __init__(
        self,
        app: App,
        open_connection: OpenConnection,
        questions: ConnectionPool,
        sealing: Seals,
        places: ArtifactPlaces,
    ) -> None:
        """`open_connection` opens one database connection; `questions` is for short statements.

        `sealing` seals new versions, and each before a stage or an alias may name it.
        """
        self._app = app
        self._sealing = sealing
        self._evidence = Evidence(questions)
        self._places = places
        self._experiments = ExperimentPlaces(places, questions)
        self._promotions = Promotions(app, ModelLocks(open_connection), questions, ensure_seal=sealing.ensure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http" or scope["method"] in _READS:
            await self._app(scope, receive, send)
            return
        # Werkzeug reads `post` as `POST`.
        matter = matter_of(scope["method"].upper(), scope["path"])
        if matter is None:
            await self._app(scope, receive, send)
            return
        try:
            await self._serve(matter, scope, receive, send)
        except RefusedError as refusal:
            await refuse(send, refusal)
        except (asyncpg.DataError, UnicodeEncodeError):
            await refuse(
                send, unclear("A value has characters, or a length, that the database does not accept.")
            )

    async def _serve(self, matter: Matter, scope: Scope, receive: Receive, send: Send) -> None:
        principal = _principal(scope)
        if matter.concern is Concern.UNTAG_PATH:
            if tags.is_reserved(matter.key, matter.thing):
                raise reserved(matter.key)
            await self._app(scope, receive, send)
            return
        raw = await whole(receive)
        if raw is not None:
            await self._judge(matter, raw, principal, scope, receive, send)

    async def _judge(
        self, matter: Matter, raw: bytes, principal: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        names_keys = matter.thing in _DELETED_BY_PATH
        if matter.concern in _TAGGING and not names_keys and not tags.may_name_reserved(raw):
            await self._app(scope, replay(raw, receive), send)
            return
        document = documents.read(raw)
        if names_keys:
            tags.refuse_undeletable(document, matter.thing)
        if matter.concern is Concern.KEYS:
            pass
        elif matter.concern in _MAKING:
            document = await self._checked(matter, document, principal)
        elif matter.concern in _TAGGING:
            rest, given = tags.separate(document, matter.thing)
            if given and matter.concern is Concern.UNTAG:
                raise reserved(given[0][0])
            says_more = any(rest.get(name) for name in ("metrics", "params", "tags"))
            claim = await self._evidence.check(matter, document, given, says_more=says_more)
            if claim is not None:
                rest = tags.with_claim(rest, document, claim)
            if "key" in document and "key" not in rest and not says_more:
                await (await self._unchanged(matter, document, scope)).pass_to(send)
                return
            document = rest
        else:
            promotion = Promotion.read(matter.concern, document)
            body = documents.write(promotion.document())
            answer = await self._promotions.make(
                promotion, conditions_of(scope), with_length(scope, len(body)), body, principal=principal
            )
            await answer.pass_to(send)
            return
        body = documents.write(document)
        sized = with_length(scope, len(body))
        if matter.concern is Concern.STAMP and matter.thing is Thing.VERSION:
            answer = await inner.response_to(self._app, sized, replay(body, receive))
            await (await self._begun_to_seal(answer, scope)).pass_to(send)
            return
        await self._app(sized, replay(body, receive), send)

    async def _checked(self, matter: Matter, document: dict[str, Any], principal: str) -> dict[str, Any]:
        """A request to make something, as it may be passed on."""
        document, given = tags.separate(document, matter.thing)
        # Who is named as the author of something new is a claim, and kept as one.
        copied = [pair for pair in given if pair[0] != tags.USER]
        await self._evidence.check(matter, document, copied, says_more=True)
        if matter.thing is Thing.EXPERIMENT:
            self._places.check_experiment(document)
        elif matter.thing is Thing.VERSION:
            self._places.check_version(document)
        elif matter.thing is not Thing.MODEL:
            await self._experiments.check(document)
        if matter.concern is Concern.CREATE:
            return document
        return tags.stamp(document, matter.thing, given, principal=principal)

    async def _unchanged(self, matter: Matter, document: Mapping[str, Any], scope: Scope) -> BufferedResponse:
        """What MLflow answers to setting a tag that is there already: nothing, if the thing is there."""
        if matter.thing is Thing.RUN:
            return await inner.post(self._app, scope, "runs/log-batch", {"run_id": run_of(document)})
        names = {
            name: documents.field(document, name, str) for name in ("name", "version") if name in document
        }
        return (await inner.get(self._app, scope, f"{matter.thing.value}/get", **names)).without_content()

    async def _begun_to_seal(self, answer: BufferedResponse, scope: Scope) -> BufferedResponse:
        """The answer to a version's creation; of one that is sealed by now, in the state that it has now."""
        if answer.status != 200:
            return answer
        made = answer.json()["model_version"]
        name, version = made["name"], made["version"]
        if not await self._sealing.created(name, version):
            return answer
        now = await inner.get(self._app, scope, "model-versions/get", name=name, version=version)
        return now if now.status == 200 else answer


def _principal(scope: Scope) -> str:
    principal: Principal | None = scope.get(PRINCIPAL)
    if principal is None or not principal.name:
        raise ProvenanceError(
            500, "INTERNAL_ERROR", "The caller's identity is unknown here; nothing was changed."
        )
    return principal.name
