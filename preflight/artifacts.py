"""Where what is sealed is copied to."""

from __future__ import annotations

from findings.reader import AbsentError
from preflight.subject import Answer, Probe, Subject, bad, good


def _replica(subject: Subject) -> Answer | None:
    """S3 refuses a replication to a bucket that cannot keep what it gets, and CloudFormation rolls back."""
    artifacts = subject.environment.artifacts
    if artifacts.sealed_replica is None:
        return None
    name = artifacts.sealed_replica.bucket_arn.rsplit(":", 1)[-1]
    try:
        versioning = subject.ask("s3", "get_bucket_versioning", Bucket=name).get("Status", "off")
    except AbsentError as error:
        return bad(f"{name}: {error.code}", "correct artifacts.sealed_replica.bucket_arn, or make the bucket")
    if versioning != "Enabled":
        return bad(f"versioning of {name} is {versioning}", "aws s3api put-bucket-versioning: Enabled")
    if artifacts.object_lock is not None and not _locks(subject, name):
        return bad(
            f"{name} has no Object Lock, and artifacts.object_lock is set",
            "aws s3api put-object-lock-configuration: ObjectLockEnabled=Enabled",
        )
    return good(f"{name}, versioned")


def _locks(subject: Subject, bucket: str) -> bool:
    try:
        answer = subject.ask("s3", "get_object_lock_configuration", Bucket=bucket)
    except AbsentError:
        return False
    return bool(answer["ObjectLockConfiguration"].get("ObjectLockEnabled") == "Enabled")


PROBES = (Probe("the bucket for copies of what is sealed can keep them", _replica),)
