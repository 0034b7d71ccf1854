"""Checks of the database: an RDS instance, or an Aurora cluster and its instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from verify_account.account import Account, Check
from verify_account.templates import agrees

_FEWEST_DAYS = 7


def database(account: Account) -> dict[str, Any]:
    """The instance or cluster at the endpoint that the outputs name.

    Raises:
        LookupError: the account has none there.
    """
    endpoint = account.outputs["DatabaseEndpoint"]
    for each in account.ask("rds", "describe_db_instances")["DBInstances"]:
        at = each.get("Endpoint", {})
        alone = not each.get("DBClusterIdentifier")
        if alone and f"{at.get('Address')}:{at.get('Port')}" == endpoint:
            return dict(each)
    for each in account.ask("rds", "describe_db_clusters")["DBClusters"]:
        if f"{each.get('Endpoint')}:{each.get('Port')}" == endpoint:
            return dict(each)
    raise LookupError(f"no database at {endpoint}, the stack's output DatabaseEndpoint")


def _stated(account: Account) -> Mapping[str, Any]:
    """What the stack says of the cluster, or of the instance on its own."""
    clusters = account.of_type("AWS::RDS::DBCluster")
    return (clusters or account.of_type("AWS::RDS::DBInstance"))[0].properties


def _cluster(found: dict[str, Any]) -> str:
    """The cluster's name, or nothing for an instance on its own."""
    return str(found.get("DBClusterIdentifier") or "")


def _instances(account: Account) -> list[dict[str, Any]]:
    """Every instance that holds the data: the database itself, its readers and its replicas."""
    found = database(account)
    members = {each["DBInstanceIdentifier"] for each in found.get("DBClusterMembers", [])}
    members |= {found.get("DBInstanceIdentifier", "")}
    return [
        each
        for each in account.ask("rds", "describe_db_instances")["DBInstances"]
        if each.get("DBInstanceIdentifier") in members
        or each.get("ReadReplicaSourceDBInstanceIdentifier") in members - {""}
    ]


def _parameters(account: Account) -> dict[str, str]:
    found = database(account)
    if _cluster(found):
        answer = account.ask(
            "rds",
            "describe_db_cluster_parameters",
            DBClusterParameterGroupName=found["DBClusterParameterGroup"],
        )
    else:
        group = found["DBParameterGroups"][0]["DBParameterGroupName"]
        answer = account.ask("rds", "describe_db_parameters", DBParameterGroupName=group)
    return {each["ParameterName"]: each.get("ParameterValue") for each in answer["Parameters"]}


def _iam(account: Account) -> tuple[bool, object]:
    on = database(account).get("IAMDatabaseAuthenticationEnabled")
    return on is True, f"IAMDatabaseAuthenticationEnabled is {on}"


def _encrypted(account: Account) -> tuple[bool, object]:
    found = database(account)
    told = {key: found.get(key) for key in ("StorageEncrypted", "KmsKeyId")}
    stated = _stated(account)
    # Of a restored instance, the snapshot decides.
    restored = "DBSnapshotIdentifier" in stated
    agreed = restored or agrees(stated.get("KmsKeyId"), found.get("KmsKeyId"))
    return found.get("StorageEncrypted") is True and agreed, told


def _private(account: Account) -> tuple[bool, object]:
    told = {
        each["DBInstanceIdentifier"]: f"PubliclyAccessible is {each['PubliclyAccessible']}"
        for each in _instances(account)
    }
    return bool(told) and all("False" in each for each in told.values()), told


def _protected(account: Account) -> tuple[bool, object]:
    on = database(account).get("DeletionProtection")
    wanted = _stated(account).get("DeletionProtection", False)
    return on is True or not agrees(True, wanted), f"DeletionProtection is {on}, configured {wanted}"


def _backups(account: Account) -> tuple[bool, object]:
    days = database(account)["BackupRetentionPeriod"]
    return days >= _FEWEST_DAYS, f"{days} days"


def _tls(account: Account) -> tuple[bool, object]:
    value = _parameters(account).get("rds.force_ssl")
    return value == "1", f"rds.force_ssl is {value}"


def _parameter_group(account: Account) -> tuple[bool, object]:
    found = database(account)
    kind = "AWS::RDS::DBClusterParameterGroup" if _cluster(found) else "AWS::RDS::DBParameterGroup"
    ours = {each.physical_id for each in account.of_type(kind)}
    live = found.get("DBClusterParameterGroup") or found["DBParameterGroups"][0]["DBParameterGroupName"]
    return live in ours, live


def _secret(account: Account) -> tuple[bool, object]:
    secret = database(account).get("MasterUserSecret") or {}
    return secret.get("SecretStatus") in ("active", "rotating"), secret or "no managed password"


def _shared(account: Account) -> Iterator[str]:
    """Snapshots made by hand or by a deletion: automatic ones cannot be shared."""
    found = database(account)
    kind, name = ("Cluster", _cluster(found)) if _cluster(found) else ("", found["DBInstanceIdentifier"])
    operation = f"describe_db_{'cluster_' if kind else ''}snapshot"
    own = {f"DB{kind or 'Instance'}Identifier": name}
    for each in account.ask("rds", f"{operation}s", SnapshotType="manual", **own)[f"DB{kind}Snapshots"]:
        identifier = {f"DB{kind}SnapshotIdentifier": each[f"DB{kind}SnapshotIdentifier"]}
        result = account.ask("rds", f"{operation}_attributes", **identifier)
        for attribute in result[f"DB{kind}SnapshotAttributesResult"][f"DB{kind}SnapshotAttributes"]:
            if attribute["AttributeName"] == "restore" and attribute.get("AttributeValues"):
                yield f"{identifier} is shared with {attribute['AttributeValues']}"


def _snapshots(account: Account) -> tuple[bool, object]:
    found = list(_shared(account))
    return not found, found or "none is shared"


CHECKS = (
    Check(
        "the database accepts IAM tokens",
        _iam,
        "aws rds modify-db-instance --enable-iam-database-authentication",
    ),
    Check(
        "the database is encrypted under its own key",
        _encrypted,
        "restore a snapshot, copied under the stack's key",
    ),
    Check("the database is not public", _private, "aws rds modify-db-instance --no-publicly-accessible"),
    Check(
        "the database is protected from deletion, if so configured",
        _protected,
        "aws rds modify-db-instance --deletion-protection",
    ),
    Check(
        "backups are kept for 7 days or more",
        _backups,
        "aws rds modify-db-instance --backup-retention-period 7",
    ),
    Check("the database requires TLS", _tls, "set rds.force_ssl to 1 in the parameter group"),
    Check(
        "the database has the stack's parameters",
        _parameter_group,
        "give the database the stack's parameter group again",
    ),
    Check(
        "RDS keeps the administrator's password",
        _secret,
        "aws rds modify-db-instance --manage-master-user-password",
    ),
    Check(
        "no snapshot of the database is shared",
        _snapshots,
        "aws rds modify-db-snapshot-attribute --attribute-name restore --values-to-remove …",
    ),
)
