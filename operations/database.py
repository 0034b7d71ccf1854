"""The database of a deployment as RDS's API knows it: its snapshots, and copies of it."""

from __future__ import annotations

import datetime as dt
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from operations.command import Say
from operations.deployment import Deployment
from operations.errors import CannotRunError, FailedError
from preflight.protection import resources

POLL_SECONDS = 15.0
_SECONDS = 6 * 3600.0


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that can be restored."""

    name: str
    made: dt.datetime
    gib: int


@dataclass(frozen=True)
class Database(ABC):
    """The living database, an instance or an Aurora cluster.

    A copy is as it is, but in one zone, and nothing protects it.
    """

    rds: Any
    name: str

    @abstractmethod
    def described(self, name: str) -> Mapping[str, Any]:
        """What RDS says of it, or of a copy."""

    @abstractmethod
    def snapshots(self) -> list[Snapshot]:
        """Its snapshots that are complete, the newest last."""

    @abstractmethod
    def begin_snapshot(self, snapshot: str, tags: Mapping[str, str]) -> None:
        """Begin a snapshot of this name."""

    @abstractmethod
    def from_snapshot(self, snapshot: str, copy: str, tags: Mapping[str, str]) -> str:
        """Begin to restore a snapshot to a copy of this name; returns its resource id."""

    @abstractmethod
    def at(self, time: dt.datetime, copy: str, tags: Mapping[str, str]) -> str:
        """Begin to restore the database as it was at a time; returns the copy's resource id."""

    @abstractmethod
    def wait(self, copy: str) -> tuple[str, int]:
        """Wait until a copy accepts connections; returns its host and port."""

    @abstractmethod
    def remove(self, tag: str, value: str, say: Say) -> None:
        """Delete every copy and every snapshot that carries this tag, without a last snapshot."""

    @property
    @abstractmethod
    def newest_time(self) -> dt.datetime:
        """The newest time that it can be restored to."""

    def take_snapshot(self, snapshot: str, tags: Mapping[str, str]) -> Snapshot:
        """Take a snapshot of this name and wait until it is complete."""
        self.begin_snapshot(snapshot, tags)
        for _ in patiently(f"snapshot {snapshot}"):
            if found := [each for each in self.snapshots() if each.name == snapshot]:
                return found[0]
        raise AssertionError


def database_of(deployment: Deployment) -> Database:
    """The deployment's database.

    Raises:
        CannotRunError: it has none.
    """
    rds = deployment.client("rds")
    found = dict(resources(deployment.client, deployment.foundation))
    if name := found.get("AWS::RDS::DBCluster"):
        return Cluster(rds, name)
    if name := found.get("AWS::RDS::DBInstance"):
        return Instance(rds, name)
    raise CannotRunError(
        f"{deployment.foundation} has no database: `make deploy ENV={deployment.name}` first"
    )


def patiently(what: str) -> Iterator[None]:
    """Times to look again, at first after a second.

    Raises:
        FailedError: it took too long.
    """
    deadline, pause = time.monotonic() + _SECONDS, 1.0
    while time.monotonic() < deadline:
        yield
        time.sleep(min(pause, POLL_SECONDS))
        pause *= 2
    raise FailedError(f"{what} is not there after {_SECONDS / 3600:.0f} hours: look at its events in RDS")


class Instance(Database):
    """An RDS instance."""

    def described(self, name: str) -> Mapping[str, Any]:
        """What RDS says of it, or of a copy."""
        (found,) = self.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"]
        return dict(found)

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots that are complete, the newest last."""
        found = _all(self.rds, "describe_db_snapshots", "DBSnapshots", DBInstanceIdentifier=self.name)
        return _sorted(found, "DBSnapshotIdentifier")

    def begin_snapshot(self, snapshot: str, tags: Mapping[str, str]) -> None:
        """Begin a snapshot of this name."""
        self.rds.create_db_snapshot(
            DBSnapshotIdentifier=snapshot, DBInstanceIdentifier=self.name, Tags=_tags(tags)
        )

    def from_snapshot(self, snapshot: str, copy: str, tags: Mapping[str, str]) -> str:
        """Begin to restore a snapshot to a copy of this name; returns its resource id."""
        made = self.rds.restore_db_instance_from_db_snapshot(
            DBInstanceIdentifier=copy, DBSnapshotIdentifier=snapshot, **self._like(tags)
        )
        return str(made["DBInstance"]["DbiResourceId"])

    def at(self, time: dt.datetime, copy: str, tags: Mapping[str, str]) -> str:
        """Begin to restore the database as it was at a time; returns the copy's resource id."""
        made = self.rds.restore_db_instance_to_point_in_time(
            SourceDBInstanceIdentifier=self.name,
            TargetDBInstanceIdentifier=copy,
            RestoreTime=time,
            **self._like(tags),
        )
        return str(made["DBInstance"]["DbiResourceId"])

    @property
    def newest_time(self) -> dt.datetime:
        """The newest time that it can be restored to."""
        found = self.rds.describe_db_instance_automated_backups(DBInstanceIdentifier=self.name)
        newest: list[dt.datetime] = [
            each["RestoreWindow"]["LatestTime"]
            for each in found["DBInstanceAutomatedBackups"]
            if each["Status"] == "active"
        ]
        if not newest:
            raise CannotRunError(f"{self.name} has no automated backup yet: see its backups in RDS")
        return max(newest)

    def wait(self, copy: str) -> tuple[str, int]:
        """Wait until a copy accepts connections; returns its host and port."""
        return _address_of_instance(self.rds, copy)

    def remove(self, tag: str, value: str, say: Say) -> None:
        """Delete every copy and every snapshot that carries this tag, without a last snapshot."""
        for each in _tagged(_all(self.rds, "describe_db_instances", "DBInstances"), tag, value):
            _delete(
                self.rds.delete_db_instance,
                say,
                each["DBInstanceIdentifier"],
                DBInstanceIdentifier=each["DBInstanceIdentifier"],
                SkipFinalSnapshot=True,
                DeleteAutomatedBackups=True,
            )
        for each in _tagged(_all(self.rds, "describe_db_snapshots", "DBSnapshots"), tag, value):
            if each["SnapshotType"] == "manual":
                name = each["DBSnapshotIdentifier"]
                _delete(self.rds.delete_db_snapshot, say, name, DBSnapshotIdentifier=name)

    def _like(self, tags: Mapping[str, str]) -> dict[str, Any]:
        living = self.described(self.name)
        return {
            "DBInstanceClass": living["DBInstanceClass"],
            "DBSubnetGroupName": living["DBSubnetGroup"]["DBSubnetGroupName"],
            "VpcSecurityGroupIds": _groups(living),
            "DBParameterGroupName": living["DBParameterGroups"][0]["DBParameterGroupName"],
            "Port": living["Endpoint"]["Port"],
            "EnableIAMDatabaseAuthentication": True,
            "MultiAZ": False,
            "PubliclyAccessible": False,
            "AutoMinorVersionUpgrade": False,
            "DeletionProtection": False,
            # A snapshot of a copy that goes by its tag must not go with it.
            "CopyTagsToSnapshot": False,
            "Tags": _tags(tags),
        }


class Cluster(Database):
    """An Aurora cluster; a copy has one instance, of the writer's class and the copy's name."""

    def described(self, name: str) -> Mapping[str, Any]:
        """What RDS says of it, or of a copy."""
        (found,) = self.rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"]
        return dict(found)

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots that are complete, the newest last."""
        found = _all(
            self.rds, "describe_db_cluster_snapshots", "DBClusterSnapshots", DBClusterIdentifier=self.name
        )
        return _sorted(found, "DBClusterSnapshotIdentifier")

    def begin_snapshot(self, snapshot: str, tags: Mapping[str, str]) -> None:
        """Begin a snapshot of this name."""
        self.rds.create_db_cluster_snapshot(
            DBClusterSnapshotIdentifier=snapshot, DBClusterIdentifier=self.name, Tags=_tags(tags)
        )

    def from_snapshot(self, snapshot: str, copy: str, tags: Mapping[str, str]) -> str:
        """Begin to restore a snapshot to a copy of this name; returns its resource id."""
        living = self.described(self.name)
        made = self.rds.restore_db_cluster_from_snapshot(
            DBClusterIdentifier=copy,
            SnapshotIdentifier=snapshot,
            Engine=living["Engine"],
            EngineVersion=living["EngineVersion"],
            **self._like(living, tags),
        )
        return self._with_instance(living, copy, tags, made)

    def at(self, time: dt.datetime, copy: str, tags: Mapping[str, str]) -> str:
        """Begin to restore the database as it was at a time; returns the copy's resource id."""
        living = self.described(self.name)
        made = self.rds.restore_db_cluster_to_point_in_time(
            SourceDBClusterIdentifier=self.name,
            DBClusterIdentifier=copy,
            RestoreToTime=time,
            **self._like(living, tags),
        )
        return self._with_instance(living, copy, tags, made)

    @property
    def newest_time(self) -> dt.datetime:
        """The newest time that it can be restored to."""
        newest: dt.datetime = self.described(self.name)["LatestRestorableTime"]
        return newest

    def wait(self, copy: str) -> tuple[str, int]:
        """Wait until a copy accepts connections; returns its host and port."""
        # A cluster is available before it has an instance.
        return _address_of_instance(self.rds, copy)

    def remove(self, tag: str, value: str, say: Say) -> None:
        """Delete every copy and every snapshot that carries this tag, without a last snapshot."""
        for each in _tagged(_all(self.rds, "describe_db_instances", "DBInstances"), tag, value):
            name = each["DBInstanceIdentifier"]
            _delete(self.rds.delete_db_instance, say, name, DBInstanceIdentifier=name, SkipFinalSnapshot=True)
        for each in _tagged(_all(self.rds, "describe_db_clusters", "DBClusters"), tag, value):
            name = each["DBClusterIdentifier"]
            _delete(
                self.rds.delete_db_cluster,
                say,
                name,
                DBClusterIdentifier=name,
                SkipFinalSnapshot=True,
                DeleteAutomatedBackups=True,
            )
        for each in _tagged(
            _all(self.rds, "describe_db_cluster_snapshots", "DBClusterSnapshots"), tag, value
        ):
            if each["SnapshotType"] == "manual":
                name = each["DBClusterSnapshotIdentifier"]
                _delete(self.rds.delete_db_cluster_snapshot, say, name, DBClusterSnapshotIdentifier=name)

    def _like(self, living: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
        capacity = living.get("ServerlessV2ScalingConfiguration")
        return {
            "DBSubnetGroupName": living["DBSubnetGroup"],
            "VpcSecurityGroupIds": _groups(living),
            "DBClusterParameterGroupName": living["DBClusterParameterGroup"],
            "Port": living["Port"],
            "EnableIAMDatabaseAuthentication": True,
            "DeletionProtection": False,
            "CopyTagsToSnapshot": False,
            **({"ServerlessV2ScalingConfiguration": capacity} if capacity else {}),
            "Tags": _tags(tags),
        }

    def _with_instance(
        self, living: Mapping[str, Any], copy: str, tags: Mapping[str, str], made: Mapping[str, Any]
    ) -> str:
        writer = next(each for each in living["DBClusterMembers"] if each["IsClusterWriter"])
        (like,) = self.rds.describe_db_instances(DBInstanceIdentifier=writer["DBInstanceIdentifier"])[
            "DBInstances"
        ]
        self.rds.create_db_instance(
            DBInstanceIdentifier=copy,
            DBClusterIdentifier=copy,
            Engine=living["Engine"],
            DBInstanceClass=like["DBInstanceClass"],
            PubliclyAccessible=False,
            AutoMinorVersionUpgrade=False,
            Tags=_tags(tags),
        )
        return str(made["DBCluster"]["DbClusterResourceId"])


def _address_of_instance(rds: Any, name: str) -> tuple[str, int]:
    for _ in patiently(name):
        (found,) = rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"]
        if found["DBInstanceStatus"] == "available":
            return str(found["Endpoint"]["Address"]), int(found["Endpoint"]["Port"])
        if found["DBInstanceStatus"] in ("failed", "incompatible-restore", "incompatible-network"):
            raise FailedError(f"{name} is {found['DBInstanceStatus']}: look at its events in RDS")
    raise AssertionError


def _delete(call: Callable[..., object], say: Say, name: str, **what: Any) -> None:
    from botocore.exceptions import ClientError

    for _ in patiently(f"the deletion of {name}"):
        try:
            call(**what)
            say(f"{name}: is being deleted")
            return
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if "NotFound" in code or "deleting" in str(error) or "being deleted" in str(error):
                return
            # What is being made cannot be deleted.
            if not code.startswith("InvalidDB"):
                raise
            say(f"{name}: {error}; trying again")


def _all(rds: Any, operation: str, key: str, **parameters: str) -> list[dict[str, Any]]:
    return [each for page in rds.get_paginator(operation).paginate(**parameters) for each in page[key]]


def _tagged(found: list[dict[str, Any]], tag: str, value: str) -> list[dict[str, Any]]:
    return [each for each in found if {"Key": tag, "Value": value} in each.get("TagList", [])]


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _groups(living: Mapping[str, Any]) -> list[str]:
    return [each["VpcSecurityGroupId"] for each in living["VpcSecurityGroups"]]


def _sorted(found: list[dict[str, Any]], identifier: str) -> list[Snapshot]:
    return sorted(
        (
            Snapshot(each[identifier], each["SnapshotCreateTime"], each["AllocatedStorage"])
            for each in found
            if each["Status"] == "available"
        ),
        key=lambda snapshot: snapshot.made,
    )
