"""Members of a second account reach what their role may, once both accounts say so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest
from botocore.exceptions import ClientError

from local.parts.aws import Aws
from stacks.roles import BY_NAME as ROLES
from tests.iam.conftest import MEMBERS_ELSEWHERE, PREFIX, Deployed, session_of
from tests.iam.test_sealed import CHANGES, WRITES, Sealed
from tests.iam.test_sealed import refused as refused_to_change
from tests.local.conftest import PARTNER, Account

FILE = f"{PREFIX}/1/artifacts/model.bin"


@pytest.fixture(scope="module")
def elsewhere(account: Account, deployed: Deployed) -> Mapping[str, Aws]:
    """A session of a member of each role there, and of a stranger, with what the documentation tells them.

    The policy is the deployed one's very document, as docs/connect.md says.
    """
    ours, theirs = deployed.root.client("iam"), account.partner.client("iam")
    sessions = {}
    for role, name in (*MEMBERS_ELSEWHERE.items(), ("admin", "stranger")):
        arn = deployed.policies[role]
        version = ours.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = ours.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        copied = theirs.create_policy(PolicyName=f"mlflow-{name}", PolicyDocument=json.dumps(document))
        sessions[name] = session_of(account.partner, name, policy_arn=copied["Policy"]["Arn"])
    bare = session_of(account.partner, "bare", policy_arn=None)
    return {**sessions, "bare": bare}


def put(aws: Aws, deployed: Deployed, key: str = FILE) -> None:
    aws.client("s3").put_object(Bucket=deployed.bucket, Key=key, Body=b"weights")


def refused(call: object, *arguments: object) -> str:
    with pytest.raises(ClientError) as caught:
        call(*arguments)  # type: ignore[operator]
    return str(caught.value.response["Error"]["Code"])


def test_a_contributor_there_writes_under_our_key_and_a_viewer_there_reads_it(
    deployed: Deployed, elsewhere: Mapping[str, Aws]
) -> None:
    put(elsewhere["train"], deployed)
    s3 = elsewhere["report"].client("s3")
    found = s3.get_object(Bucket=deployed.bucket, Key=FILE)
    assert found["Body"].read() == b"weights"
    assert found["SSEKMSKeyId"] == deployed.key_arn
    listed = s3.list_objects_v2(Bucket=deployed.bucket, Prefix=f"{PREFIX}/1/")["Contents"]
    assert [each["Key"] for each in listed] == [FILE]


def test_a_viewer_there_writes_nothing(deployed: Deployed, elsewhere: Mapping[str, Aws]) -> None:
    assert refused(put, elsewhere["report"], deployed) == "AccessDenied"


def test_outside_the_prefix_they_reach_nothing(deployed: Deployed, elsewhere: Mapping[str, Aws]) -> None:
    assert refused(put, elsewhere["train"], deployed, "elsewhere/model.bin") == "AccessDenied"


def test_nobody_there_deletes_a_version(deployed: Deployed, elsewhere: Mapping[str, Aws]) -> None:
    put(elsewhere["train"], deployed)
    version = deployed.root.client("s3").head_object(Bucket=deployed.bucket, Key=FILE)["VersionId"]
    s3 = elsewhere["train"].client("s3")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=deployed.bucket, Key=FILE, VersionId=version)


def test_their_own_account_alone_does_not_admit_a_role(
    deployed: Deployed, elsewhere: Mapping[str, Aws]
) -> None:
    """The stranger has an admin's policy over there, and is no member here."""
    assert refused(put, elsewhere["stranger"], deployed) == "AccessDenied"


def test_our_policies_alone_do_not_admit_a_role(deployed: Deployed, elsewhere: Mapping[str, Aws]) -> None:
    assert refused(put, elsewhere["bare"], deployed) == "AccessDenied"


def test_the_key_opens_through_s3_only(deployed: Deployed, elsewhere: Mapping[str, Aws]) -> None:
    kms = elsewhere["train"].client("kms")
    with pytest.raises(ClientError, match="AccessDenied"):
        kms.generate_data_key(KeyId=deployed.key_arn, KeySpec="AES_256")


@pytest.mark.parametrize("member", ["train", "report", "stranger", "bare"])
@pytest.mark.parametrize("action", [*WRITES, *CHANGES])
def test_nobody_there_changes_what_is_sealed(
    member: str, action: str, deployed: Deployed, elsewhere: Mapping[str, Aws]
) -> None:
    refused_to_change((WRITES | CHANGES)[action], Sealed(deployed, elsewhere[member]))


@pytest.fixture
def generous(account: Account, elsewhere: Mapping[str, Aws]) -> Iterator[Aws]:
    """The contributor there, to whom their own account allows all of S3 and KMS."""
    iam, role = account.partner.client("iam"), "test-train"
    (copied,) = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    iam.detach_role_policy(RoleName=role, PolicyArn=copied["PolicyArn"])
    everything = {"Effect": "Allow", "Action": ["s3:*", "kms:*"], "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [everything]}
    iam.put_role_policy(RoleName=role, PolicyName="everything", PolicyDocument=json.dumps(document))
    yield elsewhere["train"]
    iam.delete_role_policy(RoleName=role, PolicyName="everything")
    iam.attach_role_policy(RoleName=role, PolicyArn=copied["PolicyArn"])


@pytest.mark.parametrize("action", [*WRITES, *CHANGES])
def test_our_bucket_refuses_it_whatever_their_account_allows(
    action: str, deployed: Deployed, generous: Aws
) -> None:
    put(generous, deployed)
    refused_to_change((WRITES | CHANGES)[action], Sealed(deployed, generous))


def test_a_member_there_reads_what_is_sealed(deployed: Deployed, elsewhere: Mapping[str, Aws]) -> None:
    sealed = Sealed(deployed, elsewhere["report"])
    assert sealed.s3.get_object(**sealed.at)["Body"].read() == b"second"


def test_every_role_of_the_table_can_have_members_elsewhere() -> None:
    assert set(MEMBERS_ELSEWHERE) <= set(ROLES)
    assert PARTNER not in json.dumps(MEMBERS_ELSEWHERE)
