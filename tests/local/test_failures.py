"""Failures of the running platform: each moves the metric of the alarm that is for it, beyond its threshold.

The alarms are the deployed ones, as DescribeAlarms tells them; the emulator's CloudWatch has their metrics.
No test waits for the minutes of an alarm: it would ring if what it has seen since the failure lasted.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from local import demo_roles
from local.state import State
from tests.laptop import running_laptop
from tests.local.runbook import STACK, OnCall, commands, on_call
from tests.local.watched import PATIENCE_SECONDS, Watched, now
from tests.stacks.monitoring.cloudwatch import state as state_of

pytestmark = pytest.mark.slow

# A measurement that began before a failure has ended.
_UNDER_WAY_SECONDS = 6
MADE_GOOD_BY = {"start-db-instance", "import-certificate"}
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with running_laptop() as laptop:
        watched = Watched(laptop.state)
        # The first measurements, and some that say that all is well.
        watched.ask_often(watched.token(demo_roles.assume(watched.aws, "viewer")), 20)
        time.sleep(_UNDER_WAY_SECONDS)
        yield watched


@pytest.fixture(scope="module")
def person(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnCall]:
    """Whoever is on call, with the runbook."""
    with on_call(watched.aws, tmp_path_factory.mktemp("on-call")) as person:
        yield person


@pytest.fixture(scope="module")
def well(watched: Watched) -> dt.datetime:
    """Since when all has been well."""
    return now() - dt.timedelta(seconds=_UNDER_WAY_SECONDS)


def test_a_certificate_near_its_end(watched: Watched, well: dt.datetime, person: OnCall) -> None:
    arn = _certificate(watched)
    assert not watched.rings("CertificateWeek", since=well)
    assert not watched.rings("CertificateMonth", since=well)
    began = now()
    watched.aws.client("acm").import_certificate(CertificateArn=arn, **ending_in(days=5))
    watched.will_ring("CertificateWeek", since=began)
    watched.will_ring("CertificateMonth", since=began)
    renewed = ending_in(days=90)
    person.file("certificate.pem", renewed["Certificate"])
    person.file("chain.pem", renewed["Certificate"])
    person.file("key.pem", renewed["PrivateKey"])
    began = now() + dt.timedelta(seconds=_UNDER_WAY_SECONDS)
    assert person.types(_command(" import-certificate "), ARN=arn) == {"CertificateArn": arn}
    while not (days := watched.values("CertificateWeek", since=began)):
        assert now() - began < dt.timedelta(seconds=PATIENCE_SECONDS)
        time.sleep(1)
    assert min(days.values()) > 80


def test_a_full_disk(watched: Watched, well: dt.datetime) -> None:
    assert not watched.rings("DatabaseStorage", since=well)
    filling = Path(State.read(watched.state.run / "postgres.json")["directory"]) / "data" / "filling"
    began = now()
    try:
        # Its size counts, and it takes no room.
        with filling.open("wb") as file:
            file.truncate(int(19.5 * 1024**3))
        watched.will_ring("DatabaseStorage", since=began)
    finally:
        filling.unlink(missing_ok=True)


def test_a_broken_bucket_policy(watched: Watched, well: dt.datetime) -> None:
    assert not watched.rings("BucketRefusals", since=well)
    administrator, bucket = watched.aws.client("s3"), watched.endpoints["bucket"]
    before = administrator.get_bucket_policy(Bucket=bucket)["Policy"]
    broken = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    client = demo_roles.assume(watched.aws, "contributor").client("s3")
    began = now()
    try:
        administrator.put_bucket_policy(
            Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [broken]})
        )
        for _ in range(40):
            with pytest.raises(ClientError, match="AccessDenied"):
                client.get_object(Bucket=bucket, Key="artifacts/any")
        watched.will_ring("BucketRefusals", since=began)
    finally:
        administrator.put_bucket_policy(Bucket=bucket, Policy=before)


def test_a_task_that_restarts(watched: Watched, well: dt.datetime) -> None:
    assert not watched.rings("FewHealthyHosts", since=well)
    began = now()
    watched.end_server(signal.SIGKILL)
    watched.will_ring("FewHealthyHosts", since=began)
    watched.wait_until_it_serves()
    watched.end_server()
    # Only the process that began since then has written.
    watched.will_ring("TaskRestarts", since=began)
    watched.wait_until_it_serves()


def test_a_revoked_role(watched: Watched, well: dt.datetime) -> None:
    assert not watched.rings("ClientErrors", since=well)
    iam = watched.aws.client("iam")
    iam.create_role(
        RoleName="mlflow-former",
        AssumeRolePolicyDocument=json.dumps(
            iam.get_role(RoleName="mlflow-viewer")["Role"]["AssumeRolePolicyDocument"]
        ),
        MaxSessionDuration=demo_roles.SESSION_SECONDS,
    )
    for policy in iam.list_attached_role_policies(RoleName="mlflow-viewer")["AttachedPolicies"]:
        iam.attach_role_policy(RoleName="mlflow-former", PolicyArn=policy["PolicyArn"])
    former = watched.aws.assume(
        "arn:aws:iam::000000000000:role/mlflow-former", session="former", seconds=demo_roles.SESSION_SECONDS
    )
    began = now()
    assert set(watched.ask_often(watched.token(former), 240)) == {403}
    watched.will_ring("ClientErrors", since=began)
    watched.end_server()
    watched.will_ring("RefusedPrincipal", since=began)
    watched.wait_until_it_serves()


def test_a_stopped_database(watched: Watched, well: dt.datetime, person: OnCall) -> None:
    assert not watched.rings("DatabaseSilent", since=well)
    assert not watched.rings("TargetErrors", since=well)
    token = watched.token(demo_roles.assume(watched.aws, "viewer"))
    rds, name = watched.aws.client("rds"), _database(watched)
    rds.stop_db_instance(DBInstanceIdentifier=name)
    began = now()
    try:
        assert min(watched.ask_often(token, 60)) >= 500
        time.sleep(_UNDER_WAY_SECONDS)
        silent = began + dt.timedelta(seconds=_UNDER_WAY_SECONDS)
        watched.will_ring("DatabaseSilent", since=silent, by_silence=True)
        watched.will_ring("TargetErrors", since=began)
        watched.end_server()
        watched.will_ring("DatabaseErrors", since=began)
        watched.will_ring("ServerErrors", since=began)
    finally:
        person.types(_command(" start-db-instance "))
    watched.wait_until_it_serves()


def test_a_full_queue(watched: Watched, well: dt.datetime) -> None:
    assert not watched.rings("DatabaseWait", since=well)
    token = watched.token(demo_roles.assume(watched.aws, "viewer"))
    began = now()
    with watched.database() as cursor, ThreadPoolExecutor(1) as asking:
        cursor.execute("BEGIN; LOCK TABLE experiments IN ACCESS EXCLUSIVE MODE")
        answers = asking.submit(watched.ask_often, token, 60, at_once=60)
        time.sleep(8)
        cursor.execute("ROLLBACK")
        answers.result()
    watched.end_server()
    watched.will_ring("DatabaseWait", since=began)
    watched.wait_until_it_serves()


def test_a_fast_path_that_is_off(watched: Watched, well: dt.datetime) -> None:
    assert not watched.rings("FastPathOff", since=well)
    with watched.database() as cursor:
        cursor.execute("SELECT version_num FROM alembic_version")
        ((version,),) = cursor.fetchall()
        began = now()
        cursor.execute("UPDATE alembic_version SET version_num = 'a stranger'")
        try:
            watched.will_ring("FastPathOff", since=began)
            watched.will_ring("SchemaBehind", since=began)
        finally:
            cursor.execute("UPDATE alembic_version SET version_num = %s", [version])
    watched.wait_until_it_serves()


def test_every_command_of_the_runbook_answers_as_its_section_says(watched: Watched, person: OnCall) -> None:
    """All but the two by which failures above are made good."""
    alarm, composite = f"{STACK}-CertificateWeek", f"{STACK}-Service"
    kms, ecs, cloudwatch = (watched.aws.client(each) for each in ("kms", "ecs", "cloudwatch"))

    def acts() -> bool:
        (found,) = cloudwatch.describe_alarms(AlarmNames=[composite], AlarmTypes=["CompositeAlarm"])[
            "CompositeAlarms"
        ]
        return bool(found["ActionsEnabled"])

    def lines(said: str) -> list[dict[str, Any]]:
        return [json.loads(each) for each in said.splitlines() if each.startswith("{")]

    def key_state(_: Any) -> str:
        return str(kms.describe_key(KeyId=person.outputs["ArtifactKeyArn"])["KeyMetadata"]["KeyState"])

    shown: dict[str, Callable[[Any], object]] = {
        "set-alarm-state": lambda _: watched.alarm("CertificateWeek")["StateValue"] == "ALARM",
        "describe-alarms": lambda said: alarm in {each["AlarmName"] for each in said["MetricAlarms"]},
        "describe-stacks": lambda said: {"ClusterName", "LogGroup"} <= {each["OutputKey"] for each in said},
        "filter-log-events": lambda said: {"level", "message"} <= lines(said)[-1].keys(),
        "describe-services": lambda said: said[0][0]["status"] == "PRIMARY",
        "describe-events": lambda said: "Events" in said,
        "disable-alarm-actions": lambda _: not acts(),
        "enable-alarm-actions": lambda _: acts(),
        "list-tasks": lambda said: said["taskArns"],
        "describe-tasks": lambda said: {"stopCode", "stoppedReason", "containers"} <= said["tasks"][0].keys(),
        "list-rules": lambda said: any("CanarySchedule" in each["Name"] for each in said["Rules"]),
        "describe-db-instances": lambda said: said["DBInstances"][0]["DBInstanceStatus"] == "available",
        "describe-nat-gateways": lambda said: "NatGateways" in said,
        "describe-instance-status": lambda said: "InstanceStatuses" in said,
        "list-certificates": lambda said: said["CertificateSummaryList"],
        "describe-certificate": lambda said: "Status" in said["Certificate"],
        "list-backup-jobs": lambda said: "BackupJobs" in said,
        "list-copy-jobs": lambda said: "CopyJobs" in said,
        "cancel-key-deletion": lambda said: key_state(said) == "Disabled",
        "enable-key": lambda said: key_state(said) == "Enabled",
        "admin-user-global-sign-out": lambda said: said == "",
        "stop-task": lambda said: said["task"]["desiredStatus"] == "STOPPED",
        "update-service": lambda said: said["service"]["deployments"],
    }
    # A process that ends does not write all fields.
    began = now()
    while not watched.values("TaskRestarts", since=began - dt.timedelta(hours=1)):
        assert now() - began < dt.timedelta(seconds=PATIENCE_SECONDS)
        time.sleep(1)
    kms.schedule_key_deletion(KeyId=person.outputs["ArtifactKeyArn"])
    said = {}
    for command in commands():
        operation = command.split()[2]
        if operation in MADE_GOOD_BY:
            continue
        running, stopped = (
            ecs.list_tasks(cluster=person.outputs["ClusterName"], desiredStatus=each)["taskArns"]
            for each in ("RUNNING", "STOPPED")
        )
        task = stopped[0] if operation == "describe-tasks" else running[0]
        said[operation] = person.types(command, TASK=task, ARN=_certificate(watched), NAME="viewer")
        assert shown[operation](said[operation]), f"{command}: {said[operation]}"
    assert said.keys() == shown.keys()
    # The emulator's log matches every line; on AWS a pattern names a field of them.
    fields = set(re.findall(r"\$\.(\w+)", " ".join(commands())))
    assert fields == {"level", "Uptime"}
    written = lines(said["filter-log-events"])
    assert any(fields <= each.keys() for each in written)
    assert {"fast_path", "schema", "schema_head"} <= {name for each in written for name in each}
    ecs.get_waiter("services_stable").wait(
        cluster=person.outputs["ClusterName"],
        services=[person.outputs["ServiceName"]],
        WaiterConfig={"Delay": 1, "MaxAttempts": PATIENCE_SECONDS},
    )
    watched.wait_until_it_serves()
    time.sleep(_UNDER_WAY_SECONDS)


def test_an_issuer_whose_keys_are_gone(watched: Watched) -> None:
    """The last one, since the user pool does not come back.

    Without waiting for an hour: whoever shows a key that the server does not know makes it ask for new ones.
    """
    (pool,) = watched.aws.client("cognito-idp").list_user_pools(MaxResults=1)["UserPools"]
    issuer = f"{watched.endpoints['sign_in_url']}/{pool['Id']}"
    stranger = jwt.encode({"iss": issuer}, KEY, algorithm="RS256", headers={"kid": "unknown"})

    def ask_for_keys() -> None:
        request = urllib.request.Request(
            watched.endpoints["server_url"] + "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0",
            headers={"X-Amzn-Oidc-Accesstoken": stranger},
        )
        with pytest.raises(urllib.error.HTTPError, match="HTTP Error"):
            urllib.request.urlopen(request, timeout=30)

    ask_for_keys()
    watched.aws.client("cognito-idp").delete_user_pool(UserPoolId=pool["Id"])
    gone = now()
    age = 0.0
    while age < 60:
        ask_for_keys()
        ages = watched.values("KeysOld", since=gone)
        age = max(ages.values(), default=0.0)
        assert (now() - gone).total_seconds() < PATIENCE_SECONDS, ages
        time.sleep(5)
    alarm = watched.alarm("KeysOld")
    growing = [age + 60.0 * minute for minute in range(70)]
    assert state_of(alarm, {"KeysAge": growing[:10]}) == "OK"
    assert state_of(alarm, {"KeysAge": growing}) == "ALARM"


def _certificate(watched: Watched) -> str:
    (metric,) = watched.alarm("CertificateWeek")["Metrics"]
    return str(metric["MetricStat"]["Metric"]["Dimensions"][0]["Value"])


def _command(operation: str) -> str:
    (found,) = [each for each in commands() if operation in each]
    return found


def _database(watched: Watched) -> str:
    (instance,) = watched.aws.client("rds").describe_db_instances()["DBInstances"]
    return str(instance["DBInstanceIdentifier"])


def ending_in(*, days: int) -> dict[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now() - dt.timedelta(days=1))
        .not_valid_after(now() + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return {
        "Certificate": certificate.public_bytes(pem),
        "PrivateKey": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    }
