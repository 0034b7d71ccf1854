"""One server with its bucket, the people who use it, and a model in the state that a test needs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tests.conftest import RdsLike
    from tests.iam.conftest import Deployed
    from tests.server.conftest import Identity

Kind = Literal["run artifact", "logged model"]
Moment = Literal["before Staging", "between Staging and Production", "after Production"]
KINDS: tuple[Kind, ...] = ("run artifact", "logged model")
MOMENTS: tuple[Moment, ...] = ("before Staging", "between Staging and Production", "after Production")
FILES: Mapping[str, bytes] = {
    "MLmodel": b"flavors: {}\n",
    "model.skops": b"what was trained",
    "data/columns.json": b'["age"]',
}
POLICY = """\
version = 1

[[transitions.staging.metrics]]
name = "auc"
direction = "higher"
minimum = 0.7

[[transitions.production.metrics]]
name = "auc"
direction = "higher"
minimum = 0.7
"""


@dataclass(frozen=True)
class Person:
    """Somebody with one role of the deployment, in MLflow and in IAM."""

    name: str
    role: str

    @property
    def arn(self) -> str:
        """The IAM role that the server knows them by."""
        return f"arn:aws:iam::123456789012:role/{self.name}"


AUTHOR, COLLEAGUE = Person("author", "contributor"), Person("colleague", "contributor")
APPROVER, VIEWER, ADMIN = Person("approver", "approver"), Person("viewer", "viewer"), Person("admin", "admin")
PEOPLE = (AUTHOR, COLLEAGUE, APPROVER, VIEWER, ADMIN)
INSIDERS = (AUTHOR, COLLEAGUE, APPROVER)


@dataclass(frozen=True)
class Said:
    """How a command of `mlflow-lifecycle` ended."""

    code: int
    words: str
    document: Any


@dataclass(frozen=True)
class Site:
    """The server's address, and how to be somebody there and in S3."""

    url: str
    deployed: Deployed
    identity: Identity
    policy: Path
    rds: RdsLike
    database: str
    experiment: list[str] = field(default_factory=list)

    def s3(self, person: Person) -> Any:
        """S3 as this person's IAM role may use it."""
        return self.deployed.roles[person.role].client("s3")

    @property
    def root_s3(self) -> Any:
        """S3 as the account's root, whom no policy of ours binds."""
        return self.deployed.root.client("s3")

    @property
    def bucket(self) -> str:
        """The bucket of artifacts."""
        return self.deployed.bucket

    @contextlib.contextmanager
    def being(self, person: Person) -> Iterator[MlflowClient]:
        """This process as theirs: the token, the credentials, and a stock client."""
        import boto3
        from mlflow import MlflowClient

        from tests.server.conftest import AUDIENCE

        aws = self.deployed.roles[person.role]
        environ = {
            "MLFLOW_TRACKING_TOKEN": self.identity.sts.token(subject=person.arn, audience=AUDIENCE),
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_REGISTRY_URI": self.url,
            "MLFLOW_S3_ENDPOINT_URL": aws.endpoint,
            **aws.variables(),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        }
        # boto3's default session remembers the first credentials that it saw.
        with mock.patch.dict(os.environ, environ), mock.patch.object(boto3, "DEFAULT_SESSION", None):
            yield MlflowClient(self.url, self.url)

    def lifecycle(self, person: Person, command: str, *arguments: str) -> Said:
        """Run `mlflow-lifecycle` as somebody."""
        from model_lifecycle.cli import main

        policy = [] if command == "explain" else [f"--policy={self.policy}"]
        out, err = io.StringIO(), io.StringIO()
        with self.being(person), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([command, *arguments, *policy, f"--tracking-uri={self.url}", "--json"])
        return Said(code, err.getvalue(), json.loads(out.getvalue()) if out.getvalue().strip() else None)

    def promote(self, name: str, number: str, to: str) -> None:
        """As the approver, by the policy; must succeed."""
        said = self.lifecycle(APPROVER, "promote", name, number, f"--to={to}")
        assert said.code == 0, said.words

    def send(self, person: Person, method: str, path: str, body: object) -> tuple[int, Any]:
        """One request, exactly as given; a path without a slash in front is one of the API."""
        from tests.server.conftest import AUDIENCE, request

        token = self.identity.sts.token(subject=person.arn, audience=AUDIENCE)
        address = urlsplit(self.url)
        status, answer = request(
            address.port or 0,
            method,
            path if path.startswith("/") else f"/api/2.0/mlflow/{path}",
            body,
            host=address.netloc,
            role=None,
            headers={"Authorization": f"Bearer {token}"},
        )
        try:
            return status, json.loads(answer)
        except ValueError:
            return status, answer

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Past the server, as the database's superuser."""
        return self.rds.administer(statement, database=self.database)

    def model(self, kind: Kind, *, until: Moment = "after Production") -> Model:
        """A model of the author's with one version, and its life until then."""
        with self.being(AUTHOR) as client:
            if not self.experiment:
                self.experiment.append(client.create_experiment("attacked"))
            run = client.create_run(self.experiment[0])
            run_id = run.info.run_id
            client.log_metric(run_id, "auc", 0.8)
            client.log_param(run_id, "depth", "4")
            client.set_tag(run_id, "mlflow.source.git.commit", "0123abc")
            name = f"model-{secrets.token_hex(4)}"
            client.create_registered_model(name)
            model_id = None
            if kind == "run artifact":
                location = source = f"{run.info.artifact_uri}/model"
            else:
                logged = client.create_logged_model(self.experiment[0], name="m", source_run_id=run_id)
                location, model_id = logged.artifact_location, logged.model_id
                source = f"models:/{model_id}"
            _, _, bucket, prefix = location.split("/", 3)
            for path, content in FILES.items():
                self.s3(AUTHOR).put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=content)
            if model_id:
                client.finalize_logged_model(model_id, "READY")
            client.set_terminated(run_id)
            made = client.create_model_version(name, source, run_id, model_id=model_id)
        found = Model(self, name, str(made.version), run_id, prefix, model_id)
        if until != "before Staging":
            self.promote(name, found.number, "staging")
        if until == "after Production":
            self.promote(name, found.number, "production")
        return found


@dataclass(frozen=True)
class Model:
    """A registered model with one version."""

    site: Site
    name: str
    number: str
    run_id: str
    source: str
    """The prefix that its author wrote to."""
    model_id: str | None

    @property
    def place(self) -> str:
        """The prefix in the bucket that clients load the version from."""
        with self.site.being(VIEWER) as client:
            uri = client.get_model_version_download_uri(self.name, self.number)
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        assert bucket == self.site.bucket
        return str(prefix)

    @property
    def tags(self) -> dict[str, str]:
        """The version's tags."""
        with self.site.being(VIEWER) as client:
            return dict(client.get_model_version(self.name, self.number).tags)

    @property
    def seal(self) -> Any:
        """What the server says of the seal."""
        return json.loads(self.tags["mlflow_aws.seal"])

    def loaded(self, by: str = "Production") -> dict[str, bytes]:
        """The files that a stock client gets for `models:/NAME/…`."""
        import mlflow

        with self.site.being(VIEWER), tempfile.TemporaryDirectory() as directory:
            got = Path(mlflow.artifacts.download_artifacts(f"models:/{self.name}/{by}", dst_path=directory))
            return {
                str(file.relative_to(got)): file.read_bytes()
                for file in got.rglob("*")
                # The client itself writes this beside what it has loaded.
                if file.is_file() and file.name != "registered_model_meta"
            }

    def explained(self) -> Said:
        """What `explain` says, to a viewer."""
        return self.site.lifecycle(VIEWER, "explain", self.name, self.number)

    def live_on(self, since: Moment) -> None:
        """The rest of its life until Production."""
        if since == "before Staging":
            self.site.promote(self.name, self.number, "staging")
        if since != "after Production":
            self.site.promote(self.name, self.number, "production")

    def assert_as_approved(self) -> None:
        """What consumers load, byte for byte, is what was trained; and the explanation says so."""
        assert {path: content for path, content in self.loaded().items() if path in FILES} == dict(FILES)
        said = self.explained()
        assert (said.code, said.document["outcome"]) == (0, "intact"), said.words

    def assert_shows_tampering(self, *words: str) -> None:
        """The explanation ends with 6 and names what was done."""
        said = self.explained()
        assert (said.code, said.document["outcome"]) == (6, "tampered"), said.words
        assert all(word in said.words for word in words), said.words
