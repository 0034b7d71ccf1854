"""A scratch copy of a deployment's database, and the tasks that may reach it: both gone at the end.

Everything made here carries a tag or is a stack of its own, so that the next rehearsal or drill of the
environment finds and removes what an earlier one could not. So there can be one at a time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from operations.command import Say
from operations.database import Database, database_of
from operations.deployment import Deployment, TaskPlace
from operations.errors import FailedError
from preflight.protection import describe

TAG = "mlflow-on-aws:scratch"
_PROJECT = Path(__file__).parents[1]


@dataclass
class Scratch:
    """A scratch database, where the tasks on it run, and the seconds that each phase took."""

    host: str
    port: int
    place: Callable[[str], TaskPlace]
    seconds: dict[str, float]

    @property
    def arguments(self) -> list[str]:
        """How a task on it is told of it."""
        return ["--host", self.host, "--port", str(self.port)]


@contextmanager
def scratch(
    deployment: Deployment,
    restore: Callable[[Database, str], str],
    say: Say,
    seconds: dict[str, float],
) -> Iterator[Scratch]:
    """A copy of the database; removed however the block ends.

    `restore` begins to make it under a name, and returns its resource id.

    Raises:
        CannotRunError, FailedError: it could not be made.
    """
    database = database_of(deployment)
    name = f"{deployment.service}-scratch-{int(time.time())}".lower()
    try:
        remove(deployment, say)
        with timed("restore", seconds, say):
            resource_id = restore(database, name)
            # While RDS copies, which takes longer.
            with timed("image", seconds, say):
                outputs = _deploy_tasks(deployment, resource_id=resource_id)
            host, port = database.wait(name)
        yield Scratch(
            host,
            port,
            lambda operation: TaskPlace(**json.loads(outputs[f"Operation{operation}"])),
            seconds,
        )
    finally:
        say("the scratch database is removed; interrupted here, the next rehearsal or drill removes it")
        with timed("remove", seconds, say):
            remove(deployment, say)


@contextmanager
def timed(phase: str, seconds: dict[str, float], say: Say) -> Iterator[None]:
    """Tell that a phase begins, and note its seconds."""
    say(f"{phase} …")
    started = time.monotonic()
    try:
        yield
    finally:
        seconds[phase] = round(time.monotonic() - started, 1)


def remove(deployment: Deployment, say: Say) -> None:
    """Remove the stack of the tasks, and each scratch copy and snapshot of this environment."""
    cloudformation, stack = deployment.client("cloudformation"), _stack(deployment)
    if describe(cloudformation, stack) is not None:
        cloudformation.delete_stack(StackName=stack)
    database_of(deployment).remove(TAG, deployment.name, say)
    from botocore.exceptions import WaiterError

    try:
        cloudformation.get_waiter("stack_delete_complete").wait(
            StackName=stack, WaiterConfig={"Delay": 5, "MaxAttempts": 720}
        )
    except WaiterError as error:
        say(f"{stack} is not deleted: {error}; look at its events in CloudFormation")


def _stack(deployment: Deployment) -> str:
    return f"MlflowOnAws-{deployment.name}-Scratch"


def _deploy_tasks(deployment: Deployment, *, resource_id: str) -> Mapping[str, str]:
    stack = _stack(deployment)
    with tempfile.TemporaryDirectory(prefix="cdk-") as output:
        command = [
            "npx", "cdk", "deploy", stack, "--exclusively", "--require-approval", "never",
            "-c", f"env={deployment.name}", "-c", "scratch=yes", "--output", output,
            "--parameters", f"Scratch={resource_id}",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=_PROJECT, stdout=sys.stderr, check=False)
    described = describe(deployment.client("cloudformation"), stack)
    if done.returncode != 0 or described is None:
        raise FailedError(
            f"{stack} was not deployed: see above. An export that does not exist is one that the deployed "
            "version's foundation lacks: rehearse the version before it"
        )
    return {each["OutputKey"]: each["OutputValue"] for each in described["Outputs"]}
