"""A second copy of what is sealed, in a bucket that somebody else keeps."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.config import SealedReplicaConfig


class SealedReplica(Construct):
    """Replication of what is sealed, and of nothing else, under a key of the copies' own.

    Deletions are not replicated: what break-glass removes here stays there. S3 takes a role for it that may
    read what is sealed, and write copies.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/replication-config-for-kms-objects.html
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        bucket: s3.Bucket,
        key: kms.IKey,
        prefix: str,
        locked: bool,
        config: SealedReplicaConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        self._role = iam.Role(self, "Role", assumed_by=_s3_for_this_account(self))
        sealed, copies = bucket.arn_for_objects(f"{prefix}*"), f"{config.bucket_arn}/{prefix}*"
        self._allow(["s3:GetReplicationConfiguration", "s3:ListBucket"], bucket.bucket_arn)
        self._allow(
            [
                "s3:GetObjectVersionForReplication",
                "s3:GetObjectVersionAcl",
                "s3:GetObjectVersionTagging",
                *(["s3:GetObjectRetention", "s3:GetObjectLegalHold"] if locked else []),
            ],
            sealed,
        )
        self._allow(
            [
                "s3:ReplicateObject",
                "s3:ReplicateTags",
                *(["s3:ObjectOwnerOverrideToBucketOwner"] if config.account else []),
            ],
            copies,
        )
        self._allow(["kms:Decrypt"], key.key_arn, through_s3_of=cdk.Stack.of(self).region)
        self._allow(
            ["kms:Encrypt", "kms:GenerateDataKey"], config.key_arn, through_s3_of=config.key_arn.split(":")[3]
        )
        acknowledge_resource(
            self._role, sealed, because="which versions there will be is not known; what is sealed is named"
        )
        acknowledge_resource(
            self._role,
            copies,
            because="which versions there will be is not known; the replica's place is named",
        )
        configuration = bucket.node.default_child
        assert isinstance(configuration, s3.CfnBucket)  # noqa: S101
        configuration.replication_configuration = _configuration(
            role=self._role.role_arn, prefix=prefix, config=config
        )

    def _allow(self, actions: list[str], resource: str, *, through_s3_of: str | None = None) -> None:
        suffix = cdk.Stack.of(self).url_suffix
        through = {"StringEquals": {"kms:ViaService": f"s3.{through_s3_of}.{suffix}"}}
        self._role.add_to_policy(
            iam.PolicyStatement(
                actions=actions, resources=[resource], conditions=through if through_s3_of else None
            )
        )


def _configuration(*, role: str, prefix: str, config: SealedReplicaConfig) -> Any:
    destination = s3.CfnBucket.ReplicationDestinationProperty(
        bucket=config.bucket_arn,
        encryption_configuration=s3.CfnBucket.EncryptionConfigurationProperty(
            replica_kms_key_id=config.key_arn
        ),
        account=config.account,
        access_control_translation=s3.CfnBucket.AccessControlTranslationProperty(owner="Destination")
        if config.account
        else None,
    )
    rule = s3.CfnBucket.ReplicationRuleProperty(
        id="Sealed",
        status="Enabled",
        priority=1,
        filter=s3.CfnBucket.ReplicationRuleFilterProperty(prefix=prefix),
        delete_marker_replication=s3.CfnBucket.DeleteMarkerReplicationProperty(status="Disabled"),
        source_selection_criteria=s3.CfnBucket.SourceSelectionCriteriaProperty(
            sse_kms_encrypted_objects=s3.CfnBucket.SseKmsEncryptedObjectsProperty(status="Enabled")
        ),
        destination=destination,
    )
    return s3.CfnBucket.ReplicationConfigurationProperty(role=role, rules=[rule])


def _s3_for_this_account(scope: Construct) -> iam.ServicePrincipal:
    return iam.ServicePrincipal(
        "s3.amazonaws.com",
        conditions={"StringEquals": {"aws:SourceAccount": cdk.Stack.of(scope).account}},
    )
