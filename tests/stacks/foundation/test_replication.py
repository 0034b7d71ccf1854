"""S3 copies what is sealed to a bucket of the file, by a role that can do nothing else."""

from collections.abc import Callable

import pytest

from tests.stacks.conftest import OBJECT_LOCK, REPLICA
from tests.stacks.templates import Assembly, Properties, as_list

ROLE = "ArtifactsSealedReplicaRole"


@pytest.fixture(scope="module")
def here(build: Callable[..., Assembly]) -> Assembly:
    """Copies to a bucket of the same account, without Object Lock."""
    replica = {key: value for key, value in REPLICA.items() if key != "account"}
    return build("dev", {"artifacts": {"sealed_replica": replica}})


def configuration(assembly: Assembly) -> Properties:
    bucket = assembly.foundation.one("AWS::S3::Bucket", id_starts="Artifacts")
    found: Properties = bucket["ReplicationConfiguration"]
    return found


def sealed(assembly: Assembly) -> Properties:
    (rule,) = (each for each in configuration(assembly)["Rules"] if each["Id"] == "Sealed")
    found: Properties = rule
    return found


def granted(assembly: Assembly) -> dict[str, Properties]:
    """The statement of the role for each action."""
    return {
        action: each
        for each in assembly.foundation.statements(id_starts=ROLE)
        for action in as_list(each["Action"])
    }


def test_what_is_sealed_is_copied_and_nothing_else(replicated: Assembly, here: Assembly) -> None:
    for assembly, prefix in ((replicated, "team/models/sealed/"), (here, "sealed/")):
        rule = sealed(assembly)
        assert rule["Filter"] == {"Prefix": prefix}
        assert rule["Status"] == "Enabled"
        assert rule["SourceSelectionCriteria"] == {"SseKmsEncryptedObjects": {"Status": "Enabled"}}
        assert rule["Destination"]["Bucket"] == REPLICA["bucket_arn"]
        assert rule["Destination"]["EncryptionConfiguration"] == {"ReplicaKmsKeyID": REPLICA["key_arn"]}


def test_a_deletion_is_not_copied(replicated: Assembly, here: Assembly) -> None:
    rule = sealed(replicated)
    assert rule["DeleteMarkerReplication"] == {"Status": "Disabled"}
    assert "s3:ReplicateDelete" not in granted(here)


def test_another_account_owns_its_copies(replicated: Assembly, here: Assembly) -> None:
    destination = configuration(replicated)["Rules"][0]["Destination"]
    assert destination["Account"] == REPLICA["account"]
    assert destination["AccessControlTranslation"] == {"Owner": "Destination"}
    assert "s3:ObjectOwnerOverrideToBucketOwner" in granted(replicated)
    assert not {"Account", "AccessControlTranslation"} & set(configuration(here)["Rules"][0]["Destination"])


def test_the_role_reads_what_is_sealed_and_writes_copies_and_nothing_else(here: Assembly) -> None:
    found = granted(here)
    assert set(found) == {
        "s3:GetReplicationConfiguration",
        "s3:ListBucket",
        "s3:GetObjectVersionForReplication",
        "s3:GetObjectVersionAcl",
        "s3:GetObjectVersionTagging",
        "s3:ReplicateObject",
        "s3:ReplicateTags",
        "kms:Decrypt",
        "kms:Encrypt",
        "kms:GenerateDataKey",
    }
    assert found["s3:GetObjectVersionForReplication"]["Resource"]["Fn::Join"][1][-1] == "/sealed/*"
    assert found["s3:ReplicateObject"]["Resource"] == "arn:aws:s3:::company-replicas/sealed/*"
    assert found["kms:Encrypt"]["Resource"] == REPLICA["key_arn"]


def test_locks_are_copied_where_there_are_any(replicated: Assembly) -> None:
    assert OBJECT_LOCK
    assert {"s3:GetObjectRetention", "s3:GetObjectLegalHold"} <= set(granted(replicated))


def test_each_key_opens_through_s3_of_its_own_region_only(replicated: Assembly) -> None:
    theirs = granted(replicated)["kms:Encrypt"]["Condition"]["StringEquals"]["kms:ViaService"]
    assert theirs["Fn::Join"][1] == ["s3.eu-west-1.", {"Ref": "AWS::URLSuffix"}]
    ours = granted(replicated)["kms:Decrypt"]["Condition"]["StringEquals"]["kms:ViaService"]
    assert ours["Fn::Join"][1] == ["s3.eu-central-1.", {"Ref": "AWS::URLSuffix"}]


def test_only_s3_takes_the_role_for_this_account(replicated: Assembly) -> None:
    (statement,) = replicated.foundation.one("AWS::IAM::Role", id_starts=ROLE)["AssumeRolePolicyDocument"][
        "Statement"
    ]
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_nothing_is_copied_unless_the_file_says_so(either: Assembly) -> None:
    assert '"ReplicationConfiguration"' not in either.foundation.text
    assert not [each for each in either.foundation.resources if each.startswith(ROLE)]
