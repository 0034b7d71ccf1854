"""What the steps of one smoke run share: the target, unique names, bounded clients, and facts."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from client_smoke.target import TrackingTarget
from client_smoke.tokens import Tokens

if TYPE_CHECKING:
    import requests
    from mlflow import MlflowClient

Fact = TypeVar("Fact")
# What is never retried must not be sent on a kept connection that the server may be closing at this moment.
_ALONE = {"Connection": "close"}
_IDENTITY = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
)


@dataclass
class Smoke:
    """One run against one deployment.

    Everything it makes on the server carries `identifier` in its name, so runs in parallel never meet and
    the clean-up needs nothing but the name to find it all again, whenever it was interrupted.
    """

    target: TrackingTarget
    ca_file: str
    timeout: float
    scratch: Path
    tokens: Tokens = field(default_factory=Tokens)
    approver_session: Any = None
    identifier: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    made_something: bool = False
    remains: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    _facts: dict[type[Any], Any] = field(default_factory=dict)

    @property
    def experiment_name(self) -> str:
        """The experiment's name on the server."""
        return f"smoke-{self.identifier}"

    @property
    def model_name(self) -> str:
        """The registered model's name on the server."""
        return f"smoke-{self.identifier}"

    def remember(self, fact: object) -> None:
        """Leave a finding for later steps, under its type."""
        self._facts[type(fact)] = fact

    def recall(self, kind: type[Fact]) -> Fact:
        """A finding of a step that this one `needs`."""
        found = self._facts[kind]
        assert isinstance(found, kind)  # noqa: S101 - narrows for the type checker; remember() holds it
        return found

    @cached_property
    def mlflow(self) -> MlflowClient:
        """MLflow's client for tracking and registry; the fluent API (`mlflow.…`) is pointed there as well."""
        import mlflow

        mlflow.set_tracking_uri(self.target.url)
        mlflow.set_registry_uri(self.target.url)
        return mlflow.MlflowClient(tracking_uri=self.target.url, registry_uri=self.target.url)

    @cached_property
    def s3(self) -> Any:
        """An S3 client that resolves endpoint, region and credentials exactly as MLflow's does."""
        import boto3

        return boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)

    @cached_property
    def approver_s3(self) -> Any:
        """The same as the approver whose AWS profile was given; None without one."""
        if self.approver_session is None:
            return None
        endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None
        return self.approver_session.client("s3", endpoint_url=endpoint)

    def request(self, method: str, path: str, *, data: bytes | None = None) -> requests.Response:
        """One HTTP request to the server with the identity that MLflow's client would use; never retried.

        Any status is returned; a connection that fails raises `mlflow.exceptions.MlflowException`.
        """
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        response: requests.Response = http_request(
            get_default_host_creds(self.target.url),
            path,
            method,
            max_retries=0,
            raise_on_status=False,
            timeout=self.timeout,
            allow_redirects=False,
            extra_headers=_ALONE,
            **({} if data is None else {"data": data}),
        )
        return response

    def request_as(
        self, token: str | None, method: str, path: str, *, json: object = None
    ) -> requests.Response:
        """One HTTP request with this bearer token and nothing else that could identify; never retried.

        None sends no identity at all, not even one from a .netrc file.
        """
        from mlflow.utils.rest_utils import MlflowHostCreds, http_request

        creds = MlflowHostCreds(self.target.url, server_cert_path=self.ca_file)
        response: requests.Response = http_request(
            creds,
            path,
            method,
            max_retries=0,
            raise_on_status=False,
            timeout=self.timeout,
            allow_redirects=False,
            extra_headers=_ALONE,
            auth=_Bearer(token),
            **({} if json is None else {"json": json}),
        )
        return response

    def own_token(self) -> str | None:
        """The bearer token that MLflow's client sends to the target, however it was configured; or None."""
        import requests
        from mlflow.tracking.request_auth.registry import fetch_auth
        from mlflow.utils.credentials import get_default_host_creds

        _ = self.mlflow  # an auth plugin asks for the tracking URI before it lets its token go anywhere
        creds = get_default_host_creds(self.target.url)
        if not creds.auth:
            return str(creds.token) if creds.token else None
        prepared = requests.Request("GET", self.target.url, auth=fetch_auth(creds.auth)).prepare()
        scheme, _, token = prepared.headers.get("Authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" and token else None

    @contextmanager
    def acting_as(self, token: str) -> Iterator[None]:
        """Within the block, MLflow's client has this identity and no other; AWS credentials stay."""
        before = {name: os.environ.pop(name, None) for name in _IDENTITY}
        os.environ["MLFLOW_TRACKING_TOKEN"] = token
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


class _Bearer:
    # As an `auth`, so that requests does not put what it finds in a .netrc file in its place.
    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@dataclass(frozen=True)
class Step:
    """One step: a function that returns what it observed, or raises `StepFailed`, `CannotRun` or `NotTried`.

    `title` says what holds if it passes. A step is skipped, with the reason, unless everything it `needs`
    passed.
    """

    run: Callable[[Smoke], str]
    title: str
    needs: tuple[Callable[[Smoke], str], ...] = ()

    @property
    def name(self) -> str:
        """The step's stable name in reports: that of its function."""
        return self.run.__name__
