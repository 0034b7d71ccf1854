"""Runs the migration task to its end on behalf of CloudFormation, and reports why if it failed.

Needs nothing but AWS Lambda's Python runtime; the template carries this file as it is.
"""

import json
import logging
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

POLL_SECONDS = 5
# A permission granted by the same deployment takes seconds to be known everywhere.
PERMISSION_ATTEMPTS = 12
# Kept back to stop the task, read its log and answer before Lambda ends this invocation.
RESERVE_SECONDS = 120
LOG_LINES = 20
# CloudFormation refuses answers above 4096 bytes.
LONGEST_REASON = 2000

logger = logging.getLogger()
logger.setLevel(logging.INFO)


class MigrationFailedError(Exception):
    """The task did not succeed; the text is for the events of the stack."""


def handler(event: Mapping[str, Any], context: Any) -> None:
    """Answer one request of CloudFormation; never leave it waiting."""
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS
    try:
        status, reason = "SUCCESS", act(event, client=boto3.client, deadline=deadline)
    except Exception as error:
        logger.exception("the migration failed")
        status, reason = "FAILED", str(error) or repr(error)
    answer(event, status, reason)


def act(event: Mapping[str, Any], *, client: Callable[[str], Any], deadline: float) -> str:
    """Do what the request asks and return a sentence about it; raise if the migration did not succeed."""
    if event["RequestType"] == "Delete":
        return "the schema stays as it is"
    status = client("cloudformation").describe_stacks(StackName=event["StackId"])["Stacks"][0]["StackStatus"]
    if "ROLLBACK" in status:
        # The former version cannot undo a migration; refusing the newer schema, it would fail the rollback.
        return f"not run, the stack is in {status}"
    properties, ecs = event["ResourceProperties"], client("ecs")
    task_arn = start(properties, token=event["RequestId"], ecs=ecs)
    logger.info("started %s", task_arn)
    task = wait(properties["Cluster"], task_arn, ecs=ecs, deadline=deadline)
    return conclude(task, properties, logs=client("logs"))


def start(properties: Mapping[str, Any], *, token: str, ecs: Any) -> str:
    """Start the task and return its ARN. The same token never starts a second one."""
    for _ in range(PERMISSION_ATTEMPTS - 1):
        try:
            return run(properties, token=token, ecs=ecs)
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDeniedException":
                raise
            time.sleep(POLL_SECONDS)
    return run(properties, token=token, ecs=ecs)


def run(properties: Mapping[str, Any], *, token: str, ecs: Any) -> str:
    """Ask ECS once to run the task."""
    started = ecs.run_task(
        cluster=properties["Cluster"],
        taskDefinition=properties["TaskDefinition"],
        launchType="FARGATE",
        count=1,
        clientToken=token,
        networkConfiguration={
            "awsvpcConfiguration": {
                "subnets": properties["Subnets"],
                "securityGroups": properties["SecurityGroups"],
                "assignPublicIp": "DISABLED",
            }
        },
    )
    if started["tasks"]:
        return str(started["tasks"][0]["taskArn"])
    why = "; ".join(f"{each.get('reason')} {each.get('detail', '')}".strip() for each in started["failures"])
    raise MigrationFailedError(f"ECS could not start the migration task: {why}")


def wait(cluster: str, task_arn: str, *, ecs: Any, deadline: float) -> Mapping[str, Any]:
    """Return the task once it has stopped; past the deadline, stop it."""
    stopping = False
    while True:
        tasks = ecs.describe_tasks(cluster=cluster, tasks=[task_arn])["tasks"]
        if tasks and tasks[0]["lastStatus"] == "STOPPED":
            return dict(tasks[0])
        if not stopping and time.monotonic() >= deadline:
            # Left running, it would change the schema while CloudFormation rolls back.
            ecs.stop_task(cluster=cluster, task=task_arn, reason="the migration took too long")
            stopping = True
        time.sleep(POLL_SECONDS)


def conclude(task: Mapping[str, Any], properties: Mapping[str, Any], *, logs: Any) -> str:
    """Return a sentence about a task that succeeded; raise with its last words if it did not."""
    name, task_id = properties["Container"], task["taskArn"].rsplit("/", 1)[-1]
    container: dict[str, Any] = next((each for each in task["containers"] if each["name"] == name), {})
    if container.get("exitCode") == 0:
        return f"migrated by task {task_id}"
    stream = f"{properties['LogStreamPrefix']}/{name}/{task_id}"
    exited = f"exit code {container['exitCode']}" if "exitCode" in container else "it never ran"
    why = "; ".join(filter(None, [task.get("stoppedReason"), container.get("reason"), exited]))
    raise MigrationFailedError(
        f"migration task {task_id} failed: {why}\n{last_lines(properties['LogGroup'], stream, logs=logs)}\n"
        f"Whole log: {properties['LogGroup']} {stream}. The service is unchanged: correct the cause and "
        "deploy again."
    )


def last_lines(group: str, stream: str, *, logs: Any) -> str:
    """Return the end of a log, or why there is none."""
    try:
        events = logs.get_log_events(
            logGroupName=group, logStreamName=stream, limit=LOG_LINES, startFromHead=False
        )["events"]
    except logs.exceptions.ResourceNotFoundException:
        return "It wrote no log."
    return "\n".join(each["message"] for each in events)[-LONGEST_REASON:]


def answer(event: Mapping[str, Any], status: str, reason: str) -> None:
    """Tell CloudFormation the outcome, at the URL it gave us."""
    outcome = {
        "Status": status,
        "Reason": reason,
        # One identity for all times: at a new one, CloudFormation would delete the former.
        "PhysicalResourceId": "migration",
        **{key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")},
    }
    request = urllib.request.Request(  # noqa: S310 - the URL is CloudFormation's
        event["ResponseURL"], data=json.dumps(outcome).encode(), method="PUT", headers={"Content-Type": ""}
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass
