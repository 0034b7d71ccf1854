"""The model registry behind a tracking URI, as this package uses it.

Reads and tags go through `MlflowClient`. What must be conditional goes through MLflow's own HTTP helper with
`If-Match` or `If-None-Match` (RFC 9110, section 13.1), so that authentication plugins, tokens, private
authorities and retries are those of any MLflow client.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import TYPE_CHECKING, Any

from model_lifecycle.errors import ConflictError, LifecycleError, NotPermittedError
from model_lifecycle.evidence import Integrity, examine
from model_lifecycle.history import History, record
from model_lifecycle.rules import Approver
from model_lifecycle.terminal import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Run

_API = "/api/2.0/mlflow"
_WHOAMI = "/api/2.0/mlflow-aws/whoami"
_DECISION = "mlflow_aws.decision"
# Sealing copies within S3: gigabytes take minutes. After this the command can be run again.
_PATIENCE_SECONDS = 300.0
_POLL_SECONDS = 2.0
# What MLflow's client sends again by itself, but 503: what is said with it is worth telling.
_RETRIED = frozenset((408, 429, 500, 502, 504))
_SEALING, _NOT_SEALABLE = "PENDING_REGISTRATION", "FAILED_REGISTRATION"


class ChangedMeanwhileError(Exception):
    """The condition of a change did not hold any more (HTTP 412); carries what the server said."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: str
    stage: str
    run_id: str
    source: str
    created_ms: int
    tags: Mapping[str, str]
    description: str = ""
    status: str = "READY"
    status_message: str = ""


@dataclass(frozen=True)
class Model:
    """A registered model at one moment: its versions by number, its aliases and its own tags."""

    name: str
    versions: Mapping[str, Version]
    aliases: Mapping[str, str]
    own_tags: Mapping[str, str] = field(default_factory=dict)

    def version(self, number: str) -> Version:
        """One version.

        Raises:
            LifecycleError: there is no such version.
        """
        if number not in self.versions:
            known = ", ".join(sorted(self.versions, key=int)) or "none"
            raise LifecycleError(f'model "{self.name}" has no version {number}; its versions: {known}')
        return self.versions[number]

    def holder(self, stage: str) -> str:
        """The version that `models:/NAME/STAGE` means (MLflow takes the highest number), or ""."""
        held = (number for number, version in self.versions.items() if version.stage == stage)
        return max(held, key=int, default="")

    def history(self) -> History:
        """What the server has recorded about it."""
        return record({number: each.tags for number, each in self.versions.items()}, self.own_tags)


class Registry:
    """Speaks to one tracking server.

    Args:
        tracking_uri: `https://…`; None: MLflow's own choice (MLFLOW_TRACKING_URI).
        guarded: conditional changes and a verified caller; False only for a server without these.
    """

    def __init__(self, tracking_uri: str | None = None, *, guarded: bool = True) -> None:
        import mlflow
        from mlflow import MlflowClient

        self.uri = tracking_uri or mlflow.get_tracking_uri()
        self.guarded = guarded
        if not self.uri.startswith(("https://", "http://")):
            raise LifecycleError(
                f'the tracking URI is "{self.uri}", which is no server; '
                "set MLFLOW_TRACKING_URI or give --tracking-uri https://…"
            )
        self.client: MlflowClient = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def whoami(self) -> Approver | None:
        """Who we are, as the server has verified it; None when unguarded.

        Raises:
            LifecycleError: the server does not know this question: promotions there could not be told
                apart, or kept apart.
            NotPermittedError: the server does not know us.
        """
        if not self.guarded:
            return None
        answer = self._whoami()
        return Approver(answer["principal"], answer["role"], answer["lane"])

    def seals(self) -> bool:
        """Whether the server seals a version before any stage or alias may name it."""
        return self.guarded and self._whoami().get("seals") is True

    def _whoami(self) -> dict[str, Any]:
        response = self._send("GET", _WHOAMI)
        if response.status_code == 404:
            raise LifecycleError(
                f"{self.uri} does not answer {_WHOAMI}: it is not this project's server, so nobody's name "
                "would be verified and two promotions at once could both win; "
                "use --unguarded if you accept that"
            )
        return self._checked(response, "ask who we are")

    def model(self, name: str) -> Model:
        """A registered model with all of its versions."""
        with _explained(f'read model "{name}"'):
            known = self.client.get_registered_model(name)
            quote = '"' if "'" in name else "'"
            versions, token = [], None
            while True:
                page = self.client.search_model_versions(
                    f"name={quote}{name}{quote}", max_results=200, page_token=token
                )
                versions += list(page)
                token = page.token
                if not token:
                    break
        return Model(
            name,
            {str(each.version): _version(each) for each in versions},
            {alias: str(number) for alias, number in (known.aliases or {}).items()},
            dict(known.tags or {}),
        )

    def sealed(self, name: str, number: str) -> Model:
        """The model, as soon as the server has finished sealing this version of it.

        Raises:
            LifecycleError: it cannot be sealed, or not within minutes; says what the server says.
        """
        deadline, said = time.monotonic() + _PATIENCE_SECONDS, ""
        while True:
            model = self.model(name)
            version = model.version(number)
            if version.status == _NOT_SEALABLE:
                raise LifecycleError(f"version {number} could not be sealed: {version.status_message}")
            if version.status != _SEALING:
                return model
            if time.monotonic() > deadline:
                raise LifecycleError(
                    f"version {number} is still being sealed ({version.status_message}); "
                    "run the command again later"
                )
            if version.status_message != said or not said:
                said = version.status_message or "sealing has begun"
                progress(f"version {number}: {said}")
            time.sleep(_POLL_SECONDS)

    def run(self, run_id: str) -> Run:
        """A run with its metrics, parameters, tags and inputs."""
        with _explained(f"read run {run_id}"):
            return self.client.get_run(run_id)

    def experiment(self, experiment_id: str) -> str:
        """An experiment's name."""
        with _explained(f"read experiment {experiment_id}"):
            return str(self.client.get_experiment(experiment_id).name)

    def artifact_uri(self, version: Version) -> str:
        """Where the model's files are, for example `s3://bucket/1/models/m-…/artifacts`."""
        with _explained(f"find the artifacts of version {version.number}"):
            return str(self.client.get_model_version_download_uri(version.name, version.number))

    def integrity(
        self, model: Model, number: str, s3: Callable[[], Any], *, verify: bool = True
    ) -> Integrity:
        """Whether what consumers load is what was sealed, under the seal with which it went live."""
        version = model.version(number)
        served = self.artifact_uri(version)
        found = examine(
            s3,
            version.tags,
            model=model.name,
            version=number,
            created_ms=version.created_ms,
            served=served,
            verify=verify,
        )
        digest = found.seal.sha256 if found.seal else ""
        for event in model.history().of(number):
            if event.number is not None and event.brings_live and event.seal != digest:
                note = f"the history's entry {event.number} names another seal: {event.seal or 'none'}"
                return replace(found, verdict="tampered", note=note)
        return found

    def artifacts(self, run_id: str) -> Iterator[Any]:
        """The files among a run's artifacts, as MLflow lists them."""
        folders = [""] if run_id else []
        while folders:
            for entry in self.client.list_artifacts(run_id, folders.pop() or None):
                if entry.is_dir:
                    folders.append(entry.path)
                else:
                    yield entry

    def move(
        self,
        name: str,
        number: str,
        stage: str,
        *,
        archive_existing: bool,
        holder: str | None,
        decision: Mapping[str, Any] | None = None,
    ) -> None:
        """Move a version to a stage if `holder` still holds it ("": if nobody does; None: in any case).

        The server keeps `decision` in its record of the move. Waits while it seals the version first.

        Raises:
            ChangedMeanwhileError: the stage has another holder now; nothing was changed.
            ConflictError: the decision's figures are not the run's; nothing was changed.
            NotPermittedError: our role may not.
        """
        body: dict[str, Any] = {
            "name": name,
            "version": number,
            "stage": stage,
            "archive_existing_versions": archive_existing,
        }
        if decision is not None and self.guarded:
            body[_DECISION] = decision
        path = f"{_API}/model-versions/transition-stage"
        self._checked(
            self._send("POST", path, body, self._condition(holder)), f"move version {number} to {stage}"
        )

    def set_alias(self, name: str, alias: str, number: str, *, holder: str) -> None:
        """Point an alias at a version if `holder` still has it; raises as `move` does."""
        body = {"name": name, "alias": alias, "version": number}
        path = f"{_API}/registered-models/alias"
        self._checked(self._send("POST", path, body, self._condition(holder)), f"set alias {alias}")

    def remove_alias(self, name: str, alias: str, *, holder: str) -> None:
        """Remove an alias if `holder` still has it; raises as `move` does."""
        body = {"name": name, "alias": alias}
        path = f"{_API}/registered-models/alias"
        self._checked(self._send("DELETE", path, body, self._condition(holder)), f"remove alias {alias}")

    def _condition(self, holder: str | None) -> dict[str, str]:
        if holder is None or not self.guarded:
            return {}
        return {"If-Match": f'"{holder}"'} if holder else {"If-None-Match": "*"}

    def _send(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        more: dict[str, Any] = {} if body is None else {"json": body}
        if "respect_retry_after_header" in signature(http_request).parameters:
            # Or MLflow's client waits by itself, and silently, as older ones always do.
            more["respect_retry_after_header"] = False
        deadline, said = time.monotonic() + _PATIENCE_SECONDS, ""
        while True:
            with _explained(f"reach {self.uri}"):
                response = http_request(
                    get_default_host_creds(self.uri),
                    path,
                    method,
                    extra_headers=dict(headers or {}),
                    raise_on_status=False,
                    retry_codes=_RETRIED,
                    **more,
                )
            if response.status_code != 503 or time.monotonic() > deadline:
                return response
            if _message(response) != said:
                said = _message(response)
                progress(f"waiting for {self.uri}: {said}")
            time.sleep(_retry_after(response))

    def _checked(self, response: Any, what: str) -> dict[str, Any]:
        if response.status_code == 200:
            return dict(response.json() or {})
        said = _message(response)
        if response.status_code == 412:
            raise ChangedMeanwhileError(said)
        if response.status_code in (401, 403):
            raise NotPermittedError(f"the server refuses to {what}: {said}")
        if response.status_code == 409:
            raise ConflictError(f"the server did not {what}: {said}")
        raise LifecycleError(f"the server did not {what} (HTTP {response.status_code}): {said}")


def _message(response: Any) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return str(response.text[:300])


def _retry_after(response: Any) -> float:
    """The seconds that the server asks for, within reason."""
    asked = str(response.headers.get("Retry-After", ""))
    return min(max(float(asked), 1.0), 30.0) if asked.isdecimal() else _POLL_SECONDS


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn MLflow's exceptions into ours, and keep its deprecation notices about stages to itself."""
    from mlflow.exceptions import MlflowException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    except MlflowException as error:
        kind = NotPermittedError if error.error_code in _REFUSALS else LifecycleError
        raise kind(f"could not {what}: {error.message}") from error


_REFUSALS = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")


def _version(entity: Any) -> Version:
    return Version(
        name=entity.name,
        number=str(entity.version),
        stage=entity.current_stage or "None",
        run_id=entity.run_id or "",
        source=entity.source or "",
        created_ms=int(entity.creation_timestamp or 0),
        tags=dict(entity.tags or {}),
        description=entity.description or "",
        status=str(entity.status or "READY"),
        status_message=str(entity.status_message or ""),
    )
