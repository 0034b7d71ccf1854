"""Importing another MLflow, as an operation."""

from constructs import Construct

from stacks.config import ServerConfig
from stacks.service.operation import Operation
from stacks.service.server_task import TaskResources


def import_operation(scope: Construct, *, resources: TaskResources, config: ServerConfig) -> Operation:
    """A task that reads archives below `imports/` and writes as the schema's owner."""
    database = resources.database
    operation = Operation(
        scope,
        "Import",
        resources=resources,
        command="import",
        environment={"MLFLOW_AWS_DATABASE_MIGRATOR": database.migrator_user},
        config=config,
    )
    database.grant_connect(operation.role, user=database.migrator_user)
    resources.artifacts.grant_read_archives(operation.role)
    return operation
