"""A database with something of everything, its objects in S3, and what both hold, row by row."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from mlflow_aws_server.settings import CleanupSettings

from tests.conftest import RdsLike
from tests.object_store import ObjectStore
from tests.server.conftest import Deployment, Identity, Migration, deployment

DAY = 86_400_000
# A long time ago.
OLD = 1_000_000_000_000


@dataclass
class House:
    """One deployment's rows and objects, made without a server."""

    deployment: Deployment
    store: ObjectStore
    root: str
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1000, 10_000)))

    @property
    def settings(self) -> CleanupSettings:
        """What `gc` is told."""
        return CleanupSettings.from_environ(
            {**self.deployment.environ, "MLFLOW_AWS_ARTIFACT_ROOT": self.root}
        )

    def execute(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """One statement in the database, past the server."""
        with self.deployment.rds.postgres.cursor(self.deployment.database) as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def experiment(self, *, deleted: int | None = None) -> int:
        """An experiment with a tag."""
        number = next(self._numbers)
        stage = "active" if deleted is None else "deleted"
        self.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace,"
            " creation_time, last_update_time) VALUES (%s, %s, %s, %s, 'default', 1, %s)",
            (number, f"experiment {number}", f"{self.root}/{number}", stage, deleted or OLD),
        )
        self.execute("INSERT INTO experiment_tags VALUES ('team', 'a', %s)", (number,))
        return number

    def run(self, experiment: int, *, deleted: int | None = None, author: str = "arn:somebody") -> str:
        """A run with something of everything, and two objects; `deleted` is the time, 0 for never told."""
        run = secrets.token_hex(16)
        place = f"{self.root}/{experiment}/{run}/artifacts"
        self.execute(
            "INSERT INTO runs (run_uuid, artifact_uri, experiment_id, status, source_type, lifecycle_stage,"
            " deleted_time) VALUES (%s, %s, %s, 'FINISHED', 'LOCAL', %s, %s)",
            (run, place, experiment, "active" if deleted is None else "deleted", deleted or None),
        )
        for statement in (
            "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)"
            " SELECT 'loss', n, n, n, false, '{run}' FROM generate_series(1, 5) n",
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)"
            " VALUES ('loss', 5, 5, 5, false, '{run}')",
            "INSERT INTO params (key, value, run_uuid) VALUES ('lr', '1', '{run}')",
            "INSERT INTO tags (key, value, run_uuid)"
            " VALUES ('mlflow_aws.principal', '{author}', '{run}'), ('mlflow.user', '{author}', '{run}')",
            "INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type,"
            " dataset_source) VALUES ('d{short}', {experiment}, 'data {run}', '1', 'local', '{{}}')",
            "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step)"
            " VALUES ('i{short}', 'DATASET', 'd{short}', 'RUN', '{run}', 0)",
            "INSERT INTO input_tags (input_uuid, name, value) VALUES ('i{short}', 'context', 'train')",
        ):
            self.execute(statement.format(run=run, short=run[1:], experiment=experiment, author=author))
        self.write(place, "plot.png", "tables/a.json")
        return run

    def model(self, experiment: int, run: str | None, *, deleted: int | None = None) -> str:
        """A logged model with a parameter, a tag, a metric of its run, and an object."""
        model = f"m-{secrets.token_hex(16)}"
        place = f"{self.root}/{experiment}/models/{model}/artifacts"
        self.execute(
            "INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, status,"
            " creation_timestamp_ms, last_updated_timestamp_ms, lifecycle_stage, source_run_id)"
            " VALUES (%s, %s, 'model', %s, 2, 1, %s, %s, %s)",
            (model, experiment, place, deleted or OLD, "active" if deleted is None else "deleted", run),
        )
        for table, columns in (("params", "param_key, param_value"), ("tags", "tag_key, tag_value")):
            self.execute(
                f"INSERT INTO logged_model_{table} (model_id, experiment_id, {columns})"
                f" VALUES ('{model}', {experiment}, 'a', 'b')"
            )
        if run is not None:
            self.execute(
                "INSERT INTO logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step,"
                " metric_value, experiment_id, run_id) VALUES (%s, 'auc', 1, 1, 1, %s, %s)",
                (model, experiment, run),
            )
            self.execute(
                "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id,"
                " step) VALUES (%s, 'RUN_OUTPUT', %s, 'MODEL_OUTPUT', %s, 0)",
                (secrets.token_hex(16), run, model),
            )
        self.write(place, "MLmodel")
        return model

    def trace(self, experiment: int, *, user: str = "u", session: str = "s") -> str:
        """A trace with a span, an assessment, an attachment and an archive."""
        trace = f"tr-{secrets.token_hex(16)}"
        place, archive = f"{self.root}/{experiment}/traces/{trace}/artifacts", f"{self.root}/archive/{trace}"
        for statement in (
            "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status)"
            " VALUES ('{trace}', {experiment}, 1, 'OK')",
            "INSERT INTO trace_tags (request_id, key, value) VALUES"
            " ('{trace}', 'mlflow.artifactLocation', '{place}'),"
            " ('{trace}', 'mlflow.trace.archiveLocation', '{archive}')",
            "INSERT INTO trace_request_metadata (request_id, key, value) VALUES"
            " ('{trace}', 'mlflow.trace.user', '{user}'), ('{trace}', 'mlflow.trace.session', '{session}')",
            "INSERT INTO trace_metrics (request_id, key, value) VALUES ('{trace}', 'total', 1)",
            "INSERT INTO spans (trace_id, experiment_id, span_id, status, start_time_unix_nano,"
            " end_time_unix_nano, content) VALUES ('{trace}', {experiment}, '1', 'OK', 1, 2, '{{}}')",
            "INSERT INTO span_metrics (trace_id, span_id, key, value) VALUES ('{trace}', '1', 'cost', 1)",
            "INSERT INTO assessments (assessment_id, trace_id, name, assessment_type, value,"
            " created_timestamp, last_updated_timestamp, source_type, valid)"
            " VALUES ('a-{trace}', '{trace}', 'good', 'feedback', 'true', 1, 1, 'HUMAN', true)",
        ):
            self.execute(
                statement.format(
                    trace=trace,
                    experiment=experiment,
                    place=place,
                    archive=archive,
                    user=user,
                    session=session,
                )
            )
        self.write(place, "attachment.png")
        self.write(archive, "traces.pb")
        return trace

    def version(self, source: str, run: str | None = None, *, stage: str = "None") -> str:
        """A registered model whose only version has this source."""
        name = f"model-{secrets.token_hex(4)}"
        self.execute("INSERT INTO registered_models (workspace, name) VALUES ('default', %s)", (name,))
        self.execute(
            "INSERT INTO model_versions (workspace, name, version, current_stage, source, run_id,"
            " creation_time) VALUES ('default', %s, 1, %s, %s, %s, 1)",
            (name, stage, source, run),
        )
        return name

    def write(self, place: str, *names: str) -> None:
        """Objects of ten bytes, the first of them in two versions."""
        prefix = place.removeprefix(f"s3://{self.store.bucket}/")
        for name in (names[0], *names):
            self.store.client.put_object(Bucket=self.store.bucket, Key=f"{prefix}/{name}", Body=b"x" * 10)

    def rows(self) -> Counter[tuple[str, str]]:
        """Every row of every table."""
        ((union,),) = self.execute(
            "SELECT string_agg(format('SELECT %L, t::text FROM %I t', tablename, tablename), ' UNION ALL ')"
            " FROM pg_tables WHERE schemaname = 'public'"
        )
        return Counter(self.execute(union))

    def versions(self) -> dict[tuple[str, str], int]:
        """Every version of every object, with its size; markers of deletion have none."""
        pages = self.store.client.get_paginator("list_object_versions").paginate(
            Bucket=self.store.bucket, Prefix=self.root.removeprefix(f"s3://{self.store.bucket}/")
        )
        return {
            (each["Key"], each["VersionId"]): each.get("Size", 0)
            for page in pages
            for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
        }

    def present(self) -> set[str]:
        """Of the objects that are there now."""
        prefix = self.root.removeprefix(f"s3://{self.store.bucket}/")
        return {f"{prefix}/{path}" for path in self.store.read(prefix)}


@pytest.fixture
def house(
    rds: RdsLike,
    identity: Identity,
    migration: Migration,
    object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[House]:
    with deployment(rds, identity, copy_of=migration) as made:
        for name, value in made.environ.items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)
        yield House(made, object_store, f"s3://{object_store.bucket}/cleanup-{secrets.token_hex(4)}")
