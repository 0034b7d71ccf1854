"""The bucket keeps what it was given, as it was given."""

from typing import Any

from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from tests.stacks.conftest import BREAK_GLASS
from tests.stacks.templates import Assembly, Properties

BUCKETS = ("ArtifactsBucket", "AccessLogsBucket")


def bucket(assembly: Assembly) -> Properties:
    return assembly.foundation.one("AWS::S3::Bucket", id_starts="ArtifactsBucket")


def policy(assembly: Assembly, bucket: str = "ArtifactsBucket") -> list[dict[str, Any]]:
    document = assembly.foundation.one("AWS::S3::BucketPolicy", id_starts=bucket)["PolicyDocument"]
    return list(document["Statement"])


def denial(assembly: Assembly, sid: str) -> dict[str, Any]:
    (statement,) = (each for each in policy(assembly) if each.get("Sid") == sid)
    assert statement["Effect"] == "Deny"
    assert statement["Principal"] == {"AWS": "*"}
    return statement


def test_artifacts_are_encrypted_with_one_key_of_ours(either: Assembly) -> None:
    (rule,) = bucket(either)["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["BucketKeyEnabled"] is True
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]["Fn::GetAtt"][0].startswith("ArtifactsKey")


def test_no_bucket_is_public_and_none_has_acls(either: Assembly) -> None:
    for name in BUCKETS:
        properties = either.foundation.one("AWS::S3::Bucket", id_starts=name)
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
        assert len(properties["PublicAccessBlockConfiguration"]) == 4
        assert properties["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_pages_of_our_own_url_may_read_and_no_others(dev: Assembly, prod: Assembly) -> None:
    for assembly in (dev, prod):
        (rule,) = bucket(assembly)["CorsConfiguration"]["CorsRules"]
        client = assembly.service.one("AWS::Cognito::UserPoolClient")
        origin = client["CallbackURLs"][0].removesuffix("/oauth2/idpresponse")
        assert rule == {"AllowedMethods": ["GET"], "AllowedOrigins": [origin]}


def test_every_bucket_is_versioned_and_outlives_its_stack(either: Assembly) -> None:
    for resource in either.foundation.resources.values():
        if resource["Type"] == "AWS::S3::Bucket":
            assert resource["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
            assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == (
                "RetainExceptOnCreate",
                "Retain",
            )


def test_every_bucket_refuses_old_tls_and_no_tls(either: Assembly) -> None:
    for name in BUCKETS:
        conditions = [each.get("Condition") for each in policy(either, name) if each["Effect"] == "Deny"]
        assert {"Bool": {"aws:SecureTransport": "false"}} in conditions
        assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in conditions


def test_nobody_may_delete_object_versions(either: Assembly) -> None:
    statement = denial(either, "OnlyBreakGlassDeletesVersions")
    assert statement["Action"] == "s3:DeleteObjectVersion"
    assert "Condition" not in statement


def test_only_a_configured_break_glass_role_may_delete_object_versions(replicated: Assembly) -> None:
    statement = denial(replicated, "OnlyBreakGlassDeletesVersions")
    assert statement["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": BREAK_GLASS}}


def test_only_the_break_glass_role_writes_requests_of_erasures_and_nobody_without_one(
    replicated: Assembly, either: Assembly
) -> None:
    for assembly, inside in ((replicated, "/team/models/erasures/*"), (either, "/erasures/*")):
        statement = denial(assembly, "OnlyBreakGlassErases")
        assert set(statement["NotAction"]) == {"s3:GetObject*", "s3:InitiateReplication"}
        assert statement["Resource"]["Fn::Join"][1][-1] == inside
    named = denial(replicated, "OnlyBreakGlassErases")["Condition"]
    assert named == {"ArnNotEquals": {"aws:PrincipalArn": BREAK_GLASS}}
    assert "Condition" not in denial(either, "OnlyBreakGlassErases")


def test_only_the_server_s_role_does_more_than_read_what_is_sealed(either: Assembly) -> None:
    statement = denial(either, "OnlyTheServerSeals")
    assert "Action" not in statement
    assert set(statement["NotAction"]) == {
        "s3:GetObject*",
        "s3:InitiateReplication",
        "s3:DeleteObjectVersion",
    }
    (role,) = (
        each for each in either.foundation.resources if each.startswith("ServerRole") and "Policy" not in each
    )
    assert statement["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": {"Fn::GetAtt": [role, "Arn"]}}}


def test_nobody_deletes_what_is_sealed_or_unlocks_it_the_server_neither(either: Assembly) -> None:
    statement = denial(either, "NobodyDeletesSealed")
    assert set(statement["Action"]) == {
        "s3:DeleteObject",
        "s3:DeleteObjectTagging",
        "s3:DeleteObjectVersionTagging",
        "s3:BypassGovernanceRetention",
    }
    assert "Condition" not in statement


def test_what_is_sealed_is_a_place_below_the_prefix(replicated: Assembly, either: Assembly) -> None:
    for sid in ("OnlyTheServerSeals", "NobodyDeletesSealed"):
        assert denial(replicated, sid)["Resource"]["Fn::Join"][1][-1] == "/team/models/sealed/*"
        assert denial(either, sid)["Resource"]["Fn::Join"][1][-1] == "/sealed/*"


def test_the_export_that_the_former_service_imports_is_still_there(either: Assembly) -> None:
    """Without it, CloudFormation refuses to update the foundation while that service stands."""
    exported = [each["Value"] for each in either.foundation.outputs.values() if "Export" in each]
    (bucket,) = (
        each
        for each in either.foundation.resources
        if each.startswith("ArtifactsBucket") and "Policy" not in each
    )
    assert {"Fn::GetAtt": [bucket, "Arn"]} in exported


def test_an_upload_cannot_name_another_encryption(either: Assembly) -> None:
    algorithm, key = "s3:x-amz-server-side-encryption", "s3:x-amz-server-side-encryption-aws-kms-key-id"
    assert denial(either, "OnlyKms")["Condition"] == {
        "Null": {algorithm: "false"},
        "StringNotEquals": {algorithm: "aws:kms"},
    }
    assert denial(either, "OnlyOurKey")["Condition"]["Null"] == {key: "false"}
    ours = denial(either, "OnlyOurKey")["Condition"]["StringNotEquals"][key]
    assert ours["Fn::GetAtt"][0].startswith("ArtifactsKey")
    assert denial(either, "OnlyNamedKey")["Condition"] == {
        "StringEquals": {algorithm: "aws:kms"},
        "Null": {key: "true"},
    }
    assert denial(either, "NoCustomerKey")["Condition"] == {
        "Null": {"s3:x-amz-server-side-encryption-customer-algorithm": "false"}
    }


def test_what_is_overwritten_expires_after_the_configured_days(dev: Assembly, prod: Assembly) -> None:
    def rule(assembly: Assembly) -> Any:
        (only,) = bucket(assembly)["LifecycleConfiguration"]["Rules"]
        return only

    assert rule(dev)["NoncurrentVersionExpiration"] == {"NoncurrentDays": 90}
    assert rule(prod)["NoncurrentVersionExpiration"] == {"NoncurrentDays": 365}
    assert rule(dev)["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert rule(dev)["ExpiredObjectDeleteMarker"] is True


def test_current_artifacts_never_expire(either: Assembly) -> None:
    for rule in bucket(either)["LifecycleConfiguration"]["Rules"]:
        assert "ExpirationInDays" not in rule
        assert "ExpirationDate" not in rule


def test_the_bucket_has_object_lock_where_the_file_says_so_and_no_retention_of_its_own(
    replicated: Assembly, either: Assembly
) -> None:
    assert bucket(replicated)["ObjectLockEnabled"] is True
    # It would lock every run's artifacts; the server locks what it seals.
    assert "ObjectLockConfiguration" not in bucket(replicated)
    assert "ObjectLockEnabled" not in bucket(either)


def test_cloudformation_turns_object_lock_on_without_replacing_the_bucket() -> None:
    """By its schema; docs/configuration.md says how to see it in a change set before it happens."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("eu-central-1", "AWS::S3::Bucket").schema
    assert "/properties/BucketName" in schema["createOnlyProperties"]
    assert "ObjectLockEnabled" in schema["properties"]
    assert "/properties/ObjectLockEnabled" not in schema["createOnlyProperties"]


def test_access_to_artifacts_is_logged_elsewhere(either: Assembly) -> None:
    logging = bucket(either)["LoggingConfiguration"]
    assert logging["DestinationBucketName"]["Ref"].startswith("AccessLogsBucket")
    assert logging["LogFilePrefix"] == "artifacts/"


def test_requests_are_counted_where_the_file_asks_for_it(dev: Assembly, prod: Assembly) -> None:
    assert bucket(prod)["MetricsConfigurations"] == [{"Id": "EntireBucket"}]
    assert "MetricsConfigurations" not in bucket(dev)
    watched = [
        {
            each["AlarmName"]
            for each in assembly.service.all("AWS::CloudWatch::Alarm")
            if "Bucket" in each["AlarmName"]
        }
        for assembly in (prod, dev)
    ]
    assert watched[0] - watched[1] != set()
    assert not any("Errors" in name or "Refusals" in name for name in watched[1])


def test_only_log_delivery_may_write_access_logs(either: Assembly) -> None:
    allowed = [each for each in policy(either, "AccessLogsBucket") if each["Effect"] == "Allow"]
    assert {each["Principal"]["Service"] for each in allowed} == {
        "logging.s3.amazonaws.com",
        "logdelivery.elasticloadbalancing.amazonaws.com",
    }
    assert {each["Action"] for each in allowed} == {"s3:PutObject"}
    assert all("aws:SourceArn" in each["Condition"]["ArnLike"] for each in allowed)


def test_access_logs_expire(dev: Assembly) -> None:
    logs = dev.foundation.one("AWS::S3::Bucket", id_starts="AccessLogsBucket")
    (rule,) = logs["LifecycleConfiguration"]["Rules"]
    assert rule["ExpirationInDays"] == 90


def test_upload_that_names_no_encryption_is_denied_by_nothing(either: Assembly) -> None:
    # A negated comparison, also with `IfExists`, matches a header that is absent: each must ask for it first.
    for statement in policy(either):
        for operator, keys in statement.get("Condition", {}).items():
            if "NotEquals" in operator and any(key.startswith("s3:x-amz") for key in keys):
                assert all(statement["Condition"]["Null"].get(key) == "false" for key in keys)
