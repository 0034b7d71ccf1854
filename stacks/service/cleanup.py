"""What was deleted goes for good."""

from aws_cdk import aws_events as events
from constructs import Construct

from stacks.config import CleanupConfig, ServerConfig
from stacks.service.operation import Operation
from stacks.service.schedule import run_on_schedule
from stacks.service.server_task import TaskResources

# After the night's backup, before people come.
_DAILY = events.Schedule.cron(hour="4", minute="23")


class Cleanup(Construct):
    """A task that an operator starts, and that starts itself every day if `deleted_days` is set.

    Its role deletes objects, and no version of one, below the artifact root, and nothing that is sealed. The
    task `erase` deletes no object: it plans, and deletes rows at the request of the break-glass role.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        resources: TaskResources,
        server: ServerConfig,
        config: CleanupConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        database, artifacts = resources.database, resources.artifacts
        gc, erase = (
            Operation(
                self,
                name,
                resources=resources,
                command=name.lower(),
                environment=artifacts.sealing,
                config=server,
            )
            for name in ("Gc", "Erase")
        )
        database.grant_connect(gc.role, user=database.server_user)
        artifacts.grant_cleanup(gc.role)
        database.grant_connect(erase.role, user=database.server_user)
        artifacts.grant_erasure(erase.role)
        if config.deleted_days is None:
            return
        run_on_schedule(
            self,
            "Daily",
            task=gc.task,
            cluster=resources.cluster,
            schedule=_DAILY,
            command=["gc", "--days", str(config.deleted_days)],
            description="Removes what was deleted from MLflow on AWS long enough ago",
        )
