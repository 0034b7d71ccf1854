"""What the steps of one smoke run share: the target, unique names, bounded clients, and facts."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from client_smoke.target import Target

if TYPE_CHECKING:
    import requests
    from mlflow import MlflowClient

Fact = TypeVar("Fact")


@dataclass
class Smoke:
    """One run against one deployment.

    Everything it makes on the server carries `identifier` in its name, so runs in parallel never meet and
    the clean-up needs nothing but the name to find it all again, whenever it was interrupted.
    """

    target: Target
    ca_file: str
    timeout: float
    scratch: Path
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
        import os

        import boto3

        return boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)

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
            **({} if data is None else {"data": data}),
        )
        return response


@dataclass(frozen=True)
class Step:
    """One promise: a function that returns what it observed, or raises `PromiseBroken` or `CannotRun`.

    A step is left out, with the reason, when one that it `needs` was not kept.
    """

    run: Callable[[Smoke], str]
    promise: str
    needs: tuple[Callable[[Smoke], str], ...] = ()

    @property
    def name(self) -> str:
        """The step's stable name in reports: that of its function."""
        return self.run.__name__
