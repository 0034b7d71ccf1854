"""Real DB instances and snapshots, where MiniStack keeps records: a PostgreSQL each, and copies of its files.

Like `adapters`, they replace functions of modules in this process only.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from local.emulator.databases import Databases

_AVAILABLE, _CREATING, _FAILED = "available", "creating", "failed"


def complete_db_instances(databases: Databases, *, host: str) -> None:
    """An RDS instance from CloudFormation has an address that does not resolve, no secret, and no database.

    Its endpoint becomes a front door's. One from a snapshot gets what the snapshot holds, and a port of its
    own, since every front door is on this machine; any other one is the platform's PostgreSQL, on the
    template's port. With ManageMasterUserPassword, RDS creates a secret: so does this.
    """
    from ministack.services import rds
    from ministack.services.cloudformation import provisioners, stacks

    handler = provisioners._RESOURCE_HANDLERS["AWS::RDS::DBInstance"]
    make, update, render = provisioners._rds_db_instance_create, handler["update"], rds._instance_xml
    delete, blocks = provisioners._rds_db_instance_delete, stacks._runs_on_worker_thread

    def created(logical_id: str, props: dict[str, Any], stack_name: str) -> tuple[str, dict[str, Any]]:
        name = props.get("DBInstanceIdentifier")
        if name in rds._instances:
            raise ValueError(f"DB Instance already exists: {name}")
        snapshot = props.get("DBSnapshotIdentifier")
        source = _snapshot(snapshot) if snapshot else {}
        identifier, _ = make(logical_id, {**_of_snapshot(source), **props}, stack_name)
        instance = rds._instances[identifier]
        instance["Endpoint"]["Address"] = host
        instance.pop("LatestRestorableTime", None)
        if source:
            instance["Endpoint"]["Port"] = databases.open(instance["DbiResourceId"])
            databases.restore(instance["DbiResourceId"], source["DBSnapshotArn"])
        if _is_true(props.get("ManageMasterUserPassword")):
            _make_secret(instance, key=(props.get("MasterUserSecret") or {}).get("KmsKeyId", ""))
        if not source:
            databases.create(
                instance["DbiResourceId"],
                administrator=instance["MasterUsername"],
                password=instance["_MasterUserPassword"],
                database=instance["DBName"],
            )
        elif "MasterUserSecret" in instance:
            _set_password(databases, instance)
        return identifier, complete(instance, props)

    def updated(physical_id: str, old: Any, new: dict[str, Any], *rest: Any) -> tuple[str, dict[str, Any]]:
        identifier, _ = update(physical_id, old, new, *rest)
        return identifier, complete(rds._instances[identifier], new)

    def complete(instance: dict[str, Any], props: dict[str, Any]) -> dict[str, Any]:
        instance["CopyTagsToSnapshot"] = _is_true(props.get("CopyTagsToSnapshot"))
        instance["EnabledCloudwatchLogsExports"] = list(props.get("EnableCloudwatchLogsExports") or [])
        attributes = provisioners._rds_db_instance_attrs(instance)
        if "MasterUserSecret" in instance:
            attributes["MasterUserSecret.SecretArn"] = instance["MasterUserSecret"]["SecretArn"]
        return dict(attributes)

    def deleted(physical_id: str, props: Any) -> None:
        instance = rds._instances.get(physical_id) or {}
        delete(physical_id, props)
        databases.end(instance.get("DbiResourceId", ""))

    def rendered(instance: dict[str, Any]) -> str:
        secret = instance.get("MasterUserSecret")
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in (secret or {}).items() if value)
        return str(render(instance)) + (f"<MasterUserSecret>{fields}</MasterUserSecret>" if secret else "")

    handler["create"] = provisioners._rds_db_instance_create = created
    handler["update"] = updated
    handler["delete"] = provisioners._rds_db_instance_delete = deleted
    rds._instance_xml = rendered
    stacks._runs_on_worker_thread = lambda kind: kind == "AWS::RDS::DBInstance" or blocks(kind)


def stop_and_start_real_instances(databases: Databases) -> None:
    """StopDBInstance changes a record: here clients lose their connections, and get none until a start."""
    from ministack.services import rds

    def also(action: str, *, is_open: bool) -> Callable[[Any], Any]:
        handle = rds._ACTION_MAP[action]

        def handled(params: Any) -> Any:
            answer = handle(params)
            instance = rds._instances.get(rds._p(params, "DBInstanceIdentifier")) or {}
            resource_id = instance.get("DbiResourceId", "")
            if answer[0] < 400 and resource_id in databases:
                databases.set_open(resource_id, is_open=is_open)
            return answer

        return handled

    rds._ACTION_MAP["StopDBInstance"] = also("StopDBInstance", is_open=False)
    rds._ACTION_MAP["StartDBInstance"] = also("StartDBInstance", is_open=True)


def take_real_snapshots(databases: Databases) -> None:
    """A snapshot is a record: here it is a copy of the database, and takes its time as in AWS.

    And it has its instance's tags only if the instance is to copy them.
    """
    from ministack.services import rds

    record, delete_snapshot, delete = (
        rds._create_snapshot_internal,
        rds._delete_db_snapshot,
        rds._delete_db_instance_impl,
    )

    def created(name: str, instance: dict[str, Any]) -> dict[str, Any]:
        snapshot: dict[str, Any] = record(name, instance)
        if not instance.get("CopyTagsToSnapshot"):
            snapshot["TagList"] = []
        if instance["DbiResourceId"] in databases:
            snapshot.update(Status=_CREATING, PercentProgress=0)
            databases.later(
                instance["DbiResourceId"],
                lambda: databases.copy(instance["DbiResourceId"], snapshot["DBSnapshotArn"]),
                lambda done: snapshot.update(
                    Status=_AVAILABLE if done else _FAILED, PercentProgress=100 if done else 0
                ),
            )
        return snapshot

    def snapshot_deleted(params: Any) -> Any:
        snapshot = rds._snapshots.get(rds._p(params, "DBSnapshotIdentifier")) or {}
        if snapshot.get("Status") == _CREATING:
            return rds._error("InvalidDBSnapshotState", "The snapshot is being created.", 400)
        answer = delete_snapshot(params)
        if snapshot.get("Status") == "deleted":
            databases.forget_copy(snapshot["DBSnapshotArn"])
        return answer

    def deleted(params: Any) -> Any:
        instance = rds._resolve_instance(rds._p(params, "DBInstanceIdentifier")) or {}
        answer = delete(params)
        if instance.get("DBInstanceStatus") == "deleting":
            databases.end(instance["DbiResourceId"])
        return answer

    rds._create_snapshot_internal = created
    rds._delete_db_instance_impl = deleted
    rds._ACTION_MAP["DeleteDBSnapshot"] = snapshot_deleted


def copy_snapshots(databases: Databases) -> None:
    """MiniStack copies no snapshot: here another region, or an account it is shared with, gets its own.

    What is encrypted needs a key of that place there, and the reader's account a permission for the former
    key: https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_CopyDBSnapshot.html
    """
    from ministack.core.responses import get_account_id, get_region, request_scope
    from ministack.services import kms, rds

    def copied(params: Any) -> Any:
        source, name, key = (
            rds._p(params, each)
            for each in ("SourceDBSnapshotIdentifier", "TargetDBSnapshotIdentifier", "KmsKeyId")
        )
        region, account = here = get_region(), get_account_id()
        if source.startswith("arn:"):
            region, account = source.split(":")[3:5]
        try:
            with request_scope(account, region):
                found = _snapshot(source)
        except ValueError as error:
            return rds._error("DBSnapshotNotFound", str(error), 404)
        if account != here[1] and here[1] not in found.get("_restorable_by", ()):
            return rds._error("DBSnapshotNotFound", f"{source} is not shared with {here[1]}", 404)
        if found["StorageEncrypted"] and (region, account) != here:
            if not key or (key.startswith("arn:") and key.split(":")[3:5] != [*here]):
                return rds._error("InvalidParameterValue", f"{source} needs a key of {here[0]}", 400)
            if here[1] not in str(kms.key_policy_for_arn(found["KmsKeyId"])):
                return rds._error("KMSKeyNotAccessibleFault", f"{found['KmsKeyId']} refuses {here[1]}", 400)
        copy = {
            **found,
            "DBSnapshotIdentifier": name,
            "DBSnapshotArn": f"arn:aws:rds:{here[0]}:{here[1]}:snapshot:{name}",
            "KmsKeyId": key or found["KmsKeyId"],
            "TagList": rds._parse_tags(params),
            "_restorable_by": [],
        }
        databases.copy_copy(found["DBSnapshotArn"], copy["DBSnapshotArn"])
        rds._snapshots[name] = copy
        action = "CopyDBSnapshot"
        told = f"<{action}Result><DBSnapshot>{rds._snapshot_xml(copy)}</DBSnapshot></{action}Result>"
        return rds._xml(200, f"{action}Response", told)

    rds._ACTION_MAP["CopyDBSnapshot"] = copied


def restore_real_instances(databases: Databases, *, host: str) -> None:
    """A restored instance is a record with defaults, and a point in time is unknown: here both are real."""
    from ministack.services import rds

    from_snapshot = rds._restore_from_snapshot

    def restored(params: Any) -> Any:
        try:
            source = _snapshot(rds._p(params, "DBSnapshotIdentifier"))
        except ValueError as error:
            return rds._error("DBSnapshotNotFound", str(error), 404)
        if source["Status"] != _AVAILABLE:
            return rds._error("InvalidDBSnapshotState", f"The snapshot is {source['Status']}.", 400)
        return begin(
            params,
            source,
            "RestoreDBInstanceFromDBSnapshot",
            lambda new: databases.restore(new, source["DBSnapshotArn"]),
        )

    def restored_to(params: Any) -> Any:
        source = rds._resolve_instance(rds._p(params, "SourceDBInstanceIdentifier")) or next(
            (
                each
                for each in rds._instances.values()
                if each["DbiResourceId"] == rds._p(params, "SourceDbiResourceId")
            ),
            None,
        )
        if source is None:
            return rds._error("DBInstanceNotFound", "The source DB instance is not found.", 404)
        wished = rds._p(params, "RestoreTime")
        moment = datetime.fromisoformat(wished).astimezone(UTC) if wished else None
        begun = databases.restorable_since(source["DbiResourceId"])
        if begun is None or (moment is not None and not begun <= moment <= datetime.now(UTC)):
            return rds._error("InvalidRestoreFault", f"Restorable from {begun} until now.", 400)
        return begin(
            {**params, "DBInstanceIdentifier": [rds._p(params, "TargetDBInstanceIdentifier")]},
            source,
            "RestoreDBInstanceToPointInTime",
            lambda new: databases.restore_to(new, source["DbiResourceId"], moment),
        )

    def begin(params: Any, source: Mapping[str, Any], action: str, restore: Callable[[str], None]) -> Any:
        name = rds._p(params, "DBInstanceIdentifier")
        if name in rds._instances:
            return rds._error("DBInstanceAlreadyExists", f"DBInstance {name} already exists.", 400)
        record = f"source-of-{name}"
        rds._snapshots[record] = dict(source)
        from_snapshot({**params, "DBSnapshotIdentifier": [record]})
        del rds._snapshots[record]
        instance = rds._instances[name]
        instance.update(_asked_for(params, source), DBInstanceStatus=_CREATING)
        instance["Endpoint"] = {
            **instance["Endpoint"],
            "Address": host,
            "Port": databases.open(instance["DbiResourceId"]),
        }
        rds._tags[instance["DBInstanceArn"]] = instance["TagList"] = rds._parse_tags(params)
        databases.later(
            instance["DbiResourceId"],
            lambda: restore(instance["DbiResourceId"]),
            lambda done: instance.update(DBInstanceStatus=_AVAILABLE if done else _FAILED),
        )
        return rds._single_instance_response(f"{action}Response", f"{action}Result", instance)

    def backups(params: Any) -> Any:
        asked = (rds._p(params, "DBInstanceIdentifier"), rds._p(params, "DbiResourceId"))
        found = [
            each
            for each in rds._instances.values()
            if each["DbiResourceId"] in databases
            and (not any(asked) or {*asked} & {each["DBInstanceIdentifier"], each["DbiResourceId"]})
        ]
        listed = "".join(
            f"<DBInstanceAutomatedBackup>{_backup_xml(each)}</DBInstanceAutomatedBackup>" for each in found
        )
        action = "DescribeDBInstanceAutomatedBackups"
        return rds._xml(
            200,
            f"{action}Response",
            f"<{action}Result><DBInstanceAutomatedBackups>{listed}</DBInstanceAutomatedBackups></{action}Result>",
        )

    def _backup_xml(instance: Mapping[str, Any]) -> str:
        begun = databases.restorable_since(instance["DbiResourceId"])
        window = {"EarliestTime": begun, "LatestTime": datetime.now(UTC)}
        fields = {
            "DBInstanceIdentifier": instance["DBInstanceIdentifier"],
            "DbiResourceId": instance["DbiResourceId"],
            "DBInstanceArn": instance["DBInstanceArn"],
            "Status": "active",
        }
        return (
            "".join(f"<{key}>{escape(value)}</{key}>" for key, value in fields.items())
            + "<RestoreWindow>"
            + "".join(f"<{key}>{at.isoformat()}</{key}>" for key, at in window.items() if at)
            + "</RestoreWindow>"
        )

    rds._ACTION_MAP["DescribeDBInstanceAutomatedBackups"] = backups
    rds._ACTION_MAP["RestoreDBInstanceFromDBSnapshot"] = restored
    rds._ACTION_MAP["RestoreDBInstanceToPointInTime"] = restored_to


def manage_passwords(databases: Databases) -> None:
    """A master password that is managed, rotated or changed by ModifyDBInstance reaches the database."""
    from ministack.services import rds

    modify = rds._modify_db_instance

    def modified(params: Any) -> Any:
        answer = modify(params)
        instance = rds._resolve_instance(rds._p(params, "DBInstanceIdentifier"))
        if instance is None or instance["DbiResourceId"] not in databases:
            return answer
        managed = "MasterUserSecret" in instance
        if _is_true(rds._p(params, "ManageMasterUserPassword")) and not managed:
            _make_secret(instance, key=rds._p(params, "MasterUserSecretKmsKeyId"))
        elif _is_true(rds._p(params, "RotateMasterUserPassword")) and managed:
            _rotate_secret(instance)
        elif not rds._p(params, "MasterUserPassword"):
            return answer
        _set_password(databases, instance)
        return rds._single_instance_response("ModifyDBInstanceResponse", "ModifyDBInstanceResult", instance)

    rds._rotate_instance_password = lambda *_: None
    rds._ACTION_MAP["ModifyDBInstance"] = modified


def authorize_snapshots() -> None:
    """MiniStack authorizes what is done to a snapshot, or to a point in time, on every resource."""
    from ministack.core import iam_actions
    from ministack.core.responses import get_account_id, get_region

    resource_of = iam_actions.extract_resource_arn
    kinds = {"TargetDBInstanceIdentifier": "db", "DBSnapshotIdentifier": "snapshot"}

    def documented(
        service: str, method: str, path: str, headers: Any, body: bytes, *rest: Any, **more: Any
    ) -> Any:
        arn = resource_of(service, method, path, headers, body, *rest, **more)
        if service != "rds" or arn != "*":
            return arn
        asked = parse_qs(body.decode())
        for key, kind in kinds.items():
            if asked.get(key):
                name = asked[key][0]
                return (
                    name
                    if name.startswith("arn:")
                    else f"arn:aws:rds:{get_region()}:{get_account_id()}:{kind}:{name}"
                )
        return arn

    iam_actions.extract_resource_arn = documented


def _snapshot(name: str) -> dict[str, Any]:
    from ministack.services import rds

    found = rds._snapshots.get(name.rsplit(":", 1)[-1] if name.startswith("arn:") else name)
    if found is None:
        raise ValueError(f"DBSnapshot not found: {name}")
    return dict(found)


def _of_snapshot(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """What an instance has from its snapshot, and a template need not or must not say."""
    return {
        key: snapshot[key]
        for key in ("MasterUsername", "DBName", "StorageEncrypted", "KmsKeyId", "Engine", "AllocatedStorage")
        if snapshot.get(key)
    }


def _asked_for(params: Any, source: Mapping[str, Any]) -> dict[str, Any]:
    from ministack.services import rds

    subnets = rds._subnet_groups.get(rds._p(params, "DBSubnetGroupName"))
    parameters = rds._p(params, "DBParameterGroupName")
    groups = rds._parse_member_list(params, "VpcSecurityGroupIds")
    return {
        "KmsKeyId": source.get("KmsKeyId", ""),
        "IAMDatabaseAuthenticationEnabled": _is_true(rds._p(params, "EnableIAMDatabaseAuthentication")),
        "DeletionProtection": _is_true(rds._p(params, "DeletionProtection")),
        "CopyTagsToSnapshot": _is_true(rds._p(params, "CopyTagsToSnapshot")),
        "VpcSecurityGroups": [{"VpcSecurityGroupId": each, "Status": "active"} for each in groups],
        **({"DBSubnetGroup": subnets} if subnets else {}),
        **(
            {"DBParameterGroups": [{"DBParameterGroupName": parameters, "ParameterApplyStatus": "in-sync"}]}
            if parameters
            else {}
        ),
    }


def _make_secret(instance: dict[str, Any], *, key: str) -> None:
    from ministack.services import secretsmanager

    instance["_MasterUserPassword"] = secrets.token_urlsafe(24)
    arn, _ = secretsmanager._store_new_secret(
        f"rds!{instance['DbiResourceId'].lower()}",
        secret_string=_document(instance),
        description=f"The secret associated with the DB instance: {instance['DBInstanceArn']}",
        kms_key_id=key or None,
    )
    instance["MasterUserSecret"] = {"SecretArn": arn, "SecretStatus": "active", "KmsKeyId": key}


def _rotate_secret(instance: dict[str, Any]) -> None:
    from ministack.services import secretsmanager

    instance["_MasterUserPassword"] = secrets.token_urlsafe(24)
    secretsmanager._put_secret_value(
        {"SecretId": instance["MasterUserSecret"]["SecretArn"], "SecretString": _document(instance)}
    )


def _document(instance: Mapping[str, Any]) -> str:
    return json.dumps({"username": instance["MasterUsername"], "password": instance["_MasterUserPassword"]})


def _set_password(databases: Databases, instance: Mapping[str, Any]) -> None:
    databases.set_password(
        instance["DbiResourceId"], instance["MasterUsername"], instance["_MasterUserPassword"]
    )


def _is_true(value: object) -> bool:
    return str(value or "").lower() == "true"
