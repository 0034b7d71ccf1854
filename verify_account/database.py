"""Checks of the RDS instance."""

from __future__ import annotations

from typing import Any

from verify_account.check import CheckResult, Clients, Outputs


def instance(clients: Clients, outputs: Outputs) -> list[CheckResult]:
    """The database is private, encrypted, backed up, and reached with TLS and IAM tokens."""
    found = describe(clients, outputs)
    group = found["DBParameterGroups"][0]["DBParameterGroupName"]
    pages = clients("rds").get_paginator("describe_db_parameters").paginate(DBParameterGroupName=group)
    parameters = {
        each["ParameterName"]: each.get("ParameterValue") for page in pages for each in page["Parameters"]
    }
    tls = parameters.get("rds.force_ssl")
    secret = found.get("MasterUserSecret") or {}
    return [
        CheckResult("the database accepts IAM tokens", found["IAMDatabaseAuthenticationEnabled"], found),
        CheckResult(
            "the database is encrypted", found["StorageEncrypted"] and bool(found["KmsKeyId"]), found
        ),
        CheckResult("the database is not public", not found["PubliclyAccessible"], found),
        CheckResult("backups are kept for 7 days or more", found["BackupRetentionPeriod"] >= 7, found),
        CheckResult("the database requires TLS", tls == "1", tls),
        CheckResult("RDS keeps the administrator's password", secret.get("SecretStatus") == "active", secret),
    ]


def describe(clients: Clients, outputs: Outputs) -> dict[str, Any]:
    """The instance at the endpoint that the outputs name.

    Raises:
        LookupError: the account has none there.
    """
    endpoint = outputs["DatabaseEndpoint"]
    for page in clients("rds").get_paginator("describe_db_instances").paginate():
        for each in page["DBInstances"]:
            at: dict[str, Any] = each.get("Endpoint", {})
            if f"{at.get('Address')}:{at.get('Port')}" == endpoint:
                return dict(each)
    raise LookupError(f"no RDS instance at {endpoint}, the stack's output DatabaseEndpoint")
