"""Provenance as an ASGI application around another one."""

from __future__ import annotations

from mlflow_aws_server import bodies
from mlflow_aws_server.asgi import (
    PRINCIPAL,
    App,
    Receive,
    Scope,
    Send,
    header_values,
    refuse,
    replay,
    with_length,
)
from mlflow_aws_server.bodies import Bodies
from mlflow_aws_server.database.connect import OpenConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.errors import RefusedError
from mlflow_aws_server.identity import Principal
from mlflow_aws_server.provenance import documents, inner, tags
from mlflow_aws_server.provenance.conditions import conditions_of
from mlflow_aws_server.provenance.errors import ProvenanceError, reserved
from mlflow_aws_server.provenance.inner import BufferedResponse
from mlflow_aws_server.provenance.locks import ModelLocks
from mlflow_aws_server.provenance.promotion import Promotion, Promotions
from mlflow_aws_server.provenance.routes import Concern, concern_of
from mlflow_aws_server.sealing import Seals

_READS = frozenset(("GET", "HEAD", "OPTIONS"))


class Provenance:
    """Writes into MLflow who did what, and lets no client write or remove it.

    Runs, logged models and model versions are created with the tag `mlflow_aws.principal`. Each change of
    a stage or an alias leaves a tag `mlflow_aws.history.*` on the version, and can be made conditional with
    `If-Match: "VERSION"` and `If-None-Match: *`; a version's deletion leaves one on the registered model.
    A client that tries to set or delete such a tag gets 403.

    MLflow gets exactly what was checked: a body that was parsed here is written again. A body that cannot be
    understood is refused, and so is a request without a verified principal.
    """

    def __init__(
        self, app: App, open_connection: OpenConnection, questions: ConnectionPool, sealing: Seals
    ) -> None:
        """`open_connection` opens one database connection; `questions` is for short statements.

        `sealing` seals new versions, and each before a stage or an alias may name it.
        """
        self._app = app
        self._sealing = sealing
        self._questions = questions
        self._bodies = Bodies()
        self._promotions = Promotions(app, ModelLocks(open_connection), questions, ensure_seal=sealing.ensure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http" or scope["method"] in _READS:
            await self._app(scope, receive, send)
            return
        # Werkzeug reads `post` as `POST`.
        known = concern_of(scope["method"].upper(), scope["path"])
        if known is None:
            await self._app(scope, receive, send)
            return
        concern, key = known
        try:
            await self._serve(concern, key, scope, receive, send)
        except RefusedError as refusal:
            await refuse(send, refusal)

    async def _serve(self, concern: Concern, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        principal = _principal(scope)
        if concern is Concern.GUARD_PATH:
            if tags.is_reserved(key):
                raise reserved(key)
            await self._app(scope, receive, send)
            return
        raw = await self._bodies.read(receive, _length(scope))
        if raw is None:
            return
        try:
            await self._judge(concern, raw, principal, scope, receive, send)
        finally:
            self._bodies.release(raw)

    async def _judge(
        self, concern: Concern, raw: bytes, principal: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if concern is Concern.GUARD and not tags.may_name_reserved(raw):
            await self._app(scope, replay(raw, receive), send)
            return
        document = documents.read(raw)
        if concern is Concern.GUARD:
            tags.refuse_reserved(document)
        elif concern in (Concern.STAMP, Concern.VERSION):
            document = tags.stamp(document, principal=principal)
        else:
            promotion = Promotion.read(concern, document)
            body = documents.write(promotion.document())
            answer = await self._promotions.make(
                promotion, conditions_of(scope), with_length(scope, len(body)), body, principal=principal
            )
            await answer.pass_to(send)
            return
        body = documents.write(document)
        sized = with_length(scope, len(body))
        if concern is Concern.VERSION:
            answer = await inner.response_to(self._app, sized, replay(body, receive))
            await (await self._begun_to_seal(answer, scope)).pass_to(send)
            return
        await self._app(sized, replay(body, receive), send)

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


def _length(scope: Scope) -> int:
    """The length of the request's body.

    Raises:
        ProvenanceError: it is missing, or larger than any such call needs.
    """
    lengths = set(header_values(scope, b"content-length"))
    if header_values(scope, b"transfer-encoding") or len(lengths) > 1:
        raise ProvenanceError(411, "INVALID_PARAMETER_VALUE", "Send the body with one Content-Length.")
    text = lengths.pop() if lengths else b"0"
    if not text.isdigit():
        raise ProvenanceError(400, "INVALID_PARAMETER_VALUE", "Content-Length is not a number.")
    if int(text) > bodies.LARGEST:
        raise ProvenanceError(
            413,
            "INVALID_PARAMETER_VALUE",
            f"The body has {int(text)} bytes; at most {bodies.LARGEST} are accepted. Send less at once.",
        )
    return int(text)
