"""Copies of artifacts in other buckets, made by S3 itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.acknowledge import acknowledge_resource


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Where S3 copies what is below a prefix, and under which key."""

    rule: str
    prefix: str
    bucket_arn: str
    # How the rule names the key: by its ARN, or by an alias's.
    key: str
    # What the role may encrypt with, and in which region.
    key_arn: str
    region: str
    key_condition: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # Another account, which shall own the copies.
    account: str | None = None
    deletions: bool = False


class Replication(Construct):
    """Replication of the bucket, each copy under a key of the copies' own.

    S3 takes a role for it that may read what is copied, and write copies. Versions that break-glass deletes
    here stay there; delete markers are copied only where `deletions` says so.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/replication-config-for-kms-objects.html
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        bucket: s3.Bucket,
        key: kms.IKey,
        locked: bool,
        copies: Sequence[Copies],
    ) -> None:
        super().__init__(scope, construct_id)
        self._role = iam.Role(self, "Role", assumed_by=_s3_for_this_account(self))
        self._allow(["s3:GetReplicationConfiguration", "s3:ListBucket"], bucket.bucket_arn)
        for each in copies:
            self._allow_copying(each, bucket=bucket, locked=locked)
        region = cdk.Stack.of(self).region
        self._allow(["kms:Decrypt"], key.key_arn, conditions=_through_s3(self, region))
        configuration = bucket.node.default_child
        assert isinstance(configuration, s3.CfnBucket)  # noqa: S101
        configuration.replication_configuration = s3.CfnBucket.ReplicationConfigurationProperty(
            role=self._role.role_arn,
            rules=[_rule(each, priority=number) for number, each in enumerate(copies, start=1)],
        )

    def _allow_copying(self, copies: Copies, *, bucket: s3.Bucket, locked: bool) -> None:
        originals = bucket.arn_for_objects(f"{copies.prefix}*")
        targets = f"{copies.bucket_arn}/{copies.prefix}*"
        self._allow(
            [
                "s3:GetObjectVersionForReplication",
                "s3:GetObjectVersionAcl",
                "s3:GetObjectVersionTagging",
                *(["s3:GetObjectRetention", "s3:GetObjectLegalHold"] if locked else []),
            ],
            originals,
        )
        self._allow(
            [
                "s3:ReplicateObject",
                "s3:ReplicateTags",
                *(["s3:ReplicateDelete"] if copies.deletions else []),
                *(["s3:ObjectOwnerOverrideToBucketOwner"] if copies.account else []),
            ],
            targets,
        )
        through, more = _through_s3(self, copies.region), copies.key_condition
        self._allow(["kms:Encrypt", "kms:GenerateDataKey"], copies.key_arn, conditions={**through, **more})
        acknowledge_resource(
            self._role,
            originals,
            because="which versions there will be is not known; what is copied is named",
        )
        acknowledge_resource(
            self._role,
            targets,
            because="which versions there will be is not known; the replica's place is named",
        )
        if more:
            acknowledge_resource(
                self._role,
                copies.key_arn,
                because="the second region's key has no id known here; the condition names its alias",
            )

    def _allow(
        self, actions: list[str], resource: str, *, conditions: Mapping[str, Any] | None = None
    ) -> None:
        self._role.add_to_policy(
            iam.PolicyStatement(actions=actions, resources=[resource], conditions=conditions)
        )


def _rule(copies: Copies, *, priority: int) -> s3.CfnBucket.ReplicationRuleProperty:
    destination = s3.CfnBucket.ReplicationDestinationProperty(
        bucket=copies.bucket_arn,
        encryption_configuration=s3.CfnBucket.EncryptionConfigurationProperty(replica_kms_key_id=copies.key),
        account=copies.account,
        access_control_translation=s3.CfnBucket.AccessControlTranslationProperty(owner="Destination")
        if copies.account
        else None,
    )
    return s3.CfnBucket.ReplicationRuleProperty(
        id=copies.rule,
        status="Enabled",
        priority=priority,
        filter=s3.CfnBucket.ReplicationRuleFilterProperty(prefix=copies.prefix),
        delete_marker_replication=s3.CfnBucket.DeleteMarkerReplicationProperty(
            status="Enabled" if copies.deletions else "Disabled"
        ),
        source_selection_criteria=s3.CfnBucket.SourceSelectionCriteriaProperty(
            sse_kms_encrypted_objects=s3.CfnBucket.SseKmsEncryptedObjectsProperty(status="Enabled")
        ),
        destination=destination,
    )


def _through_s3(scope: Construct, region: str) -> dict[str, dict[str, str]]:
    return {"StringEquals": {"kms:ViaService": f"s3.{region}.{cdk.Stack.of(scope).url_suffix}"}}


def _s3_for_this_account(scope: Construct) -> iam.ServicePrincipal:
    return iam.ServicePrincipal(
        "s3.amazonaws.com",
        conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(scope).account}},
    )
