"""Upgrades are rehearsed and backups tried on copies of a deployed database; then it is restored.

Each restore ends with the smoke client, and with every row of the database and every object compared.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

from tests.deploy.conftest import FOUNDATION, SERVICE, EmulatedAccount
from tests.documents import blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# A run with points, a file and a logged model, for each name that the model is registered under.
WORK = """
import sys, time, mlflow
client = mlflow.MlflowClient()
for name in sys.argv[2:] or [None]:
    with mlflow.start_run(run_name=sys.argv[1]) as run:
        mlflow.log_metrics({"loss": 0.5, "accuracy": 0.9})
        mlflow.log_text("a note", "note.txt")
        made = mlflow.pyfunc.log_model(
            name="model", python_model=lambda model_input: model_input, registered_model_name=name,
            pip_requirements=["mlflow"],
        )
    # Within seconds the servers seal it, which changes rows.
    version = made.registered_model_version
    while name and "mlflow_aws.seal" not in client.get_model_version(name, version).tags:
        time.sleep(0.5)
print(made.model_id)
"""
LOAD = "import mlflow, sys; print(mlflow.pyfunc.load_model(sys.argv[1]).predict([4242]))"


@pytest.fixture(scope="module")
def deployed(emulated: EmulatedAccount) -> EmulatedAccount:
    emulated.shell.does("make bootstrap ENV=dev")
    said = emulated.shell.does('make deploy ENV=dev PREFLIGHT=no ARGS="--require-approval never"')
    assert emulated.status(SERVICE) == "CREATE_COMPLETE"
    assert "later, signed in (docs/connect.md): make smoke URL=https://" in said
    return emulated


def as_printed(command: str) -> str:
    """The line of the document that begins so."""
    (line,) = (
        each.commands.strip() for each in blocks("docs/operations.md") if each.commands.startswith(command)
    )
    return line


def result(said: str) -> dict[str, Any]:
    """The JSON that ends what a command says."""
    document: dict[str, Any] = json.loads(said[said.rindex("\n{\n") :])
    return document


def nothing_is_left(account: EmulatedAccount) -> None:
    rds = account.aws.client("rds")
    assert len(rds.describe_db_instances()["DBInstances"]) == 1
    assert [
        each["DBSnapshotIdentifier"]
        for each in rds.describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
        if "scratch" in each["DBSnapshotIdentifier"]
    ] == []
    assert account.status("MlflowOnAws-dev-Scratch") == ""


@pytest.fixture(scope="module")
def operator(deployed: EmulatedAccount) -> Iterator[dict[str, str]]:
    """The variables of an administrator of the account who is one of the served deployment, too."""
    (deployed.shell.directory / "work.py").write_text(WORK)
    (deployed.shell.directory / "load.py").write_text(LOAD)
    with deployed.served():
        deployed.aws.client("iam").attach_role_policy(
            RoleName="mlflow-admin", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
        )
        yield deployed.platform.client_environment("admin").variables()


@pytest.fixture(scope="module")
def model(deployed: EmulatedAccount, operator: dict[str, str]) -> str:
    """The logged model of `models:/churn/3`."""
    return does(deployed, operator, "python work.py kept churn churn churn").splitlines()[-1]


def does(account: EmulatedAccount, operator: dict[str, str], command: str) -> str:
    done = account.shell.run(command, **operator)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}"
    return done.stdout


def rows(account: EmulatedAccount) -> Counter[tuple[str, str]]:
    """Every row of every table of the deployed database."""
    rds, user = account.aws.client("rds"), "mlflow_migrator"
    (name,) = account.stack(FOUNDATION).of_type("AWS::RDS::DBInstance")
    at = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]["Endpoint"]
    token = rds.generate_db_auth_token(DBHostname=at["Address"], Port=at["Port"], DBUsername=user)
    with (
        closing(
            psycopg2.connect(
                host=at["Address"],
                port=at["Port"],
                user=user,
                password=token,
                dbname="mlflow",
                sslmode="require",
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        found: Counter[tuple[str, str]] = Counter()
        for (table,) in cursor.fetchall():
            cursor.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table)))
            found.update((table, row) for (row,) in cursor.fetchall())
        return found


def objects(account: EmulatedAccount, prefix: str = "") -> dict[str, str]:
    """A digest of every object that is there."""
    s3, bucket = account.aws.client("s3"), account.stack(SERVICE).outputs["ArtifactBucket"]
    return {
        each["Key"]: hashlib.sha256(s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()).hexdigest()
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for each in page.get("Contents", [])
    }


def all_came_back(account: EmulatedAccount, kept: Counter[Any], lost: Counter[Any]) -> None:
    """Each row that was there then is there, and none that was written since, but by the smoke client."""
    now = rows(account)
    assert kept - now == Counter()
    assert (lost - kept) & now == Counter()


def test_an_upgrade_is_rehearsed_on_a_fresh_snapshot(deployed: EmulatedAccount) -> None:
    said = deployed.shell.does(as_printed("make rehearse") + " ARGS=--json")
    report = result(said)
    assert (report["differences"], report["drain"]) == ([], False)
    assert {"snapshot", "restore", "image", "rehearse", "remove"} == set(report["seconds"])
    nothing_is_left(deployed)


@pytest.mark.usefixtures("model")
def test_a_drill_restores_database_object_and_model(deployed: EmulatedAccount) -> None:
    report = result(deployed.shell.does(as_printed("make drill") + " ARGS=--json"))
    assert report["differences"] == []
    assert {each["table"] for each in report["tables"] if not each["same"]} == set()
    assert report["rpo_seconds"] == 0
    assert report["object"]["bytes"] == 1 << 16
    assert (report["model"]["name"], report["model"]["version"]) == ("churn", 3)
    assert report["model"]["files"] > 0
    bucket = deployed.stack(SERVICE).outputs["ArtifactBucket"]
    left = deployed.aws.client("s3").list_object_versions(Bucket=bucket, Prefix="drill/")
    assert left.get("Versions", []) + left.get("DeleteMarkers", []) == []
    nothing_is_left(deployed)


def test_a_model_deleted_from_s3_is_restored(
    deployed: EmulatedAccount, operator: dict[str, str], model: str
) -> None:
    s3, bucket = deployed.aws.client("s3"), deployed.stack(SERVICE).outputs["ArtifactBucket"]
    before, rows_before = objects(deployed), rows(deployed)
    of_the_model = [key for key in before if f"/{model}/" in key]
    for key in of_the_model:
        s3.delete_object(Bucket=bucket, Key=key)
    load = f"python load.py models:/{model}"
    assert "Could not find an" in deployed.shell.run(load, **operator).stdout
    plan, apply = as_printed("make restore-artifacts").splitlines()
    assert f"would be restored: {len(of_the_model)} deleted" in does(deployed, operator, plan)
    assert objects(deployed) == {key: value for key, value in before.items() if key not in of_the_model}
    assert f"restored: {len(of_the_model)} deleted" in does(deployed, operator, apply)
    assert (objects(deployed), rows(deployed)) == (before, rows_before)
    assert "4242" in does(deployed, operator, load)
    # As `make deploy` ends.
    assert "every step passed" in does(deployed, operator, "python -m operations smoke --env dev")


def restored(account: EmulatedAccount, operator: dict[str, str], command: str) -> None:
    """Restore as an operator who types yes; the stack has another database then, and the former is kept."""
    rds = account.aws.client("rds")
    (replaced,) = account.stack(FOUNDATION).of_type("AWS::RDS::DBInstance")
    said = does(account, operator, f"echo yes | {command}")
    print(said[said.rindex("\nrestored from") :])
    assert "smoke: every step passed" in said
    there = {each["DBInstanceIdentifier"] for each in rds.describe_db_instances()["DBInstances"]}
    (name,) = account.stack(FOUNDATION).of_type("AWS::RDS::DBInstance")
    assert name != replaced
    assert {name, replaced} <= there
    assert "✗" not in account.shell.does("make verify ENV=dev")


@pytest.mark.usefixtures("model")
def test_a_snapshot_is_restored(deployed: EmulatedAccount, operator: dict[str, str]) -> None:
    command = as_printed("make restore ENV=dev SNAPSHOT=")
    snapshot, rds = command.rpartition("=")[2], deployed.aws.client("rds")
    kept = rows(deployed)
    (name,) = deployed.stack(FOUNDATION).of_type("AWS::RDS::DBInstance")
    rds.create_db_snapshot(DBInstanceIdentifier=name, DBSnapshotIdentifier=snapshot)
    rds.get_waiter("db_snapshot_available").wait(DBSnapshotIdentifier=snapshot, WaiterConfig={"Delay": 1})
    does(deployed, operator, "python work.py lost")
    lost = rows(deployed)
    restored(deployed, operator, command)
    all_came_back(deployed, kept, lost)


@pytest.mark.usefixtures("model")
def test_a_point_in_time_is_restored(deployed: EmulatedAccount, operator: dict[str, str]) -> None:
    command = as_printed("make restore ENV=dev AT=").partition("AT=")[0]
    does(deployed, operator, "python work.py kept-later")
    kept = rows(deployed)
    time.sleep(1)
    moment = datetime.now(UTC)
    time.sleep(1)
    does(deployed, operator, "python work.py lost")
    lost = rows(deployed)
    restored(deployed, operator, f"{command}AT={moment:%Y-%m-%dT%H:%M:%SZ}")
    all_came_back(deployed, kept, lost)


def test_an_empty_database_does_not_take_the_place_of_a_restored_one(deployed: EmulatedAccount) -> None:
    file = deployed.shell.directory / "config" / "dev.toml"
    file.write_text("".join(line for line in file.open() if not line.startswith("restore_from")))
    assert "is deployed, and config/dev.toml does not name it" in deployed.shell.refuses(
        "make deploy ENV=dev"
    )
