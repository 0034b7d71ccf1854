"""What AWS Backup keeps, and what a second region holds."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.stacks.templates import Assembly, Properties, Template

HERE, THERE = "Fn::GetAtt", "mlflowonaws-prod-recovery"


def rules(assembly: Assembly, of: str) -> dict[str, Properties]:
    plan = assembly.foundation.one("AWS::Backup::BackupPlan", id_starts=f"Backup{of}Plan")
    return {each["RuleName"]: each for each in plan["BackupPlan"]["BackupPlanRule"]}


def backed_up(assembly: Assembly, of: str) -> Any:
    selection = assembly.foundation.one("AWS::Backup::BackupSelection", id_starts=f"Backup{of}Plan")
    (arn,) = selection["BackupSelection"]["Resources"]
    return arn


def denied(template: Template, sid: str, *, bucket: str) -> Properties:
    document = template.one("AWS::S3::BucketPolicy", id_starts=bucket)["PolicyDocument"]
    (statement,) = (each for each in document["Statement"] if each.get("Sid") == sid)
    found: Properties = statement
    return found


@pytest.fixture(scope="module")
def second_region(replicated: Assembly) -> Template:
    assert replicated.recovery
    return replicated.recovery


def test_prod_keeps_daily_backups_of_the_database_and_the_bucket_to_the_second(prod: Assembly) -> None:
    assert {name: each["Lifecycle"] for name, each in rules(prod, "Database").items()} == {
        "Daily": {"DeleteAfterDays": 35}
    }
    (continuous,) = rules(prod, "Artifacts").values()
    assert continuous["EnableContinuousBackup"] is True
    assert continuous["Lifecycle"] == {"DeleteAfterDays": 35}
    assert backed_up(prod, "Artifacts") == {HERE: ["ArtifactsBucket88671897", "Arn"]}
    assert {"Ref": "DatabaseInstanceAA8A5FDE"} in backed_up(prod, "Database")["Fn::Join"][1]


def test_the_database_s_own_continuous_backup_stays_with_rds(prod: Assembly) -> None:
    """AWS Backup would change its retention and window, which are CloudFormation's."""
    assert all("EnableContinuousBackup" not in each for each in rules(prod, "Database").values())


def test_dev_has_none_and_costs_none(dev: Assembly) -> None:
    assert "AWS::Backup" not in dev.foundation.text
    assert dev.recovery is None


def test_the_bucket_tells_eventbridge_which_a_continuous_backup_listens_to(
    prod: Assembly, dev: Assembly
) -> None:
    said = {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    for assembly, expected in ((prod, said), (dev, None)):
        bucket = assembly.foundation.one("AWS::S3::Bucket", id_starts="ArtifactsBucket")
        assert bucket.get("NotificationConfiguration") == expected


def test_the_bucket_is_left_out_where_the_file_says_so(build: Callable[..., Assembly]) -> None:
    assembly = build("prod", {"backup": {"artifacts": False}})
    assert len(assembly.foundation.all("AWS::Backup::BackupPlan")) == 1
    assert "AWSBackupServiceRolePolicyForS3Backup" not in assembly.foundation.text


def test_aws_backup_reads_objects_of_this_bucket_only(prod: Assembly) -> None:
    (statement,) = prod.foundation.statements(id_starts="BackupRole")
    assert (statement["Effect"], statement["Action"]) == ("Deny", "s3:GetObject*")
    assert statement["NotResource"]["Fn::Join"][1] == [{HERE: ["ArtifactsBucket88671897", "Arn"]}, "/*"]


def test_every_vault_has_a_key_of_its_own_and_the_lock_of_the_file(
    replicated: Assembly, second_region: Template, prod: Assembly
) -> None:
    for template in (replicated.foundation, second_region):
        vault = template.one("AWS::Backup::BackupVault")
        assert HERE in vault["EncryptionKeyArn"]
        assert vault["LockConfiguration"] == {
            "ChangeableForDays": 7,
            "MaxRetentionDays": 500,
            "MinRetentionDays": 14,
        }
    assert "LockConfiguration" not in prod.foundation.one("AWS::Backup::BackupVault")


def test_a_governance_lock_has_no_days_of_grace(build: Callable[..., Assembly]) -> None:
    lock = {"mode": "governance", "min_days": 7, "max_days": 35}
    vault = build("prod", {"backup": {"lock": lock}}).foundation.one("AWS::Backup::BackupVault")
    assert vault["LockConfiguration"] == {"MaxRetentionDays": 35, "MinRetentionDays": 7}


def test_the_last_daily_backup_of_each_is_copied_to_the_vault_of_the_second_region(
    replicated: Assembly, second_region: Template
) -> None:
    name = second_region.one("AWS::Backup::BackupVault")["BackupVaultName"]
    for of in ("Database", "Artifacts"):
        (copy,) = rules(replicated, of)["Daily"]["CopyActions"]
        assert copy["DestinationBackupVaultArn"]["Fn::Join"][1][-1].endswith(f":backup-vault:{name}")
        assert copy["DestinationBackupVaultArn"]["Fn::Join"][1][0].endswith(":backup:eu-west-1:")
        assert copy["Lifecycle"] == {"DeleteAfterDays": 60}
    assert not rules(replicated, "Artifacts")["Continuous"].get("CopyActions")


def test_the_second_region_is_deployed_before_what_is_copied_there_and_is_protected(
    replicated: Assembly,
) -> None:
    stacks = replicated.manifest["artifacts"]
    recovery = stacks["MlflowOnAws-prod-Recovery"]
    assert recovery["environment"] == "aws://unknown-account/eu-west-1"
    assert recovery["properties"]["terminationProtection"] is True
    assert "MlflowOnAws-prod-Recovery" in stacks["MlflowOnAws-prod-Foundation"]["dependencies"]


def test_every_artifact_is_replicated_there_with_its_deletions_under_a_key_of_its_own(
    replicated: Assembly, second_region: Template
) -> None:
    bucket = replicated.foundation.one("AWS::S3::Bucket", id_starts="ArtifactsBucket")
    sealed, everything = bucket["ReplicationConfiguration"]["Rules"]
    assert (sealed["Id"], everything["Id"]) == ("Sealed", "Everything")
    assert everything["Filter"] == {"Prefix": "team/models/"}
    assert everything["DeleteMarkerReplication"] == {"Status": "Enabled"}
    replica = second_region.one("AWS::S3::Bucket")
    assert everything["Destination"]["Bucket"]["Fn::Join"][1][2:] == [
        f":s3:::{THERE}-",
        {"Ref": "AWS::AccountId"},
    ]
    assert replica["BucketName"]["Fn::Join"][1] == [f"{THERE}-", {"Ref": "AWS::AccountId"}]
    alias = second_region.one("AWS::KMS::Alias")["AliasName"]
    key = everything["Destination"]["EncryptionConfiguration"]["ReplicaKmsKeyID"]["Fn::Join"][1]
    assert key[-1] == f":{alias}"
    (statement,) = (
        each
        for each in replicated.foundation.statements(id_starts="ArtifactsSealedReplicaRole")
        if "ForAnyValue:StringEquals" in each.get("Condition", {})
    )
    assert statement["Condition"]["ForAnyValue:StringEquals"] == {"kms:ResourceAliases": alias}


def test_the_replica_is_kept_as_the_artifacts_are(replicated: Assembly, second_region: Template) -> None:
    artifacts = replicated.foundation.one("AWS::S3::Bucket", id_starts="ArtifactsBucket")
    replica = second_region.one("AWS::S3::Bucket")
    for same in (
        "LifecycleConfiguration",
        "ObjectLockEnabled",
        "OwnershipControls",
        "PublicAccessBlockConfiguration",
        "VersioningConfiguration",
    ):
        assert replica[same] == artifacts[same]
    for template, name in ((replicated.foundation, "ArtifactsBucket"), (second_region, "ReplicaBucket")):
        denied(template, "OnlyBreakGlassDeletesVersions", bucket=name)


def test_only_replication_writes_to_the_replica(second_region: Template) -> None:
    statement = denied(second_region, "OnlyReplicationWrites", bucket="ReplicaBucket")
    assert statement["NotAction"] == ["s3:GetObject*", "s3:Replicate*", "s3:DeleteObjectVersion"]
    assert "Condition" not in statement


def test_copies_of_backups_alone_need_no_replica(build: Callable[..., Assembly]) -> None:
    recovery = {"region": "eu-west-1", "replicate": False}
    assembly = build("prod", {"region": "eu-central-1", "backup": {"recovery": recovery}})
    assert assembly.recovery
    assert assembly.recovery.types() == {"AWS::KMS::Key", "AWS::Backup::BackupVault"}
    assert '"ReplicationConfiguration"' not in assembly.foundation.text
