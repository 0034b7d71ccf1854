"""Checks of the bucket of artifacts, and of the one for access logs."""

from __future__ import annotations

import re
from typing import Any

from findings.reader import AbsentError
from verify_account.account import Account, Check, listed
from verify_account.policies import bucket_statements
from verify_account.templates import agrees

_BLOCKS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")


def _each_bucket(account: Account, operation: str) -> dict[str, Any]:
    names = [each.physical_id for each in account.of_type("AWS::S3::Bucket")]
    return {name: account.ask("s3", operation, Bucket=name) for name in {*names, _bucket(account)}}


def _bucket(account: Account) -> str:
    return account.outputs["ArtifactBucket"]


def _versioned(account: Account) -> tuple[bool, object]:
    live = {name: each.get("Status") for name, each in _each_bucket(account, "get_bucket_versioning").items()}
    return set(live.values()) == {"Enabled"}, live


def _encrypted(account: Account) -> tuple[bool, object]:
    answer = account.ask("s3", "get_bucket_encryption", Bucket=_bucket(account))
    rules = answer["ServerSideEncryptionConfiguration"]["Rules"]
    default = rules[0]["ApplyServerSideEncryptionByDefault"]
    return (
        len(rules) == 1
        and default["SSEAlgorithm"] == "aws:kms"
        and default.get("KMSMasterKeyID") == account.outputs["ArtifactKeyArn"]
        and rules[0]["BucketKeyEnabled"]
    ), rules


def _private(account: Account) -> tuple[bool, object]:
    try:
        answers = _each_bucket(account, "get_public_access_block")
    except AbsentError as error:
        return False, str(error)
    live = {name: each["PublicAccessBlockConfiguration"] for name, each in answers.items()}
    return all(each.get(block) is True for each in live.values() for block in _BLOCKS), live


def _no_grants(account: Account) -> tuple[bool, object]:
    answers = _each_bucket(account, "get_bucket_acl")
    foreign = {
        name: grants
        for name, each in answers.items()
        if (
            grants := [
                grant["Grantee"]
                for grant in each["Grants"]
                if grant["Grantee"].get("ID") != each["Owner"]["ID"]
            ]
        )
    }
    return not foreign, foreign or "the owner's alone"


def _owned(account: Account) -> tuple[bool, object]:
    answers = _each_bucket(account, "get_bucket_ownership_controls")
    live = {name: each["OwnershipControls"]["Rules"] for name, each in answers.items()}
    return all(each == [{"ObjectOwnership": "BucketOwnerEnforced"}] for each in live.values()), live


def _denies(account: Account) -> list[Any]:
    return [each for each in bucket_statements(account, _bucket(account)) if each["Effect"] == "Deny"]


def _everybody(statement: Any) -> bool:
    return statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})


def _tls(account: Account) -> tuple[bool, object]:
    refusing = [
        each
        for each in _denies(account)
        if _everybody(each)
        and "s3:*" in listed(each.get("Action"))
        and each.get("Condition")
        in ({"Bool": {"aws:SecureTransport": "false"}}, {"Bool": {"aws:SecureTransport": False}})
    ]
    return bool(refusing), refusing or "no statement refuses plain HTTP to everybody"


def _immutable(account: Account) -> tuple[bool, object]:
    refusing = [
        each
        for each in _denies(account)
        if _everybody(each)
        and "s3:DeleteObjectVersion" in listed(each.get("Action"))
        and set(each.get("Condition", {})) <= {"ArnNotEquals"}
    ]
    return bool(refusing), refusing or "no statement refuses it to everybody"


def _sealed(account: Account) -> tuple[bool, object]:
    """Two statements for everybody about one place: any write but the server's role's, and any deletion."""
    (role,) = (each for each in account.of_type("AWS::IAM::Role") if each.logical_id.startswith("ServerRole"))
    reading = re.compile(r"s3:(GetObject.*|InitiateReplication|DeleteObjectVersion)", re.IGNORECASE)
    refusing = [each for each in _denies(account) if _everybody(each)]
    writes = {
        place
        for each in refusing
        if "NotAction" in each
        and all(reading.fullmatch(action) for action in listed(each["NotAction"]))
        and _unless(each).endswith(f":role/{role.physical_id}")
        for place in listed(each["Resource"])
    }
    deletions = {
        place
        for each in refusing
        if "s3:DeleteObject" in listed(each.get("Action")) and not each.get("Condition")
        for place in listed(each["Resource"])
    }
    kept = sorted(place for place in writes & deletions if place.endswith("sealed/*"))
    return bool(kept), kept or "no statements refuse both to everybody"


def _unless(statement: Any) -> str:
    """The one principal that a statement leaves out; nothing if it leaves out another, or several."""
    condition = statement.get("Condition", {})
    found = listed(condition.get("ArnNotEquals", {}).get("aws:PrincipalArn"))
    return str(found[0]) if len(found) == 1 and set(condition) == {"ArnNotEquals"} else ""


def _lifecycle(account: Account) -> list[Any]:
    answer = account.ask("s3", "get_bucket_lifecycle_configuration", Bucket=_bucket(account))
    return list(answer["Rules"])


def _kept(account: Account) -> tuple[bool, object]:
    rules = [each for each in _lifecycle(account) if each["Status"] == "Enabled"]
    removing = [
        each
        for each in rules
        if not set(each.get("Expiration", {})) <= {"ExpiredObjectDeleteMarker"}
        or each.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays", 7) < 7
    ]
    return not removing, removing or f"{len(rules)} rules, none for current versions"


def _tidy(account: Account) -> tuple[bool, object]:
    rules = _lifecycle(account)
    return any(
        "AbortIncompleteMultipartUpload" in each and each["Status"] == "Enabled" for each in rules
    ), rules


def _logged(account: Account) -> tuple[bool, object]:
    live = account.ask("s3", "get_bucket_logging", Bucket=_bucket(account)).get("LoggingEnabled", {})
    ours = {each.physical_id for each in account.of_type("AWS::S3::Bucket")} - {_bucket(account)}
    return live.get("TargetBucket") in ours, live or "no logging"


def _copied_as_deployed(account: Account) -> tuple[bool, object]:
    (bucket,) = (each for each in account.of_type("AWS::S3::Bucket") if each.physical_id == _bucket(account))
    wanted = bucket.properties.get("ReplicationConfiguration")
    code = account.error_of("s3", "get_bucket_replication", Bucket=_bucket(account))
    if wanted is None or code:
        return (
            wanted is None and code == "ReplicationConfigurationNotFoundError",
            code or "objects are copied",
        )
    live = account.ask("s3", "get_bucket_replication", Bucket=_bucket(account))["ReplicationConfiguration"]
    rules = [{key: each for key, each in rule.items() if key != "Id"} for rule in wanted["Rules"]]
    return agrees({"Role": wanted["Role"], "Rules": rules}, live), live


CHECKS = (
    Check("artifacts and access logs are versioned", _versioned, "aws s3api put-bucket-versioning: Enabled"),
    Check(
        "artifacts are encrypted under their own key, with a bucket key",
        _encrypted,
        "aws s3api put-bucket-encryption with the key in the output ArtifactKeyArn",
    ),
    Check(
        "the buckets block all public access", _private, "aws s3api put-public-access-block, all four true"
    ),
    Check("no access list opens a bucket", _no_grants, "aws s3api put-bucket-acl --acl private"),
    Check(
        "the buckets' owner owns their objects",
        _owned,
        "aws s3api put-bucket-ownership-controls: BucketOwnerEnforced",
    ),
    Check("the bucket refuses requests without TLS", _tls, "restore the bucket's policy"),
    Check("nobody deletes object versions", _immutable, "restore the bucket's policy"),
    Check(
        "only the server writes what is sealed, and nobody deletes it",
        _sealed,
        "restore the bucket's policy, and look at what was written meanwhile",
    ),
    Check(
        "no lifecycle rule removes current artifacts",
        _kept,
        "remove the rule: aws s3api put-bucket-lifecycle-configuration",
    ),
    Check("incomplete uploads are removed", _tidy, "restore the bucket's lifecycle rule"),
    Check(
        "access to the bucket is logged", _logged, "aws s3api put-bucket-logging to the stacks' log bucket"
    ),
    Check(
        "artifacts are copied where the stacks say, and nowhere else",
        _copied_as_deployed,
        "aws s3api delete-bucket-replication, and deploy again if what is sealed shall be copied",
    ),
)
