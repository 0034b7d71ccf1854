"""Who may remove what was deleted, and when it happens."""

from tests.stacks.templates import Assembly

RULE = "AWS::Events::Rule"


def test_its_role_deletes_no_version_and_nothing_sealed(dev: Assembly) -> None:
    (policy,) = dev.service.all("AWS::IAM::Policy", id_starts="CleanupGcTaskRole")
    statements = policy["PolicyDocument"]["Statement"]
    assert [(each["Effect"], each["Action"]) for each in statements] == [
        ("Allow", "rds-db:connect"),
        ("Allow", "s3:ListBucket"),
        ("Allow", "s3:DeleteObject"),
        ("Deny", "s3:DeleteObject"),
    ]
    assert "/mlflow_server" in str(statements[0]["Resource"])
    assert "sealed/*" in str(statements[3]["Resource"])


def test_nothing_starts_it_unless_it_is_configured(dev: Assembly) -> None:
    assert dev.service.all(RULE, id_starts="Cleanup") == []


def test_the_task_that_erases_deletes_no_object_and_writes_none(dev: Assembly) -> None:
    statements = dev.service.statements(id_starts="CleanupEraseTaskRole")
    assert [(each["Effect"], each["Action"]) for each in statements] == [
        ("Allow", "rds-db:connect"),
        ("Allow", ["s3:ListBucket", "s3:ListBucketVersions"]),
        ("Allow", "s3:GetObject"),
        ("Allow", "kms:Decrypt"),
    ]
    assert "/mlflow_server" in str(statements[0]["Resource"])
    read = str(statements[2]["Resource"])
    assert "erasures/*" in read
    assert "sealed/*" in read
