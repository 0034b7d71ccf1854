"""The model registry behind a tracking URI, as this package uses it.

Reads and tags go through `MlflowClient`. What must be conditional goes through MLflow's own HTTP helper with
`If-Match` or `If-None-Match` (RFC 9110, section 13.1), so that authentication plugins, tokens, private
authorities and retries are those of any MLflow client.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_lifecycle.errors import LifecycleError, NotPermittedError
from model_lifecycle.rules import Approver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities import Run

_API = "/api/2.0/mlflow"
_WHOAMI = "/api/2.0/mlflow-aws/whoami"


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


@dataclass(frozen=True)
class Model:
    """A registered model at one moment: its versions by number, and its aliases."""

    name: str
    versions: Mapping[str, Version]
    aliases: Mapping[str, str]

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

    def tags(self) -> dict[str, Mapping[str, str]]:
        """The tags of every version."""
        return {number: version.tags for number, version in self.versions.items()}


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
        response = self._send("GET", _WHOAMI)
        if response.status_code == 404:
            raise LifecycleError(
                f"{self.uri} does not answer {_WHOAMI}: it is not this project's server, so nobody's name "
                "would be verified and two promotions at once could both win; "
                "use --unguarded if you accept that"
            )
        answer = self._checked(response, "ask who we are")
        return Approver(answer["principal"], answer["role"], answer["lane"])

    def model(self, name: str) -> Model:
        """A registered model with all of its versions."""
        with _explained(f'read model "{name}"'):
            aliases = dict(self.client.get_registered_model(name).aliases or {})
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
            {alias: str(number) for alias, number in aliases.items()},
        )

    def run(self, run_id: str) -> Run:
        """A run with its metrics, parameters, tags and inputs."""
        with _explained(f"read run {run_id}"):
            return self.client.get_run(run_id)

    def artifact_uri(self, version: Version) -> str:
        """Where the model's files are, for example `s3://bucket/1/models/m-…/artifacts`."""
        with _explained(f"find the artifacts of version {version.number}"):
            return str(self.client.get_model_version_download_uri(version.name, version.number))

    def set_tag(self, name: str, number: str, key: str, value: str) -> None:
        """Write one tag of a version."""
        with _explained(f"write tag {key} of version {number}"):
            self.client.set_model_version_tag(name, number, key, value)

    def move(self, name: str, number: str, stage: str, *, archive_existing: bool, holder: str | None) -> None:
        """Move a version to a stage if `holder` still holds it ("": if nobody does; None: in any case).

        Raises:
            ChangedMeanwhileError: the stage has another holder now; nothing was changed.
            NotPermittedError: our role may not.
        """
        body = {
            "name": name,
            "version": number,
            "stage": stage,
            "archive_existing_versions": archive_existing,
        }
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

        more = {} if body is None else {"json": body}
        with _explained(f"reach {self.uri}"):
            return http_request(
                get_default_host_creds(self.uri),
                path,
                method,
                extra_headers=dict(headers or {}),
                raise_on_status=False,
                **more,
            )

    def _checked(self, response: Any, what: str) -> dict[str, Any]:
        if response.status_code == 200:
            return dict(response.json() or {})
        try:
            said = str(response.json()["message"])
        except (ValueError, KeyError, TypeError):
            said = response.text[:300]
        if response.status_code == 412:
            raise ChangedMeanwhileError(said)
        if response.status_code in (401, 403):
            raise NotPermittedError(f"the server refuses to {what}: {said}")
        raise LifecycleError(f"the server did not {what} (HTTP {response.status_code}): {said}")


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
    )
