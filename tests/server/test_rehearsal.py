"""A rehearsal says what a migration changed, and finds what it should not have."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from mlflow_aws_server import rehearsal
from mlflow_aws_server.database import contents
from mlflow_aws_server.database.contents import Table

from tests.conftest import RdsLike
from tests.server.conftest import SERVER_PYTHON, Deployment, Migration, deployment

OLD = Table(("a", "b"), 7, "12")


@pytest.fixture
def scratch(rds: RdsLike, migration: Migration) -> Iterator[Deployment]:
    with deployment(rds, copy_of=migration) as made:
        yield made


@pytest.mark.parametrize(
    ("new", "by", "told"),
    [
        (OLD, [], ""),
        (Table(("a", "b"), 7, "13"), ["1b5f"], ""),
        (Table(("a",), 7, "13"), ["1b5f"], ""),
        (Table(("a", "b"), 9, "40"), ["1b5f"], ""),
        (Table(("a", "b"), 7, "13"), [], "its values differ, and no revision wrote to it"),
        (Table(("a", "b"), 6, "11"), ["1b5f"], "1 of 7 rows are gone"),
        (None, ["1b5f"], "it is gone with 7 rows"),
    ],
)
def test_what_no_revision_explains_is_a_difference(new: Table | None, by: list[str], told: str) -> None:
    assert rehearsal._table_difference(OLD, new, by) == told


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("\nALTER TABLE metrics ADD COLUMN x INTEGER", "metrics"),
        ("CREATE TABLE jobs (\n\tid VARCHAR", "jobs"),
        ("CREATE UNIQUE INDEX ix_a ON params (key)", "params"),
        ("UPDATE runs SET name=%(name)s", "runs"),
        ("INSERT INTO public.tags (key) SELECT key FROM params", "tags"),
        ("SELECT * FROM runs", None),
    ],
)
def test_what_a_statement_writes_is_known(statement: str, table: str | None) -> None:
    found = rehearsal._WRITES.match(statement)
    assert (found and found[1]) == table


def test_any_changed_value_changes_the_digest_and_no_order_does(scratch: Deployment) -> None:
    with closing(
        psycopg2.connect(
            host=scratch.rds.host,
            port=scratch.rds.port,
            user=scratch.migrator,
            password="any",
            dbname=scratch.database,
            sslmode="verify-full",
            sslrootcert=str(scratch.rds.ca_file),
        )
    ) as owner:
        owner.autocommit = True

        def after(statement: str) -> contents.Contents:
            with owner.cursor() as cursor:
                cursor.execute(statement)
            return contents.read(owner, only=before)

        before = contents.read(owner)
        tags = "INSERT INTO experiment_tags (experiment_id, key, value) VALUES"
        both = after(f"{tags} (0, 'a', '1'), (0, 'b', '2')")
        assert both["experiment_tags"].rows == 2
        assert both["params"] == before["params"]
        changed = after("UPDATE experiment_tags SET value = '3' WHERE key = 'b'")
        assert changed["experiment_tags"].digest != both["experiment_tags"].digest
        turned = after(f"DELETE FROM experiment_tags; {tags} (0, 'b', '2'), (0, 'a', '1')")
        assert turned["experiment_tags"] == both["experiment_tags"]
        grown = after("ALTER TABLE experiment_tags ADD COLUMN more integer DEFAULT 1")
        assert grown["experiment_tags"] == both["experiment_tags"]


def rehearse(made: Deployment) -> subprocess.CompletedProcess[str]:
    # The living database is elsewhere.
    environ = {**made.environ, "MLFLOW_AWS_DATABASE_HOST": "living.invalid"}
    command = [SERVER_PYTHON, "-m", "mlflow_aws_server", "rehearse"]
    return subprocess.run(
        [*command, "--host", made.rds.host, "--port", str(made.rds.port)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def reported(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[-1].get("phase") == "all", done.stderr
    report: dict[str, Any] = json.loads(
        "".join(line["text"] for line in lines if line.get("phase") == "report")
    )
    return report


@pytest.mark.slow
def test_a_schema_at_its_head_has_nothing_to_drain_and_nothing_differs(scratch: Deployment) -> None:
    scratch.rds.administer(
        """
        INSERT INTO runs (run_uuid, name, status, start_time, lifecycle_stage, user_id, experiment_id,
                          artifact_uri, source_type, source_name, entry_point_name)
        SELECT md5(n::text), 'run ' || n, 'FINISHED', 1000 + n, 'active', 'someone', 0, 's3://a/' || n,
               'LOCAL', '', '' FROM generate_series(1, 70) n;
        INSERT INTO params (run_uuid, key, value) SELECT run_uuid, 'lr', '0.1' FROM runs;
        INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan)
        SELECT run_uuid, 'loss', start_time / 7.0, start_time, 1, start_time = 1007 FROM runs;
        """,
        database=scratch.database,
    )
    report = reported(rehearse(scratch))
    assert report["differences"] == []
    assert (report["drain"], report["revisions"], report["from"]) == (False, [], report["to"])
    assert report["answers"] > 40
    (runs,) = (each for each in report["tables"] if each["table"] == "runs")
    assert (runs["before"], runs["after"], runs["changed"]) == (70, 70, False)
