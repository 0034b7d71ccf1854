"""Moving the artifacts' URIs, as an operation."""

from constructs import Construct

from stacks.config import ServerConfig
from stacks.service.operation import Operation
from stacks.service.server_task import TaskResources


def relocate_operation(scope: Construct, *, resources: TaskResources, config: ServerConfig) -> Operation:
    """A task that writes as the schema's owner, and reaches no artifact."""
    database = resources.database
    operation = Operation(
        scope,
        "Relocate",
        resources=resources,
        command="relocate",
        environment={"MLFLOW_AWS_DATABASE_MIGRATOR": database.migrator_user},
        config=config,
    )
    database.grant_connect(operation.role, user=database.migrator_user)
    return operation
