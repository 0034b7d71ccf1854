"""What docs/operations.md has for the days between upgrades is run as printed, on one deployment."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.clients.installation import installed
from tests.deploy.conftest import SERVICE, EmulatedAccount
from tests.deploy.test_rehearsal import result
from tests.documents import blocks
from tests.server.cleanup.conftest import OLD, House

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DEPLOY = 'make deploy ENV=dev PREFLIGHT=no SMOKE=no ARGS="--require-approval never"'
BREAK_GLASS = "break-glass"
LOCK = Path(__file__).with_name("awscli.txt")


def as_printed(command: str) -> list[str]:
    """The lines of the document's block that begins so."""
    (lines,) = (
        each.commands.splitlines()
        for each in blocks("docs/operations.md")
        if each.commands.startswith(command)
    )
    return lines


@pytest.fixture(scope="module")
def deployed(emulated: EmulatedAccount) -> EmulatedAccount:
    trust = {
        "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{emulated.aws.account_id}:root"},
        "Action": "sts:AssumeRole",
    }  # fmt: skip
    role = emulated.aws.client("iam").create_role(
        RoleName=BREAK_GLASS,
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
    )
    emulated.shell.configure(artifacts={"break_glass_role_arn": role["Role"]["Arn"]})
    emulated.shell.does("make bootstrap ENV=dev")
    emulated.shell.does(DEPLOY)
    return emulated


@pytest.fixture(scope="module")
def house(deployed: EmulatedAccount) -> House:
    """Makes rows and objects in the deployment, and reads them."""
    bucket = deployed.stack(SERVICE).outputs["ArtifactBucket"]
    database: Any = SimpleNamespace(rds=deployed.platform, database="mlflow")
    store: Any = SimpleNamespace(bucket=bucket, client=deployed.aws.client("s3"))
    return House(database, store, f"s3://{bucket}/house")


@pytest.fixture(scope="module")
def break_glass(deployed: EmulatedAccount) -> dict[str, str]:
    """A shell of the break-glass role, which has the documented policy and no other."""
    aws, outputs = deployed.aws, deployed.stack(SERVICE).outputs
    bucket, place = outputs["ArtifactBucket"], json.loads(outputs["OperationErase"])
    encryption = aws.client("s3").get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    key = encryption["Rules"][0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    (policy,) = (each.text for each in blocks("docs/operations.md") if "DeleteObjectVersion" in each.text)
    for name, value in {
        "BUCKET": bucket,
        "KEY_ARN": aws.client("kms").describe_key(KeyId=key)["KeyMetadata"]["Arn"],
        "CLUSTER_ARN": f"arn:aws:ecs:{aws.region}:{aws.account_id}:cluster/{place['cluster']}",
        "REGION": aws.region,
        "ACCOUNT": aws.account_id,
        "ENV": "dev",
    }.items():
        policy = policy.replace(name, value)
    # The emulator asks for no iam:PassRole.
    (passed,) = (
        each["Resource"] for each in json.loads(policy)["Statement"] if each["Action"] == "iam:PassRole"
    )
    task = aws.client("ecs").describe_task_definition(taskDefinition=place["task_definition"])
    assert fnmatchcase(task["taskDefinition"]["taskRoleArn"], passed)
    assert fnmatchcase(task["taskDefinition"]["executionRoleArn"], passed)
    aws.client("iam").put_role_policy(RoleName=BREAK_GLASS, PolicyName="printed", PolicyDocument=policy)
    return aws.assume(f"arn:aws:iam::{aws.account_id}:role/{BREAK_GLASS}", session="ada").variables()


def deny(account: EmulatedAccount, role: str, action: str | None) -> None:
    """Keep a role from an action, or not any more."""
    iam, named = account.aws.client("iam"), {"RoleName": role, "PolicyName": "denied"}
    if action is None:
        iam.delete_role_policy(**named)
        return
    denied = {"Effect": "Deny", "Action": action, "Resource": "*"}
    iam.put_role_policy(**named, PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [denied]}))


def test_make_erase_leaves_no_row_and_no_version_of_an_author_and_all_of_the_others(
    deployed: EmulatedAccount, house: House, break_glass: dict[str, str]
) -> None:
    dry, real = as_printed("make erase")
    author = real.partition("AUTHOR=")[2]
    experiment = house.experiment()
    hers, his = house.run(experiment, author=author), house.run(experiment)
    model, trace = house.model(experiment, hers), house.trace(experiment)
    house.execute("INSERT INTO trace_request_metadata VALUES ('mlflow.sourceRun', %s, %s)", (hers, trace))
    for run in (hers, his):
        key = f"house/{experiment}/{run}/artifacts/plot.png"
        house.store.client.delete_object(Bucket=house.store.bucket, Key=key)
    rows, versions = house.rows(), house.versions()
    mine = {each for each in versions if any(one in each[0] for one in (hers, model, trace))}

    foretold = result(deployed.shell.does(f"{dry} ARGS=--json"))
    assert {kind: set(of) for kind, of in foretold["things"].items()} == {
        "runs": {hers}, "logged_models": {model}, "traces": {trace},
    }  # fmt: skip
    # An administrator of the account is none of break glass.
    said = deployed.shell.refuses(f"{real} YES=yes")
    assert f"role/{BREAK_GLASS} may erase: sign in as that role" in said
    assert "nothing was done" in deployed.shell.run(f"echo no | {real}", **break_glass).stdout
    assert (house.rows(), house.versions()) == (rows, versions)

    # S3 refuses: there is a request, and every row. The same command goes on with it.
    deny(deployed, BREAK_GLASS, "s3:DeleteObjectVersion")
    refused = deployed.shell.run(f"echo yes | {real}", **break_glass)
    assert refused.returncode != 0
    assert "AccessDenied" in refused.stdout
    assert (house.rows(), house.versions()) == (rows, versions)
    deny(deployed, BREAK_GLASS, None)
    done = deployed.shell.run(f"{real} ARGS=--json", **break_glass)
    assert done.returncode == 0, done.stdout
    assert "which was interrupted" in done.stdout
    certificate = result(done.stdout)

    assert versions.keys() - house.versions().keys() == mine
    removed = rows - house.rows()
    assert not house.rows() - rows
    assert not [row for _, row in house.rows() if any(each in row for each in (hers, model, trace, author))]
    assert sum(removed.values()) == sum(foretold["rows"].values()) == sum(certificate["rows"].values())
    assert certificate["things"] == {"runs": 1, "logged_models": 1, "traces": 1}
    counts = [certificate[each] for each in ("versions", "markers", "bytes")]
    assert counts == [len(mine) - 1, 1, sum(versions[each] for each in mine)]
    assert certificate["kept"] == {}
    assert certificate["by"].endswith(f"assumed-role/{BREAK_GLASS}/ada")
    where = certificate["certificate"]
    bucket, _, key = where["uri"].removeprefix("s3://").partition("/")
    kept = house.store.client.get_object(Bucket=bucket, Key=key)["Body"].read()
    assert hashlib.sha256(kept).hexdigest() == where["sha256"]
    assert author not in kept.decode()

    again = deployed.shell.run(f"{real} ARGS=--json", **break_glass)
    assert again.returncode == 0, again.stdout
    assert result(again.stdout)["things"] == {}


@pytest.fixture
def gone(house: House) -> set[str]:
    """Runs that were deleted a long time ago, beside one that was not."""
    experiment = house.experiment()
    house.run(experiment)
    return {house.run(experiment, deleted=OLD) for _ in range(2)}


def refused_gc(account: EmulatedAccount, house: House) -> str:
    """What a clean-up says that changes nothing."""
    before = house.rows(), house.versions()
    said = account.shell.refuses(as_printed("make gc")[1])
    assert (house.rows(), house.versions()) == before
    return said


@pytest.mark.usefixtures("gone")
def test_make_gc_takes_no_row_of_what_s3_refuses_to_delete(deployed: EmulatedAccount, house: House) -> None:
    (role,) = (
        physical
        for logical, (_, physical) in deployed.stack(SERVICE).resources.items()
        if logical.startswith("CleanupGcTaskRole") and "Policy" not in logical
    )
    deny(deployed, role, "s3:DeleteObject")
    try:
        said = refused_gc(deployed, house)
    finally:
        deny(deployed, role, None)
    assert "AccessDenied" in said
    assert "Run it again" in said


@pytest.mark.usefixtures("gone")
def test_make_gc_is_alone(deployed: EmulatedAccount, house: House) -> None:
    with deployed.platform.postgres.cursor("mlflow") as cursor:
        # As another clean-up has it.
        cursor.execute("SELECT pg_advisory_lock(%s)", (0x67636D6C666C6F77,))
        assert "another clean-up is running" in refused_gc(deployed, house)


@pytest.mark.usefixtures("gone")
def test_ctrl_c_stops_make_gc_and_its_task(deployed: EmulatedAccount, house: House) -> None:
    before = house.rows(), house.versions()
    with deployed.platform.postgres.cursor("mlflow") as cursor:
        # Its task waits at its first look.
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE runs")
        command = subprocess.Popen(
            ["sh", "-c", f"exec {as_printed('make gc')[1]}"],
            cwd=deployed.shell.directory,
            env=deployed.shell.variables,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # What runs in the background has it ignored, and so would this.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert command.stderr is not None
        said = ""
        while "gc: task" not in said:
            line = command.stderr.readline()
            assert line, said
            said += line
        os.killpg(command.pid, signal.SIGINT)
        said += command.stderr.read()
        assert command.wait(120) != 0
        assert "its task is being stopped" in said
        assert "gc: stopped; run it again" in said
        cursor.execute("ROLLBACK")
    assert (house.rows(), house.versions()) == before


def test_make_gc_removes_what_it_foretold(deployed: EmulatedAccount, house: House, gone: set[str]) -> None:
    dry, real = as_printed("make gc")
    before, versions = house.rows(), house.versions()
    foretold = result(deployed.shell.does(f"{dry} ARGS=--json"))
    assert (house.rows(), house.versions()) == (before, versions)
    went = result(deployed.shell.does(f"{real} ARGS=--json"))
    assert went == {**foretold, "dry_run": False, "deleted_before": went["deleted_before"]}
    removed = before - house.rows()
    assert went["rows"] == Counter(table for table, _ in removed.elements())
    assert went["rows"]["runs"] >= len(gone)
    assert not [row for _, row in house.rows() if any(run in row for run in gone)]
    # Markers hide the objects, whose versions S3 keeps.
    now = house.versions()
    assert versions.keys() <= now.keys()
    assert len(now.keys() - versions.keys()) == went["objects"] > 0
    again = result(deployed.shell.does(f"{real} ARGS=--json"))
    assert (again["rows"], again["objects"]) == ({}, 0)


def test_the_administrator_s_password_is_rotated(deployed: EmulatedAccount) -> None:
    before, instance = password(deployed), database(deployed)["DBInstanceIdentifier"]
    rotate = "\n".join(as_printed("aws rds modify-db-instance"))
    done = deployed.shell.run(
        rotate.replace("mlflowonaws-dev-foundation-database", instance),
        PATH=f"{installed('awscli', LOCK) / 'bin'}{os.pathsep}{os.environ['PATH']}",
    )
    assert done.returncode == 0, done.stdout
    assert password(deployed) != before


def database(account: EmulatedAccount) -> dict[str, Any]:
    (instance,) = account.aws.client("rds").describe_db_instances()["DBInstances"]
    return dict(instance)


def password(account: EmulatedAccount) -> str:
    secret = account.aws.client("secretsmanager").get_secret_value(
        SecretId=database(account)["MasterUserSecret"]["SecretArn"]
    )
    return str(json.loads(secret["SecretString"])["password"])


def test_a_former_version_and_another_size_are_deployed_on_a_newer_schema(
    deployed: EmulatedAccount, house: House
) -> None:
    ((former,),) = house.execute("SELECT version_num FROM alembic_version")
    # As a newer version's migration leaves it that only added.
    house.execute("UPDATE alembic_version SET version_num = 'newer'")
    house.execute(f"COMMENT ON TABLE alembic_version IS '{json.dumps({'newer': [former]})}'")
    before = house.rows()
    deployed.shell.configure(database={"instance_class": "t4g.medium"}, server={"memory_mib": 2048})
    deployed.shell.does(DEPLOY)
    assert deployed.status(SERVICE) == "UPDATE_COMPLETE"
    assert database(deployed)["DBInstanceClass"] == "db.t4g.medium"
    assert house.rows() == before
