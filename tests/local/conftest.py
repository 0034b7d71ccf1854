"""An emulated account with a database behind the front door, once for all tests of this folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.state import PROJECT, VENVS

if TYPE_CHECKING:
    from local.parts.aws import Aws
    from local.parts.certificates import CertificateAuthority
    from local.parts.postgres import Postgres

REGION, ACCOUNT, PARTNER = "eu-central-1", "000000000000", "222233334444"


@dataclass
class Account:
    """The emulator's process, its root, and the database it guards."""

    aws: Aws
    directory: Path
    authority: CertificateAuthority
    postgres: Postgres
    database_port: int
    instance: dict[str, Any]
    password: str
    issuer_url: str
    sign_in_url: str

    @property
    def partner(self) -> Aws:
        """The root of a second account: its number is its key's id."""
        return dataclasses.replace(self.aws, account_id=PARTNER, access_key=PARTNER)

    @property
    def resource_id(self) -> str:
        """The database's resource id, as in policies."""
        return str(self.instance["DbiResourceId"])

    def role(self, statements: list[dict[str, Any]], *, path: str = "/", seconds: int = 3600) -> Aws:
        """Create a role with this policy and return the API with its temporary credentials."""

        iam, name = self.aws.client("iam"), f"role-{secrets.token_hex(4)}"
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
        made = iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=json.dumps(trust))
        if statements:
            document = {"Version": "2012-10-17", "Statement": statements}
            iam.put_role_policy(RoleName=name, PolicyName="policy", PolicyDocument=json.dumps(document))
        return self.aws.assume(made["Role"]["Arn"], session="test", seconds=seconds)

    def connecting_role(self, user: str) -> Aws:
        """A role that may sign in as one database user."""
        resource = f"arn:aws:rds-db:{REGION}:{ACCOUNT}:dbuser:{self.resource_id}/{user}"
        return self.role([{"Effect": "Allow", "Action": "rds-db:connect", "Resource": resource}])


_TEMPLATE: dict[str, Any] = {
    "Resources": {
        "Key": {
            "Type": "AWS::KMS::Key",
            # As the CDK writes it: the account's policies decide who may use the key.
            "Properties": {
                "KeyPolicy": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                            "Action": "kms:*",
                            "Resource": "*",
                        }
                    ],
                }
            },
        },
        "Database": {
            "Type": "AWS::RDS::DBInstance",
            "Properties": {
                "DBInstanceIdentifier": "tested",
                "DBInstanceClass": "db.t4g.micro",
                "Engine": "postgres",
                "AllocatedStorage": "20",
                "DBName": "mlflow",
                "MasterUsername": "administrator",
                "ManageMasterUserPassword": True,
                "EnableIAMDatabaseAuthentication": True,
            },
        },
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "Properties": {
                "BucketEncryption": {
                    "ServerSideEncryptionConfiguration": [
                        {
                            "BucketKeyEnabled": True,
                            "ServerSideEncryptionByDefault": {
                                "SSEAlgorithm": "aws:kms",
                                "KMSMasterKeyID": {"Fn::GetAtt": ["Key", "Arn"]},
                            },
                        }
                    ]
                },
            },
        },
    },
    "Outputs": {
        "Secret": {"Value": {"Fn::GetAtt": ["Database", "MasterUserSecret.SecretArn"]}},
        "Endpoint": {"Value": {"Fn::GetAtt": ["Database", "Endpoint.Address"]}},
        "Bucket": {"Value": {"Ref": "Bucket"}},
        "KeyArn": {"Value": {"Fn::GetAtt": ["Key", "Arn"]}},
    },
}


@pytest.fixture(scope="session")
def account() -> Iterator[Account]:
    """The emulator with one stack: a bucket, and a database with the user `app`, a member of rds_iam."""
    from local.emulator.settings import EmulatorSettings
    from local.parts.aws import Aws
    from local.parts.backups import ARCHIVING
    from local.parts.certificates import CertificateAuthority
    from local.parts.ports import free_port
    from local.parts.postgres import Postgres, running
    from local.parts.rds import SOCKET_RULES

    # Short enough for a Unix socket's name, and open to the user that PostgreSQL runs as.
    directory = Path(tempfile.mkdtemp(prefix="mlflow-aws-"))
    directory.chmod(0o711)
    authority = CertificateAuthority.create(directory / "ca", name="Test RDS CA")
    certificate = authority.issue("localhost", "127.0.0.1", name="database")
    identity = authority.issue("localhost", name="identity")
    postgres = Postgres(
        directory=directory / "postgres",
        port=5432,
        host="",
        socket_hba=SOCKET_RULES,
        settings={**ARCHIVING, "fsync": "off"},
    )
    ports = {name: free_port() for name in ("aws", "database", "issuer", "partner-issuer", "sign-in")}
    settings = EmulatorSettings(
        port=ports["aws"],
        region=REGION,
        account_id=ACCOUNT,
        state=str(directory / "emulator"),
        logs=str(directory / "logs"),
        ledger=str(directory / "processes"),
        address_book=str(directory / "addresses.json"),
        balancer_metrics=str(directory / "load-balancer.metrics"),
        function_python=sys.executable,
        image="tested/image:latest",
        image_entrypoint=(sys.executable, "-c"),
        image_environment={},
        database_host="localhost",
        database_port=ports["database"],
        database_certificate=str(certificate.certificate),
        database_key=str(certificate.key),
        database_directory=str(postgres.directory),
        issuer_ports={ACCOUNT: ports["issuer"], PARTNER: ports["partner-issuer"]},
        sign_in_port=ports["sign-in"],
        identity_certificate=str(identity.certificate),
        identity_key=str(identity.key),
        public_urls={"https://deployed.example.com": "https://localhost:8443"},
    )
    settings.write(directory / "settings.json")
    aws = Aws(
        endpoint=f"http://127.0.0.1:{ports['aws']}",
        region=REGION,
        account_id=ACCOUNT,
        access_key=f"ASIATEST{secrets.token_hex(6).upper()}",
        secret_key=secrets.token_urlsafe(30),
    )
    try:
        with running(postgres), _emulator(directory, aws):
            outputs = _create_stack(aws, port=ports["database"])
            instance = aws.client("rds").describe_db_instances()["DBInstances"][0]
            secret = aws.client("secretsmanager").get_secret_value(SecretId=outputs["Secret"])
            password = json.loads(secret["SecretString"])["password"]
            with postgres.cursor() as cursor:
                cursor.execute("CREATE ROLE app LOGIN; GRANT rds_iam TO app; CREATE ROLE stranger LOGIN")
            yield Account(
                aws=aws,
                directory=directory,
                authority=authority,
                postgres=postgres,
                database_port=ports["database"],
                instance={**instance, "outputs": outputs},
                password=password,
                issuer_url=f"https://localhost:{ports['issuer']}",
                sign_in_url=f"https://localhost:{ports['sign-in']}",
            )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def assets(account: Account) -> str:
    """The bucket of the account's CDK bootstrap."""
    from local.deployment import bootstrap

    return bootstrap(account.aws)


@contextlib.contextmanager
def _emulator(directory: Path, aws: Aws) -> Iterator[None]:
    with (directory / "emulator.log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(VENVS / "emulator" / "bin" / "python"),
                "-m",
                "local.emulator",
                str(directory / "settings.json"),
            ],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={
                "PATH": os.environ["PATH"],
                "AWS_ACCESS_KEY_ID": aws.access_key,
                "AWS_SECRET_ACCESS_KEY": aws.secret_key,
            },
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while not (directory / "emulator" / "ready.json").exists():
            assert process.poll() is None, (directory / "emulator.log").read_text()
            assert time.monotonic() < deadline, "the emulator did not start in 60 seconds"
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _create_stack(aws: Aws, *, port: int) -> dict[str, str]:
    template = json.loads(json.dumps(_TEMPLATE))
    template["Resources"]["Database"]["Properties"]["Port"] = str(port)
    cloudformation = aws.client("cloudformation")
    cloudformation.create_stack(StackName="tested", TemplateBody=json.dumps(template))
    while True:
        stack = cloudformation.describe_stacks(StackName="tested")["Stacks"][0]
        if not stack["StackStatus"].endswith("IN_PROGRESS"):
            break
        time.sleep(0.05)
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
