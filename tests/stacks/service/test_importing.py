"""The task that imports reads archives, writes as the schema's owner, and may do nothing else."""

from __future__ import annotations

from tests.stacks.templates import Assembly


def test_its_role_reads_archives_and_signs_in_as_the_owner_only(either: Assembly) -> None:
    allowed = [each for each in either.service.allowed() if each[0].startswith("ImportTaskRole")]
    assert {action for _, action, _ in allowed} == {"s3:GetObject", "kms:Decrypt", "rds-db:connect"}
    (archives,) = (str(resource) for _, action, resource in allowed if action == "s3:GetObject")
    assert "imports/*" in archives
    assert "mlflow_migrator" in str([each for each in allowed if each[1] == "rds-db:connect"])


def test_its_operator_finds_it(either: Assembly) -> None:
    assert '"command":"import"' in str(either.service.outputs["OperationImport"]["Value"])
