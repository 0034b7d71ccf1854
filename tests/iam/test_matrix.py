"""Role by action on S3, KMS, STS and what lies around them: every cell is asked, and allowed or denied.

The emulated account enforces the deployed policies, the bucket's own included. A cell that is allowed must
succeed; one that is denied must be denied by IAM, not fail for another reason.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.parts.aws import Aws
from stacks.roles import BY_NAME as ROLES
from tests.iam.conftest import AUDIENCE, AUDIT_LOG, OTHER_LOG, PREFIX, STRANGER, STREAM, Deployed
from tests.local.conftest import ACCOUNT

EVERYBODY = frozenset(ROLES)
WRITERS = frozenset({"contributor", "approver", "admin"})
RECOVERERS = frozenset({"auditor", "admin"})
AUDITOR = frozenset({"auditor"})
QUERY = "fields principal, route"
NOBODY: frozenset[str] = frozenset()
DENIALS = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}


@functools.cache
def client_of(aws: Aws, service: str) -> Any:
    """A client costs more to make than to use."""
    return aws.client(service)


@dataclass(frozen=True)
class Attempt:
    """One caller's surroundings: what is deployed, and objects that the account's root has put there."""

    deployed: Deployed
    aws: Aws

    def client(self, service: str) -> Any:
        return client_of(self.aws, service)

    @property
    def s3(self) -> Any:
        return self.client("s3")

    @property
    def root(self) -> Attempt:
        return Attempt(self.deployed, self.deployed.root)

    @property
    def bucket(self) -> str:
        return self.deployed.bucket

    @property
    def key_arn(self) -> str:
        return self.deployed.key_arn

    def existing(self, prefix: str = PREFIX) -> tuple[str, str]:
        """Put an object with two versions; returns its name and the id of the first."""
        name, s3 = f"{prefix}/{uuid.uuid4()}", self.root.s3
        first = s3.put_object(Bucket=self.bucket, Key=name, Body=b"first")["VersionId"]
        s3.put_object(Bucket=self.bucket, Key=name, Body=b"second")
        return name, first

    def fresh(self, prefix: str = PREFIX) -> str:
        return f"{prefix}/{uuid.uuid4()}"

    def put(self, name: str, **how: Any) -> Any:
        return self.s3.put_object(Bucket=self.bucket, Key=name, Body=b"bytes", **how)

    def token(self, *audiences: str, algorithm: str = "RS256", **more: Any) -> Any:
        return self.client("sts").get_web_identity_token(
            Audience=list(audiences), SigningAlgorithm=algorithm, **more
        )


Ask = Callable[[Attempt], Any]


def get(attempt: Attempt) -> None:
    name, _ = attempt.existing()
    assert attempt.s3.get_object(Bucket=attempt.bucket, Key=name)["Body"].read() == b"second"


def get_former_version(attempt: Attempt) -> None:
    name, first = attempt.existing()
    found = attempt.s3.get_object(Bucket=attempt.bucket, Key=name, VersionId=first)
    assert found["Body"].read() == b"first"


def delete(attempt: Attempt) -> None:
    name, first = attempt.existing()
    attempt.s3.delete_object(Bucket=attempt.bucket, Key=name)
    root = attempt.root.s3
    assert root.get_object(Bucket=attempt.bucket, Key=name, VersionId=first)["Body"].read() == b"first"


def delete_several(attempt: Attempt) -> None:
    name, _ = attempt.existing()
    answer = attempt.s3.delete_objects(Bucket=attempt.bucket, Delete={"Objects": [{"Key": name}]})
    raise_first(answer)


def delete_version(attempt: Attempt) -> None:
    name, first = attempt.existing()
    attempt.s3.delete_object(Bucket=attempt.bucket, Key=name, VersionId=first)


def delete_several_versions(attempt: Attempt) -> None:
    name, first = attempt.existing()
    answer = attempt.s3.delete_objects(
        Bucket=attempt.bucket, Delete={"Objects": [{"Key": name, "VersionId": first}]}
    )
    raise_first(answer)


def raise_first(answer: Any) -> None:
    """DeleteObjects answers 200 and lists what was refused."""
    for error in answer.get("Errors", []):
        raise ClientError({"Error": {"Code": error["Code"]}}, "DeleteObjects")


def upload_in_parts(attempt: Attempt) -> None:
    name, s3 = attempt.fresh(), attempt.s3
    upload = s3.create_multipart_upload(Bucket=attempt.bucket, Key=name)["UploadId"]
    where = {"Bucket": attempt.bucket, "Key": name, "UploadId": upload}
    part = s3.upload_part(**where, PartNumber=1, Body=b"bytes")
    s3.complete_multipart_upload(
        **where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )


def abort_an_upload(attempt: Attempt) -> None:
    name, root = attempt.fresh(), attempt.root.s3
    upload = root.create_multipart_upload(Bucket=attempt.bucket, Key=name)["UploadId"]
    attempt.s3.abort_multipart_upload(Bucket=attempt.bucket, Key=name, UploadId=upload)


def copy_out_of_the_prefix(attempt: Attempt) -> None:
    name, _ = attempt.existing()
    source = {"Bucket": attempt.bucket, "Key": name}
    attempt.s3.copy_object(Bucket=attempt.bucket, Key=attempt.fresh("elsewhere"), CopySource=source)


def copy_into_the_prefix(attempt: Attempt) -> None:
    name, _ = attempt.existing("elsewhere")
    source = {"Bucket": attempt.bucket, "Key": name}
    attempt.s3.copy_object(Bucket=attempt.bucket, Key=attempt.fresh(), CopySource=source)


def decrypt(attempt: Attempt) -> None:
    root = attempt.root.client("kms")
    secret = root.encrypt(KeyId=attempt.key_arn, Plaintext=b"bytes")["CiphertextBlob"]
    attempt.client("kms").decrypt(KeyId=attempt.key_arn, CiphertextBlob=secret)


def promote_oneself(attempt: Attempt) -> None:
    role = attempt.client("sts").get_caller_identity()["Arn"].split("/")[1]
    policy = f"arn:aws:iam::{ACCOUNT}:policy/AdministratorAccess"
    attempt.client("iam").attach_role_policy(RoleName=role, PolicyArn=policy)


def of(service: str, operation: str, **arguments: Any) -> Ask:
    """A call whose arguments are known; `$bucket`, `$key` and `$pool` stand for what was deployed."""

    def ask(attempt: Attempt) -> None:
        known = {
            "$bucket": attempt.bucket,
            "$key": attempt.key_arn,
            "$pool": attempt.deployed.user_pool_id,
        }
        given = {
            name: known.get(value, value) if isinstance(value, str) else value
            for name, value in arguments.items()
        }
        getattr(attempt.client(service), operation)(**given)

    return ask


OTHER_KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000"
EVENT = {"timestamp": 1_790_000_000_000, "message": "forged"}
KMS = {"ServerSideEncryption": "aws:kms"}
ELSEWHERE = "https://elsewhere.example.org"

MATRIX: dict[str, tuple[frozenset[str], Ask]] = {
    # S3: the artifacts below the prefix
    "s3 list below the prefix": (
        EVERYBODY,
        of("s3", "list_objects_v2", Bucket="$bucket", Prefix=f"{PREFIX}/"),
    ),
    "s3 list the whole bucket": (NOBODY, of("s3", "list_objects_v2", Bucket="$bucket")),
    "s3 list another prefix": (NOBODY, of("s3", "list_objects_v2", Bucket="$bucket", Prefix="elsewhere/")),
    "s3 list a prefix that begins alike": (
        NOBODY,
        of("s3", "list_objects_v2", Bucket="$bucket", Prefix=PREFIX),
    ),
    "s3 list versions": (RECOVERERS, of("s3", "list_object_versions", Bucket="$bucket", Prefix=f"{PREFIX}/")),
    "s3 get": (EVERYBODY, get),
    "s3 get elsewhere": (
        NOBODY,
        lambda it: it.s3.get_object(Bucket=it.bucket, Key=it.existing("elsewhere")[0]),
    ),
    "s3 get a former version": (RECOVERERS, get_former_version),
    "s3 put": (WRITERS, lambda it: it.put(it.fresh())),
    "s3 overwrite": (WRITERS, lambda it: it.put(it.existing()[0])),
    "s3 put elsewhere": (NOBODY, lambda it: it.put(it.fresh("elsewhere"))),
    "s3 put beside the prefix": (NOBODY, lambda it: it.put(it.fresh(f"{PREFIX}-two"))),
    "s3 put with our key, named": (
        WRITERS,
        lambda it: it.put(it.fresh(), **KMS, SSEKMSKeyId=it.key_arn),
    ),
    "s3 put with another key": (NOBODY, lambda it: it.put(it.fresh(), **KMS, SSEKMSKeyId=OTHER_KEY)),
    "s3 put with the account's key": (NOBODY, lambda it: it.put(it.fresh(), **KMS)),
    "s3 put with the service's key": (
        NOBODY,
        lambda it: it.put(it.fresh(), ServerSideEncryption="AES256"),
    ),
    "s3 upload in parts": (WRITERS, upload_in_parts),
    "s3 abort an upload": (WRITERS, abort_an_upload),
    "s3 copy out of the prefix": (NOBODY, copy_out_of_the_prefix),
    "s3 copy into the prefix": (NOBODY, copy_into_the_prefix),
    "s3 delete, recoverably": (WRITERS, delete),
    "s3 delete several, recoverably": (WRITERS, delete_several),
    "s3 delete a version": (NOBODY, delete_version),
    "s3 delete several versions": (NOBODY, delete_several_versions),
    "s3 tag": (
        NOBODY,
        lambda it: it.s3.put_object_tagging(
            Bucket=it.bucket, Key=it.existing()[0], Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}
        ),
    ),
    "s3 put with a tag": (NOBODY, lambda it: it.put(it.fresh(), Tagging="a=b")),
    "s3 put with a lock": (
        NOBODY,
        lambda it: it.put(it.fresh(), ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate="2100-01-01"),
    ),
    "s3 put with a hold": (NOBODY, lambda it: it.put(it.fresh(), ObjectLockLegalHoldStatus="ON")),
    "s3 open to others": (
        NOBODY,
        lambda it: it.s3.put_object_acl(Bucket=it.bucket, Key=it.existing()[0], ACL="public-read"),
    ),
    # S3: the bucket
    "s3 list buckets": (NOBODY, of("s3", "list_buckets")),
    "s3 create a bucket": (
        NOBODY,
        of(
            "s3",
            "create_bucket",
            Bucket="another-bucket",
            CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
        ),
    ),
    "s3 delete the bucket": (NOBODY, of("s3", "delete_bucket", Bucket="$bucket")),
    "s3 read the bucket's policy": (NOBODY, of("s3", "get_bucket_policy", Bucket="$bucket")),
    "s3 remove the bucket's policy": (NOBODY, of("s3", "delete_bucket_policy", Bucket="$bucket")),
    "s3 suspend versioning": (
        NOBODY,
        of(
            "s3",
            "put_bucket_versioning",
            Bucket="$bucket",
            VersioningConfiguration={"Status": "Suspended"},
        ),
    ),
    "s3 expire what is there": (
        NOBODY,
        of(
            "s3",
            "put_bucket_lifecycle_configuration",
            Bucket="$bucket",
            LifecycleConfiguration={
                "Rules": [
                    {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
                ]
            },
        ),
    ),
    # KMS: the same key, but not through S3
    "kms decrypt": (NOBODY, decrypt),
    "kms make a data key": (
        NOBODY,
        of("kms", "generate_data_key", KeyId="$key", KeySpec="AES_256"),
    ),
    "kms encrypt": (NOBODY, of("kms", "encrypt", KeyId="$key", Plaintext=b"bytes")),
    "kms describe": (NOBODY, of("kms", "describe_key", KeyId="$key")),
    "kms open to others": (
        NOBODY,
        of("kms", "put_key_policy", KeyId="$key", PolicyName="default", Policy=json.dumps({})),
    ),
    "kms grant": (
        NOBODY,
        of(
            "kms",
            "create_grant",
            KeyId="$key",
            GranteePrincipal=f"arn:aws:iam::{ACCOUNT}:role/test-{STRANGER}",
            Operations=["Decrypt"],
        ),
    ),
    "kms disable": (NOBODY, of("kms", "disable_key", KeyId="$key")),
    "kms schedule deletion": (NOBODY, of("kms", "schedule_key_deletion", KeyId="$key")),
    # STS: tokens for this deployment, by the algorithm that it takes
    "sts token for us": (EVERYBODY, lambda it: it.token(AUDIENCE)),
    "sts token for us, for long": (EVERYBODY, lambda it: it.token(AUDIENCE, DurationSeconds=1800)),
    "sts token for another": (NOBODY, lambda it: it.token(ELSEWHERE)),
    "sts token for us and another": (NOBODY, lambda it: it.token(AUDIENCE, ELSEWHERE)),
    "sts token for a part of our name": (NOBODY, lambda it: it.token(AUDIENCE.removesuffix(".org"))),
    "sts token by another algorithm": (NOBODY, lambda it: it.token(AUDIENCE, algorithm="ES384")),
    "sts token with claims of one's own": (
        NOBODY,
        lambda it: it.token(AUDIENCE, Tags=[{"Key": "role", "Value": "admin"}]),
    ),
    "sts assume the admin's role": (
        NOBODY,
        of(
            "sts",
            "assume_role",
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/test-admin",
            RoleSessionName="mine",
        ),
    ),
    # What would let a role become more than it is
    "iam promote oneself": (NOBODY, promote_oneself),
    "iam read roles": (NOBODY, of("iam", "list_roles")),
    "iam turn federation off": (NOBODY, of("iam", "disable_outbound_web_identity_federation")),
    "cognito join a group": (
        NOBODY,
        of(
            "cognito-idp",
            "admin_add_user_to_group",
            UserPoolId="$pool",
            Username="eve",
            GroupName="mlflow-admin",
        ),
    ),
    "cognito make a user": (
        NOBODY,
        of("cognito-idp", "admin_create_user", UserPoolId="$pool", Username="eve"),
    ),
    "cognito read the client's secret": (
        NOBODY,
        of("cognito-idp", "describe_user_pool_client", UserPoolId="$pool", ClientId="any"),
    ),
    "logs read the audit log": (
        AUDITOR,
        of("logs", "filter_log_events", logGroupName=AUDIT_LOG, filterPattern="refused"),
    ),
    "logs query the audit log": (
        AUDITOR,
        of("logs", "start_query", logGroupName=AUDIT_LOG, startTime=0, endTime=1, queryString=QUERY),
    ),
    "logs query another stack's log": (
        NOBODY,
        of("logs", "start_query", logGroupName=OTHER_LOG, startTime=0, endTime=1, queryString=QUERY),
    ),
    "logs read another stack's log": (NOBODY, of("logs", "filter_log_events", logGroupName=OTHER_LOG)),
    "logs write to the audit log": (
        NOBODY,
        of("logs", "put_log_events", logGroupName=AUDIT_LOG, logStreamName=STREAM, logEvents=[EVENT]),
    ),
    "logs delete the audit log": (NOBODY, of("logs", "delete_log_group", logGroupName=AUDIT_LOG)),
    "logs shorten the audit log": (
        NOBODY,
        of("logs", "put_retention_policy", logGroupName=AUDIT_LOG, retentionInDays=1),
    ),
    "secretsmanager read a secret": (NOBODY, of("secretsmanager", "get_secret_value", SecretId="any")),
}


@pytest.mark.parametrize("role", [*ROLES, STRANGER])
@pytest.mark.parametrize("action", MATRIX)
def test_a_role_may_what_the_matrix_says_and_nothing_else(role: str, action: str, deployed: Deployed) -> None:
    allowed, ask = MATRIX[action]
    attempt = Attempt(deployed, deployed.roles[role])
    if role in allowed:
        ask(attempt)
        return
    with pytest.raises(ClientError) as refused:
        ask(attempt)
    assert refused.value.response["Error"]["Code"] in DENIALS


def test_every_action_works_for_the_account_itself(deployed: Deployed) -> None:
    """A denied cell proves something only if nothing but permission stood in its way."""
    root = Attempt(deployed, deployed.root)
    for action in ("s3 get", "s3 put", "s3 upload in parts", "kms decrypt", "kms make a data key"):
        MATRIX[action][1](root)


def test_the_key_is_asked_for_through_s3(deployed: Deployed) -> None:
    """Without the statement about the key, the same role cannot read: the allowed cells rest on it."""
    iam, role = deployed.root.client("iam"), "test-contributor"
    deny = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Action": "kms:*",
                "Resource": "*",
                "Condition": {"StringEquals": {"kms:ViaService": "s3.eu-central-1.amazonaws.com"}},
            }
        ],
    }
    iam.put_role_policy(RoleName=role, PolicyName="no-key", PolicyDocument=json.dumps(deny))
    try:
        for action in ("s3 get", "s3 put"):
            with pytest.raises(ClientError, match="AccessDenied"):
                MATRIX[action][1](Attempt(deployed, deployed.roles["contributor"]))
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="no-key")
