"""Snapshots and restored DB instances hold real rows, behind doors of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import ACCOUNT, REGION

if TYPE_CHECKING:
    from tests.local.conftest import Account

QUICK = {"Delay": 1, "MaxAttempts": 60}


@pytest.fixture(scope="module")
def rds(account: Account) -> Any:
    return account.aws.client("rds")


@pytest.fixture(scope="module")
def moments(account: Account, rds: Any) -> Iterator[list[datetime]]:
    """Three rows, each written after the moment of its number; the snapshot `taken` has the first two."""
    found = []
    with account.postgres.cursor("mlflow") as cursor:
        cursor.execute("CREATE TABLE kept (number int); GRANT SELECT ON kept TO app")
        for number in range(3):
            cursor.execute("SELECT clock_timestamp()")
            found.append(cursor.fetchone()[0])
            cursor.execute("INSERT INTO kept VALUES (%s)", (number,))
            if number == 1:
                made = rds.create_db_snapshot(DBInstanceIdentifier="tested", DBSnapshotIdentifier="taken")
                assert made["DBSnapshot"]["Status"] == "creating"
                rds.get_waiter("db_snapshot_available").wait(DBSnapshotIdentifier="taken", WaiterConfig=QUICK)
    yield found
    with account.postgres.cursor("mlflow") as cursor:
        cursor.execute("DROP TABLE kept")


@pytest.fixture(scope="module")
def restored(rds: Any, moments: list[datetime]) -> Iterator[dict[str, Any]]:
    """An instance restored from `taken`."""
    assert moments
    rds.restore_db_instance_from_db_snapshot(
        DBInstanceIdentifier="restored", DBSnapshotIdentifier="taken", EnableIAMDatabaseAuthentication=True
    )
    rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier="restored", WaiterConfig=QUICK)
    yield rds.describe_db_instances(DBInstanceIdentifier="restored")["DBInstances"][0]
    rds.delete_db_instance(DBInstanceIdentifier="restored", SkipFinalSnapshot=True)


def rows(account: Account, instance: dict[str, Any], *, user: str = "app") -> list[int]:
    """What a client reads at the instance's endpoint; `app` with a token."""
    endpoint = instance["Endpoint"]
    resource = f"arn:aws:rds-db:{REGION}:{ACCOUNT}:dbuser:{instance['DbiResourceId']}/{user}"
    role = account.role([{"Effect": "Allow", "Action": "rds-db:connect", "Resource": resource}])
    token = role.client("rds").generate_db_auth_token(
        DBHostname=endpoint["Address"], Port=endpoint["Port"], DBUsername=user
    )
    connection = psycopg2.connect(
        host=endpoint["Address"],
        port=endpoint["Port"],
        user=user,
        dbname="mlflow",
        password=token,
        sslmode="verify-full",
        sslrootcert=str(account.authority.bundle),
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT number FROM kept ORDER BY number")
            return [number for (number,) in cursor.fetchall()]
    finally:
        connection.close()


def test_a_restored_instance_holds_what_the_snapshot_held(account: Account, restored: dict[str, Any]) -> None:
    assert rows(account, restored) == [0, 1]
    assert rows(account, account.instance) == [0, 1, 2]
    assert restored["DbiResourceId"] != account.resource_id
    assert restored["MasterUsername"] == account.instance["MasterUsername"]


def test_a_token_for_the_first_instance_does_not_open_the_restored_one(
    account: Account, restored: dict[str, Any]
) -> None:
    with pytest.raises(psycopg2.OperationalError, match="PAM authentication failed"):
        rows(account, {**restored, "DbiResourceId": account.resource_id})


def test_a_managed_password_of_a_restored_instance_is_its_own(
    account: Account, rds: Any, restored: dict[str, Any]
) -> None:
    assert "MasterUserSecret" not in restored
    secrets = account.aws.client("secretsmanager")

    def password(changed: dict[str, Any]) -> str:
        arn = changed["DBInstance"]["MasterUserSecret"]["SecretArn"]
        return str(json.loads(secrets.get_secret_value(SecretId=arn)["SecretString"])["password"])

    first = password(rds.modify_db_instance(DBInstanceIdentifier="restored", ManageMasterUserPassword=True))
    second = password(rds.modify_db_instance(DBInstanceIdentifier="restored", RotateMasterUserPassword=True))
    assert len({account.password, first, second}) == 3


def test_an_instance_is_restored_to_a_point_in_time(
    account: Account, rds: Any, moments: list[datetime]
) -> None:
    rds.restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier="tested",
        TargetDBInstanceIdentifier="earlier",
        RestoreTime=moments[1],
        EnableIAMDatabaseAuthentication=True,
    )
    rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier="earlier", WaiterConfig=QUICK)
    (earlier,) = rds.describe_db_instances(DBInstanceIdentifier="earlier")["DBInstances"]
    assert rows(account, earlier) == [0]
    # Its last snapshot outlives it, and can be restored.
    rds.delete_db_instance(DBInstanceIdentifier="earlier", FinalDBSnapshotIdentifier="last")
    (last,) = rds.describe_db_snapshots(DBSnapshotIdentifier="last")["DBSnapshots"]
    assert last["Status"] == "available"
    assert last["DbiResourceId"] == earlier["DbiResourceId"]
    with pytest.raises(psycopg2.OperationalError):
        rows(account, earlier)
    rds.delete_db_snapshot(DBSnapshotIdentifier="last")
    with pytest.raises(ClientError, match="DBSnapshotNotFound"):
        rds.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="no", DBSnapshotIdentifier="last")


def test_a_moment_outside_of_the_backups_is_refused(rds: Any) -> None:
    (backup,) = rds.describe_db_instance_automated_backups(DBInstanceIdentifier="tested")[
        "DBInstanceAutomatedBackups"
    ]
    window = backup["RestoreWindow"]
    for moment in (window["EarliestTime"] - timedelta(seconds=1), datetime.now(UTC) + timedelta(hours=1)):
        with pytest.raises(ClientError, match="InvalidRestoreFault"):
            rds.restore_db_instance_to_point_in_time(
                SourceDBInstanceIdentifier="tested",
                TargetDBInstanceIdentifier="never",
                RestoreTime=moment,
            )


def test_a_role_reaches_only_the_snapshots_it_is_granted(account: Account, rds: Any) -> None:
    mine = f"arn:aws:rds:{REGION}:{ACCOUNT}:snapshot:mine-*"
    role = account.role([{"Effect": "Allow", "Action": "rds:DescribeDBSnapshots", "Resource": mine}])
    with pytest.raises(ClientError, match="DBSnapshotNotFound"):
        role.client("rds").describe_db_snapshots(DBSnapshotIdentifier="mine-1")
    with pytest.raises(ClientError, match="AccessDenied"):
        role.client("rds").describe_db_snapshots(DBSnapshotIdentifier="taken")


@pytest.mark.slow
def test_a_template_restores_a_snapshot_and_keeps_the_database_that_is_replaced(
    account: Account, rds: Any, moments: list[datetime]
) -> None:
    assert moments
    cloudformation = account.aws.client("cloudformation")

    def template(name: str) -> str:
        properties = {
            "DBInstanceIdentifier": name,
            "DBSnapshotIdentifier": "taken",
            "DBInstanceClass": "db.t4g.micro",
            "ManageMasterUserPassword": True,
            "EnableIAMDatabaseAuthentication": True,
        }
        database = {
            "Type": "AWS::RDS::DBInstance",
            "UpdateReplacePolicy": "Retain",
            "Properties": properties,
        }
        secret = {"Value": {"Fn::GetAtt": ["Database", "MasterUserSecret.SecretArn"]}}
        return json.dumps({"Resources": {"Database": database}, "Outputs": {"Secret": secret}})

    def secret() -> str:
        (stack,) = cloudformation.describe_stacks(StackName="restoring")["Stacks"]
        return str(stack["Outputs"][0]["OutputValue"])

    cloudformation.create_stack(StackName="restoring", TemplateBody=template("made-1"))
    quick = {"Delay": 1, "MaxAttempts": 60}
    cloudformation.get_waiter("stack_create_complete").wait(StackName="restoring", WaiterConfig=quick)
    first = secret()
    cloudformation.update_stack(StackName="restoring", TemplateBody=template("made-2"))
    cloudformation.get_waiter("stack_update_complete").wait(StackName="restoring", WaiterConfig=quick)
    found = [rds.describe_db_instances(DBInstanceIdentifier=f"made-{n}")["DBInstances"][0] for n in (1, 2)]
    assert [rows(account, each) for each in found] == [[0, 1], [0, 1]]
    assert len({each["DbiResourceId"] for each in (account.instance, *found)}) == 3
    assert len({account.instance["outputs"]["Secret"], first, secret()}) == 3
    cloudformation.delete_stack(StackName="restoring")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="restoring", WaiterConfig=quick)
    rds.delete_db_instance(DBInstanceIdentifier="made-1", SkipFinalSnapshot=True)
    with pytest.raises(ClientError, match="DBInstanceNotFound"):
        rds.describe_db_instances(DBInstanceIdentifier="made-2")
