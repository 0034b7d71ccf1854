"""Runs and models go on in another region, or another account, by what docs/operations.md prints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest
import tomlkit
from botocore.exceptions import ClientError

from local.deployment import read
from local.parts.aws import Aws
from local.platform import PARTNER
from tests.deploy.conftest import SERVICE, EmulatedAccount
from tests.documents import blocks

# Two whole deployments, beside whatever else this machine does.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
MINE = "tests/deploy/test_another_region.py"
EAST, WEST = "eu-central-1", "eu-west-1"
RECOVERY = "mlflowonaws-dev-recovery"
LOGGED = """
import os, pathlib, tempfile, mlflow
mlflow.set_experiment("churn")
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "MLmodel").write_text("flavors: {}")
(folder / "weights.bin").write_bytes(os.urandom(70000))
for number in range(3):
    with mlflow.start_run(run_name=f"run-{number}") as run:
        mlflow.log_param("depth", number)
        for step in range(50):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_artifacts(str(folder), "model")
client = mlflow.MlflowClient()
client.create_registered_model("churn")
client.create_model_version("churn", f"{run.info.artifact_uri}/model", run.info.run_id)
"""
# Refused until a server has sealed the version.
PROMOTED = """
import time, mlflow
for attempt in reversed(range(120)):
    try:
        mlflow.MlflowClient().set_registered_model_alias("churn", "champion", "1")
        break
    except mlflow.MlflowException:
        if not attempt:
            raise
        time.sleep(1)
"""
TOLD = """
import hashlib, pathlib, mlflow
client = mlflow.MlflowClient()
for run in mlflow.search_runs(experiment_names=["churn"], order_by=["params.depth"], output_format="list"):
    points = client.get_metric_history(run.info.run_id, "loss")
    print("told", run.info.run_id, run.data.params, [(each.step, each.value) for each in points])
folder = pathlib.Path(mlflow.artifacts.download_artifacts("models:/churn@champion"))
for file in sorted(folder.iterdir()):
    print("told", file.name, hashlib.sha256(file.read_bytes()).hexdigest())
"""
# The server seals anew what it finds in `relocated/`.
SEALED = """
import time, mlflow
client = mlflow.MlflowClient()
deadline = time.monotonic() + 120
while "mlflow_aws.seal" not in client.get_model_version("churn", "1").tags and time.monotonic() < deadline:
    time.sleep(1)
print("told", client.get_model_version_download_uri("churn", "1").rpartition("/")[0])
"""
Rows = Mapping[str, list[str]]
Objects = Mapping[str, str]


@dataclass(frozen=True)
class Lost:
    """What there was before the region was lost."""

    bucket: str
    rows: Rows
    objects: Objects
    told: list[str]
    snapshot: str


def client_runs(account: EmulatedAccount, program: str, variables: Mapping[str, str]) -> list[str]:
    """Run a program of a client; returns what it told."""
    file = account.shell.directory / "program.py"
    file.write_text(program)
    done = account.shell.run("python program.py", **variables)
    assert done.returncode == 0, done.stdout
    return [line for line in done.stdout.splitlines() if line.startswith("told")]


def objects(aws: Aws, bucket: str, below: str = "") -> Objects:
    """A digest of each object, by its key below a prefix."""
    s3 = aws.client("s3")
    return {
        each["Key"].removeprefix(below): hashlib.sha256(
            s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()
        ).hexdigest()
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=below)
        for each in page.get("Contents", [])
    }


def rows(account: EmulatedAccount, aws: Aws) -> Rows:
    """Every row of every table of the one database there, as text."""
    rds = aws.client("rds")
    (instance,) = rds.describe_db_instances()["DBInstances"]
    host, port = instance["Endpoint"]["Address"], instance["Endpoint"]["Port"]
    connection = psycopg2.connect(
        host=host,
        port=port,
        dbname="mlflow",
        user="mlflow_server",
        password=rds.generate_db_auth_token(DBHostname=host, Port=port, DBUsername="mlflow_server"),
        sslmode="verify-full",
        sslrootcert=str(account.platform.state.authority / "ca.pem"),
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        found = {}
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT to_jsonb(t)::text FROM public."{table}" t')
            found[table] = sorted(text for (text,) in cursor.fetchall())
    connection.close()
    return found


def moved(before: Rows, old: str, new: str) -> Rows:
    """The rows with what `relocate` promises: every place below the new root, and seals are former ones."""

    def row(text: str) -> str:
        found = json.loads(text.replace(old, new))
        if found.get("key") == "mlflow_aws.seal":
            seal, (bucket, _, below) = json.loads(found["value"]), new.removeprefix("s3://").partition("/")
            places = {name: f"{below}/{seal[name]}" for name in ("prefix", "manifest")}
            value = json.dumps({**seal, **places, "bucket": bucket}, sort_keys=True, separators=(",", ":"))
            found |= {"key": "mlflow_aws.former_seal", "value": value}
        return json.dumps(found)

    return {table: sorted(map(row, texts)) for table, texts in before.items()}


def unchanged(rows: Rows) -> Rows:
    """The rows, written as `moved` writes them."""
    return {table: sorted(json.dumps(json.loads(text)) for text in texts) for table, texts in rows.items()}


def as_printed(begin: str, names: Mapping[str, str]) -> list[str]:
    """The commands of the document's block that begins so, with the names of this account."""
    (text,) = (
        each.commands
        for each in blocks("docs/operations.md")
        if each.test == MINE and each.commands.startswith(begin)
    )
    for printed, name in names.items():
        text = text.replace(printed, name)
    return text.splitlines()


def write_environment(account: EmulatedAccount, aws: Aws, name: str, snapshot: str) -> None:
    """A copy of config/dev.toml for this account and region, with the snapshot, and no second region."""
    config = account.shell.directory / "config"
    document = tomlkit.parse((config / "dev.toml").read_text())
    certificate = aws.client("acm").request_certificate(DomainName="mlflow.localhost")["CertificateArn"]
    document["region"] = aws.region
    if aws.account_id == PARTNER:
        # Its roles are its own, and trust themselves.
        document["identity"] = {}
    del document["backup"]["recovery"]
    document["database"]["restore_from"] = snapshot
    document["ingress"]["certificate_arn"] = certificate
    # A plain key after a table would belong to the table.
    text = f'account = "{aws.account_id}"\n' + tomlkit.dumps(document)
    (config / f"{name}.toml").write_text(text)


@pytest.fixture(scope="module")
def lost(emulated: EmulatedAccount) -> Lost:
    """A deployment with a second region, as it was when its first one was lost."""
    shell, aws = emulated.shell, emulated.aws
    shell.configure(region=EAST, backup={"days": 7, "recovery": {"region": WEST}})
    shell.does("make bootstrap ENV=dev")
    shell.does('make deploy ENV=dev PREFLIGHT=no SMOKE=no ARGS="--require-approval never"')
    with emulated.served() as contributor:
        client_runs(emulated, LOGGED, contributor)
        client_runs(emulated, PROMOTED, emulated.platform.client_environment("approver").variables())
        told = client_runs(emulated, TOLD, contributor)
    bucket, rds = emulated.stack(SERVICE).outputs["ArtifactBucket"], aws.client("rds")
    (instance,) = rds.describe_db_instances()["DBInstances"]
    made = rds.create_db_snapshot(
        DBInstanceIdentifier=instance["DBInstanceIdentifier"], DBSnapshotIdentifier="daily"
    )
    quick = {"Delay": 1, "MaxAttempts": 120}
    rds.get_waiter("db_snapshot_available").wait(DBSnapshotIdentifier="daily", WaiterConfig=quick)
    found = Lost(bucket, rows(emulated, aws), objects(aws, bucket), told, made["DBSnapshot"]["DBSnapshotArn"])
    assert len(found.told) == 6
    assert any(key.startswith("sealed/") for key in found.objects)
    return found


def test_another_region_goes_on_with_every_row_and_object(emulated: EmulatedAccount, lost: Lost) -> None:
    shell, west = emulated.shell, dataclasses.replace(emulated.aws, region=WEST)
    replica = f"{RECOVERY}-{west.account_id}"
    assert objects(west, replica) == lost.objects
    # As AWS Backup copies a daily backup: under the key of the vault.
    vault = west.client("backup").describe_backup_vault(BackupVaultName=RECOVERY)
    copied = west.client("rds").copy_db_snapshot(
        SourceDBSnapshotIdentifier=lost.snapshot,
        TargetDBSnapshotIdentifier="copied",
        KmsKeyId=vault["EncryptionKeyArn"],
        SourceRegion=EAST,
    )["DBSnapshot"]
    write_environment(emulated, west, "dev-west", copied["DBSnapshotArn"])
    *commands, smoke = as_printed(
        "make bootstrap",
        {
            "prod-west": "dev-west",
            "FORMER-BUCKET": lost.bucket,
            "mlflowonaws-prod-recovery-111122223333": replica,
            "https://mlflow.example.com": emulated.platform.tracking_url,
        },
    )
    for command in commands:
        said, code = shell.types(command)
        assert code == 0, f"$ {command}\n{said}"
    (instance,) = west.client("rds").describe_db_instances()["DBInstances"]
    assert instance["KmsKeyId"] == vault["EncryptionKeyArn"]
    bucket = read(west, "MlflowOnAws-dev-west-Service").outputs["ArtifactBucket"]
    assert objects(west, bucket, "relocated/") == lost.objects
    assert unchanged(rows(emulated, west)) == moved(
        lost.rows, f"s3://{lost.bucket}", f"s3://{bucket}/relocated"
    )
    with emulated.served("MlflowOnAws-dev-west-Service", aws=west) as contributor:
        # Whose role may read the bucket of this region, and no other.
        assert client_runs(emulated, TOLD, contributor) == lost.told
        assert client_runs(emulated, SEALED, contributor) == [f"told s3://{bucket}/sealed/churn/1"]
        assert client_runs(emulated, TOLD, contributor) == lost.told
        done = shell.run(smoke, **contributor)
        assert done.returncode == 0, done.stdout


def policy(*statements: dict[str, Any]) -> str:
    """The document of a policy that allows this."""
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **s} for s in statements]})


def new_role(aws: Aws, name: str) -> Aws:
    """The API for a new role that may do everything in its own account."""
    iam, trusted = aws.client("iam"), {"AWS": f"arn:aws:iam::{aws.account_id}:root"}
    role = iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=policy({"Principal": trusted, "Action": "sts:AssumeRole"})
    )["Role"]
    everything = policy({"Action": "*", "Resource": "*"})
    iam.put_role_policy(RoleName=name, PolicyName="everything", PolicyDocument=everything)
    return aws.assume(role["Arn"], session="moving")


def test_another_account_takes_a_shared_snapshot_and_reads_as_a_viewer(
    emulated: EmulatedAccount, lost: Lost
) -> None:
    shell, old = emulated.shell, emulated.aws
    new = dataclasses.replace(old, account_id=PARTNER, access_key=PARTNER)
    everybody = {"AWS": [f"arn:aws:iam::{each}:root" for each in (old.account_id, PARTNER)]}
    key = old.client("kms").create_key(
        Policy=policy({"Principal": everybody, "Action": "kms:*", "Resource": "*"})
    )["KeyMetadata"]["Arn"]
    shared = old.client("rds").copy_db_snapshot(
        SourceDBSnapshotIdentifier="daily", TargetDBSnapshotIdentifier="moving", KmsKeyId=key
    )["DBSnapshot"]["DBSnapshotArn"]
    taken = {
        "SourceDBSnapshotIdentifier": shared,
        "TargetDBSnapshotIdentifier": "moving",
        "KmsKeyId": new.client("kms").create_key()["KeyMetadata"]["Arn"],
    }
    with pytest.raises(ClientError, match="is not shared with"):
        new.client("rds").copy_db_snapshot(**taken)
    old.client("rds").modify_db_snapshot_attribute(
        DBSnapshotIdentifier="moving", AttributeName="restore", ValuesToAdd=[PARTNER]
    )
    copied = new.client("rds").copy_db_snapshot(**taken)["DBSnapshot"]["DBSnapshotArn"]
    write_environment(emulated, new, "moved", copied)
    viewer, stranger = (new_role(new, role) for role in ("mlflow-viewer", "stranger"))
    deploy = 'make deploy ENV=moved PREFLIGHT=no SMOKE=no ARGS="--require-approval never"'
    (relocate,) = as_printed("make relocate", {"prod": "moved", "FORMER-BUCKET": lost.bucket})
    for command in ("make bootstrap ENV=moved", deploy):
        done = shell.run(command, **viewer.variables())
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
    assert "AccessDenied" in shell.run(relocate, **stranger.variables()).stdout
    bucket = read(new, "MlflowOnAws-moved-Service").outputs["ArtifactBucket"]
    with pytest.raises(ClientError, match="AccessDenied"):
        stranger.client("s3").copy_object(
            Bucket=bucket, Key="taken", CopySource={"Bucket": lost.bucket, "Key": min(lost.objects)}
        )
    done = shell.run(relocate, **viewer.variables())
    assert done.returncode == 0, done.stdout
    assert objects(new, bucket, "relocated/") == lost.objects
    assert unchanged(rows(emulated, new)) == moved(
        lost.rows, f"s3://{lost.bucket}", f"s3://{bucket}/relocated"
    )
