"""Failures of the running platform: each moves the metric of the alarm that is for it, beyond its threshold.

The alarms are the deployed ones, as DescribeAlarms tells them; the emulator's CloudWatch has their metrics.
No test waits for the minutes of an alarm: it would ring if what it has seen since the failure lasted.
"""

from __future__ import annotations

import datetime as dt
import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from tests.local.watched import PATIENCE_SECONDS, Watched, now
from tests.stacks.monitoring.cloudwatch import state as state_of

pytestmark = pytest.mark.slow

# A measurement that began before a failure has ended.
_UNDER_WAY_SECONDS = 6
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
def well(watched: Watched) -> dt.datetime:
    """Since when all has been well."""
    return now() - dt.timedelta(seconds=_UNDER_WAY_SECONDS)


def test_a_certificate_near_its_end(watched: Watched, well: dt.datetime) -> None:
    certificate = watched.alarm("CertificateWeek")["Metrics"][0]["MetricStat"]["Metric"]["Dimensions"][0]
    assert not watched.rings("CertificateWeek", since=well)
    assert not watched.rings("CertificateMonth", since=well)
    began = now()
    watched.aws.client("acm").import_certificate(CertificateArn=certificate["Value"], **ending_in(days=5))
    watched.will_ring("CertificateWeek", since=began)
    watched.will_ring("CertificateMonth", since=began)


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


def test_a_stopped_database(watched: Watched, well: dt.datetime) -> None:
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
        rds.start_db_instance(DBInstanceIdentifier=name)
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
