"""The roles: the one table that configuration, gate, policies, groups and documentation follow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# The server's words: mlflow_aws_server.identity.roles.Permission.
Permission = Literal["read", "audit", "write", "approve", "administer"]

GET_OBJECTS = ("s3:GetObject",)
# Overwriting and deleting leave the former version, which nobody can delete.
PUT_OBJECTS = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject")
GET_VERSIONS = ("s3:GetObjectVersion",)
LIST_OBJECTS = ("s3:ListBucket",)
LIST_VERSIONS = ("s3:ListBucketVersions",)
DECRYPT = ("kms:Decrypt",)
ENCRYPT = ("kms:GenerateDataKey",)
READ_LOGS = ("logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents", "logs:StartQuery")


@dataclass(frozen=True, kw_only=True)
class RoleEntry:
    """What a role may do: `permissions` in MLflow; in AWS, actions on artifacts, key and audit log."""

    name: str
    summary: str
    permissions: tuple[Permission, ...]
    objects: tuple[str, ...]
    bucket: tuple[str, ...] = LIST_OBJECTS
    key: tuple[str, ...] = DECRYPT
    audit_log: tuple[str, ...] = ()

    @property
    def writes(self) -> tuple[str, ...]:
        """What of its actions changes or removes an object; none of them reaches what is sealed."""
        return tuple(action for action in self.objects if action in PUT_OBJECTS)

    @property
    def group(self) -> str:
        """The group of the user pool whose members have this role."""
        return f"mlflow-{self.name}"

    @property
    def construct_id(self) -> str:
        """What the ids of its constructs and outputs begin with; it never changes."""
        return self.name.capitalize()


# Cognito prefers the last of a person's groups. A new role goes first: the others' precedence stays as it is.
ROLES = (
    RoleEntry(
        name="auditor",
        summary="Reads everything, former versions of artifacts and the audit log too; writes nothing.",
        permissions=("read", "audit"),
        objects=(*GET_OBJECTS, *GET_VERSIONS),
        bucket=(*LIST_OBJECTS, *LIST_VERSIONS),
        audit_log=READ_LOGS,
    ),
    RoleEntry(
        name="viewer",
        summary="Reads: experiments, runs, models and their artifacts.",
        permissions=("read",),
        objects=GET_OBJECTS,
    ),
    RoleEntry(
        name="contributor",
        summary="Logs and registers, too: a data scientist, a training job.",
        permissions=("read", "write"),
        objects=(*GET_OBJECTS, *PUT_OBJECTS),
        key=(*DECRYPT, *ENCRYPT),
    ),
    RoleEntry(
        name="approver",
        summary="Moves stages and aliases and deletes versions, too.",
        permissions=("read", "write", "approve"),
        objects=(*GET_OBJECTS, *PUT_OBJECTS),
        key=(*DECRYPT, *ENCRYPT),
    ),
    RoleEntry(
        name="admin",
        summary="Does everything, and may read former versions of an artifact to recover one.",
        permissions=("read", "audit", "write", "approve", "administer"),
        objects=(*GET_OBJECTS, *PUT_OBJECTS, *GET_VERSIONS),
        bucket=(*LIST_OBJECTS, *LIST_VERSIONS),
        key=(*DECRYPT, *ENCRYPT),
    ),
)
BY_NAME: Mapping[str, RoleEntry] = {role.name: role for role in ROLES}
# Whoever a whole organization signs in decides nothing for the others.
FOR_EVERYONE = tuple(role.name for role in ROLES if {*role.permissions} <= {"read", "write"})
