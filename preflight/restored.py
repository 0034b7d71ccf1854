"""Whether a deployment would put an empty database in the place of the deployed one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.protection import Client, describe, stack_names
from stacks.config import DatabaseConfig

_ENGINES = {"AWS::RDS::DBInstance": "postgresql", "AWS::RDS::DBCluster": "aurora"}


def refusal(client: Client, environment: str, config: DatabaseConfig) -> str | None:
    """Why this configuration of the database must not be deployed, with the remedy; None if it may."""
    foundation = stack_names(environment)[1]
    if config.restore_from is not None or describe(client("cloudformation"), foundation) is None:
        return None
    template = client("cloudformation").get_template(StackName=foundation)["TemplateBody"]
    found = _database(template["Resources"])
    if found is None:
        return None
    engine, snapshot = found
    if snapshot is not None:
        return (
            f'database.restore_from = "{snapshot}" is deployed, and config/{environment}.toml does not name '
            "it: CloudFormation would make an empty database. Write the line again"
        )
    if engine != config.engine:
        return (
            f'database.engine = "{engine}" is deployed, config/{environment}.toml says "{config.engine}": '
            "CloudFormation would make an empty database. Write the engine again, or name a snapshot in "
            "database.restore_from"
        )
    return None


def _database(resources: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The engine and the snapshot of the deployed database."""
    for resource in resources.values():
        properties, engine = resource.get("Properties", {}), _ENGINES.get(resource["Type"])
        # An instance of a cluster is none by itself.
        if engine == "aurora" or (engine and "DBClusterIdentifier" not in properties):
            return engine, properties.get("DBSnapshotIdentifier") or properties.get("SnapshotIdentifier")
    return None
