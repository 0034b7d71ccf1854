"""A drill notices what a restored database lacks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg2
import pytest
from mlflow_aws_server import drill

from tests.conftest import RdsLike
from tests.server.conftest import SERVER_PYTHON, Deployment, Migration, deployment
from tests.server.test_rehearsal import reported

RUN = """
INSERT INTO runs (run_uuid, name, status, start_time, lifecycle_stage, user_id, experiment_id, artifact_uri,
                  source_type, source_name, entry_point_name)
SELECT md5(n::text), '', 'FINISHED', n * 1000, 'active', '', 0, '', 'LOCAL', '', ''
  FROM generate_series({}) n
"""


@pytest.fixture
def pair(rds: RdsLike, migration: Migration) -> Iterator[tuple[Deployment, Deployment]]:
    with deployment(rds, copy_of=migration) as living, deployment(rds, copy_of=migration) as restored:
        yield living, restored


def reader(made: Deployment) -> Any:
    return psycopg2.connect(
        host=made.rds.host,
        port=made.rds.port,
        user=made.server_user,
        password="any",
        dbname=made.database,
        sslmode="verify-full",
        sslrootcert=str(made.rds.ca_file),
    )


def test_rows_from_before_that_time_must_be_there_and_later_ones_not(
    pair: tuple[Deployment, Deployment],
) -> None:
    living, restored = pair
    living.rds.administer(RUN.format("1, 10"), database=living.database)
    living.rds.administer(RUN.format("1, 6"), database=restored.database)
    with ExitStack() as stack:
        here, there = (stack.enter_context(closing(reader(each))) for each in pair)
        assert drill._missing(here, there, "runs", 6_000) == 0
        assert drill._missing(here, there, "runs", 8_500) == 2
        assert drill._missing(here, there, "params", 8_500) == 0
        times = [drill._newest(each, {"runs": None}) for each in (here, there)]  # type: ignore[dict-item]
    assert times == [10_000, 6_000]


@pytest.mark.slow
def test_a_database_restored_as_it_lives_has_nothing_missing(pair: tuple[Deployment, Deployment]) -> None:
    living, _ = pair
    living.rds.administer(RUN.format("1, 10"), database=living.database)
    where = ["--host", living.rds.host, "--port", str(living.rds.port), "--at", "9000"]
    done = subprocess.run(
        [SERVER_PYTHON, "-m", "mlflow_aws_server", "drill", *where],
        env=living.environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    report = reported(done)
    assert (report["differences"], report["rpo_seconds"], report["model"]) == ([], 0, None)
    assert all(each["same"] for each in report["tables"])
    assert report["answers"] > 10
