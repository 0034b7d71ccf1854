"""The bucket of models and run artifacts."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.config import ArtifactsConfig, SealedReplicaConfig
from stacks.foundation.replication import Copies, Replication
from stacks.kept_bucket import KeptBucket
from stacks.keys import encryption_key
from stacks.recovery.replica import Replica
from stacks.recovery.stack import MlflowRecovery

CANARY_MODELS = "smoke-canary-"
"""What the names of the canary's models begin with, and so the places of their sealed copies."""

ERASURES = "erasures"
"""Below the prefix: where requests of erasures and their certificates are."""


class ArtifactStore(Construct):
    """A bucket whose objects are evidence: encrypted with one key, versioned, and never destroyed.

    Only the break-glass role may delete object versions, and nobody if there is none. An object cannot be
    written under another key. What is overwritten or deleted stays recoverable for a configured time.
    Below `sealed/`, only the server writes, and nobody deletes; below `erasures/`, only the break-glass role.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        access_logs: s3.IBucket,
        server_role: iam.Role,
        pages: str,
        recovery: MlflowRecovery | None,
        config: ArtifactsConfig,
    ) -> None:
        """`pages` is the URL of the UI, whose pages read what the server sends a browser to S3 for."""
        super().__init__(scope, construct_id)
        self.key = encryption_key(self, "Key", arn=config.key_arn, description="Artifacts of MLflow on AWS")
        self.bucket = KeptBucket(
            self,
            "Bucket",
            key=self.key,
            config=config,
            cors=[s3.CorsRule(allowed_methods=[s3.HttpMethods.GET], allowed_origins=[pages])],
            server_access_logs_bucket=access_logs,
            server_access_logs_prefix="artifacts/",
            # One folder a day: a query of one day reads the logs of one day.
            target_object_key_format=s3.TargetObjectKeyFormat.partitioned_prefix(
                s3.PartitionDateSource.EVENT_TIME
            ),
            metrics=[s3.BucketMetrics(id="EntireBucket")] if config.request_metrics else None,
        )
        # What the server is told about sealing, as its environment variables.
        self.sealing = config.variables
        self._locks = config.object_lock is not None
        self._prefix = f"{config.prefix}/" if config.prefix else ""
        self._deny_other_keys()
        self._keep_what_is_sealed(server_role)
        self._keep_requests_of_erasures(config.break_glass_role_arn)
        self._allow_serving_and_sealing(server_role)
        copies = [
            *([_of_what_is_sealed(self._prefix, config.sealed_replica)] if config.sealed_replica else []),
            *([_of_everything(self._prefix, recovery.replica)] if recovery and recovery.replica else []),
        ]
        if copies:
            # Named when it copied what is sealed only; an id does not change.
            Replication(
                self,
                "SealedReplica",
                bucket=self.bucket,
                key=self.key,
                locked=config.object_lock is not None,
                copies=copies,
            )
        # Nobody needs this export any more but the service stack as it was before it took `server_role`:
        # without it, the foundation could not be deployed while that one stands.
        cdk.Stack.of(self).export_value(self.bucket.bucket_arn)

    @property
    def root(self) -> str:
        """The URL under which every artifact lives, `s3://BUCKET/` and the prefix."""
        return f"s3://{self.bucket.bucket_name}/{self._prefix}"

    @property
    def objects_arn(self) -> str:
        """The ARN of every artifact, all objects below the prefix."""
        return self.bucket.arn_for_objects(f"{self._prefix}*")

    @property
    def below_prefix(self) -> dict[str, dict[str, str]]:
        """The condition that limits a listing to artifacts; empty if they have the whole bucket."""
        return {"StringLike": {"s3:prefix": f"{self._prefix}*"}} if self._prefix else {}

    @property
    def _below_prefix_or_one_object(self) -> dict[str, dict[str, str]]:
        # Who asks for one object names no prefix, and without this permission S3 answers 403 where it would
        # say that there is none.
        return {f"{operator}IfExists": keys for operator, keys in self.below_prefix.items()}

    @property
    def sealed_arn(self) -> str:
        """The ARN of every sealed artifact: what the server copied, and whose place only it writes to."""
        return self.bucket.arn_for_objects(f"{self._prefix}sealed/*")

    def grant_read_archives(self, role: iam.Role) -> None:
        """Let a role of another stack read the archives that an import begins with, and nothing else."""
        bucket_arn = cdk.Stack.of(self).export_value(self.bucket.bucket_arn)
        archives = f"{bucket_arn}/{self._prefix}imports/*"
        role.add_to_policy(iam.PolicyStatement(actions=["s3:GetObject"], resources=[archives]))
        role.add_to_policy(iam.PolicyStatement(actions=["kms:Decrypt"], resources=[self.key.key_arn]))
        acknowledge_resource(
            role, archives, because="which archives there will be is not known; their place is named"
        )

    def grant_erasure(self, role: iam.Role) -> None:
        """Let a role see which versions there are, and read requests of erasures and manifests of seals."""
        bucket_arn = cdk.Stack.of(self).export_value(self.bucket.bucket_arn)
        documents = [f"{bucket_arn}/{self._prefix}{place}/*" for place in (ERASURES, "sealed")]
        for statement in (
            iam.PolicyStatement(
                actions=["s3:ListBucket", "s3:ListBucketVersions"],
                resources=[bucket_arn],
                conditions=self.below_prefix,
            ),
            iam.PolicyStatement(actions=["s3:GetObject"], resources=documents),
            iam.PolicyStatement(actions=["kms:Decrypt"], resources=[self.key.key_arn]),
        ):
            role.add_to_policy(statement)
        for each in documents:
            acknowledge_resource(role, each, because="their names are not known; their place is named")

    @property
    def canary_root(self) -> str:
        """Where the artifacts of the canary's runs are."""
        return f"{self.root}canary"

    def grant_canary(self, role: iam.Role) -> None:
        """Let a role write and read below `canary/`, and read the sealed copies of the canary's models."""
        bucket_arn = cdk.Stack.of(self).export_value(self.bucket.bucket_arn)
        own, sealed = (f"{self._prefix}{place}*" for place in ("canary/", f"sealed/{CANARY_MODELS}"))
        reads = [f"{bucket_arn}/{place}" for place in (own, sealed)]
        for actions, resources, conditions in (
            (["s3:ListBucket"], [bucket_arn], {"StringLike": {"s3:prefix": [own, sealed]}}),
            (["s3:GetObject"], reads, {}),
            (["s3:PutObject", "s3:DeleteObject"], reads[:1], {}),
            (["kms:Decrypt", "kms:GenerateDataKey"], [self.key.key_arn], through_s3(cdk.Stack.of(self))),
        ):
            role.add_to_policy(
                iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions)
            )
        for each in reads:
            acknowledge_resource(
                role, each, because="which runs there will be is not known; their place is named"
            )

    def grant_cleanup(self, role: iam.Role) -> None:
        """Let a role list artifacts and mark them as deleted, but for what is sealed; no version goes."""
        bucket_arn = cdk.Stack.of(self).export_value(self.bucket.bucket_arn)
        objects = f"{bucket_arn}/{self._prefix}*"
        delete = ["s3:DeleteObject"] + ["s3:GetObjectLegalHold"] * self._locks
        for statement in (
            iam.PolicyStatement(
                actions=["s3:ListBucket"], resources=[bucket_arn], conditions=self.below_prefix
            ),
            iam.PolicyStatement(actions=delete, resources=[objects]),
            iam.PolicyStatement(
                effect=iam.Effect.DENY,
                actions=["s3:DeleteObject"],
                resources=[f"{bucket_arn}/{self._prefix}sealed/*"],
            ),
        ):
            role.add_to_policy(statement)
        acknowledge_resource(
            role, objects, because="what will have been deleted is not known; what is sealed is denied"
        )

    def _allow_serving_and_sealing(self, role: iam.Role) -> None:
        """Let the server list and read artifacts, and write sealed ones, with the key for both."""
        seal = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        allow = [
            (["s3:ListBucket"], self.bucket.bucket_arn, self._below_prefix_or_one_object),
            # To end what a server that was stopped had begun; S3 has no condition for its prefix.
            (["s3:ListBucketMultipartUploads"], self.bucket.bucket_arn, {}),
            (["s3:GetObject"], self.objects_arn, {}),
            (seal + ["s3:PutObjectRetention"] * self._locks, self.sealed_arn, {}),
            (["kms:Decrypt", "kms:GenerateDataKey"], self.key.key_arn, {}),
        ]
        for actions, resource, conditions in allow:
            role.add_to_policy(
                iam.PolicyStatement(actions=actions, resources=[resource], conditions=conditions)
            )
        acknowledge_resource(
            role,
            self.objects_arn,
            because="reading every artifact is what this role is for; their keys are made by clients",
        )
        acknowledge_resource(
            role,
            self.sealed_arn,
            because="which versions there will be is not known; the place that only it writes is named",
        )

    def _keep_what_is_sealed(self, server_role: iam.Role) -> None:
        # By what stays allowed: a write that S3 learns tomorrow is refused today.
        self.bucket.deny(
            "OnlyTheServerSeals",
            not_actions=["s3:GetObject*", "s3:InitiateReplication", "s3:DeleteObjectVersion"],
            resource=self.sealed_arn,
            conditions={"ArnNotEquals": {"aws:PrincipalArn": server_role.role_arn}},
        )
        self.bucket.deny(
            "NobodyDeletesSealed",
            "s3:DeleteObject",
            "s3:DeleteObjectTagging",
            "s3:DeleteObjectVersionTagging",
            "s3:BypassGovernanceRetention",
            resource=self.sealed_arn,
        )

    def _keep_requests_of_erasures(self, break_glass_role: str | None) -> None:
        # By what stays allowed, as for seals. Without such a role nobody writes there.
        unless = {"ArnNotEquals": {"aws:PrincipalArn": break_glass_role}} if break_glass_role else {}
        self.bucket.deny(
            "OnlyBreakGlassErases",
            not_actions=["s3:GetObject*", "s3:InitiateReplication"],
            resource=self.bucket.arn_for_objects(f"{self._prefix}{ERASURES}/*"),
            conditions=unless,
        )

    def _deny_other_keys(self) -> None:
        """Refuse an upload that names an encryption other than the bucket's own; most name none."""
        algorithm, key = "s3:x-amz-server-side-encryption", "s3:x-amz-server-side-encryption-aws-kms-key-id"
        customer_key = "s3:x-amz-server-side-encryption-customer-algorithm"
        # Both "named" and "other": without "named", and also with `…IfExists`, IAM takes a missing header
        # as a match, and would refuse every plain upload.
        self.bucket.deny(
            "OnlyKms",
            "s3:PutObject",
            conditions={"Null": {algorithm: "false"}, "StringNotEquals": {algorithm: "aws:kms"}},
        )
        self.bucket.deny(
            "OnlyOurKey",
            "s3:PutObject",
            conditions={"Null": {key: "false"}, "StringNotEquals": {key: self.key.key_arn}},
        )
        # KMS without a key means the account's default key, not the bucket's.
        self.bucket.deny(
            "OnlyNamedKey",
            "s3:PutObject",
            conditions={"StringEquals": {algorithm: "aws:kms"}, "Null": {key: "true"}},
        )
        self.bucket.deny("NoCustomerKey", "s3:PutObject", conditions={"Null": {customer_key: "false"}})


def through_s3(stack: cdk.Stack) -> dict[str, dict[str, str]]:
    """The condition that a key is used by S3 for its caller, and not by the caller itself."""
    return {"StringEquals": {"kms:ViaService": f"s3.{stack.region}.{stack.url_suffix}"}}


def _of_everything(prefix: str, replica: Replica) -> Copies:
    """All artifacts; the key is named by its alias, since an id is not known before it exists."""
    return Copies(
        rule="Everything",
        prefix=prefix,
        bucket_arn=replica.bucket_arn,
        key=replica.key_alias_arn,
        key_arn=replica.any_key_arn,
        region=replica.region,
        key_condition={"ForAnyValue:StringEquals": {"kms:ResourceAliases": replica.key_alias}},
        deletions=True,
    )


def _of_what_is_sealed(prefix: str, config: SealedReplicaConfig) -> Copies:
    return Copies(
        rule="Sealed",
        prefix=f"{prefix}sealed/",
        bucket_arn=config.bucket_arn,
        key=config.key_arn,
        key_arn=config.key_arn,
        region=config.key_arn.split(":")[3],
        account=config.account,
    )
