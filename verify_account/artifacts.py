"""Checks of the bucket of artifacts."""

from __future__ import annotations

import json

from verify_account.check import CheckResult, Clients, Outputs, listed


def bucket(clients: Clients, outputs: Outputs) -> list[CheckResult]:
    """Artifacts are encrypted, versioned and private."""
    s3, name = clients("s3"), outputs["ArtifactBucket"]
    encryption = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"][0]
    default = encryption["ApplyServerSideEncryptionByDefault"]
    blocked = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    policy = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])
    owner = s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"]
    lifecycle = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    denies = [each for each in policy["Statement"] if each["Effect"] == "Deny"]
    versioning = s3.get_bucket_versioning(Bucket=name).get("Status")
    return [
        CheckResult("artifacts are versioned", versioning == "Enabled", versioning),
        CheckResult(
            "artifacts are encrypted under their own key, with a bucket key",
            default["SSEAlgorithm"] == "aws:kms"
            and default.get("KMSMasterKeyID") == outputs["ArtifactKeyArn"]
            and encryption["BucketKeyEnabled"],
            encryption,
        ),
        CheckResult(
            "the bucket blocks all public access", all(blocked.values()) and len(blocked) == 4, blocked
        ),
        CheckResult(
            "the bucket refuses requests without TLS",
            any("aws:SecureTransport" in json.dumps(each.get("Condition", {})) for each in denies),
            policy,
        ),
        CheckResult(
            "nobody deletes object versions",
            any("s3:DeleteObjectVersion" in listed(each["Action"]) for each in denies),
            policy,
        ),
        CheckResult(
            "the bucket's owner owns its objects",
            owner[0]["ObjectOwnership"] == "BucketOwnerEnforced",
            owner,
        ),
        CheckResult(
            "incomplete uploads are removed",
            any("AbortIncompleteMultipartUpload" in each for each in lifecycle),
            lifecycle,
        ),
        CheckResult(
            "access to the bucket is logged",
            "LoggingEnabled" in s3.get_bucket_logging(Bucket=name),
            "no logging",
        ),
    ]
