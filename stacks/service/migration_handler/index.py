"""Starts and stops the migration task on behalf of CloudFormation, and tells its wait condition the outcome.

Needs nothing but AWS Lambda's Python runtime; the template carries this file as it is.
"""

import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

POLL_SECONDS = 5
# A permission granted by the same deployment takes seconds to be known everywhere.
PERMISSION_ATTEMPTS = 12
LOG_LINES = 20
# A container's last lines reach its log some seconds after its end.
LOG_ATTEMPTS = 4
# CloudFormation refuses answers above 4096 bytes.
LONGEST_REASON = 2000

logger = logging.getLogger()
logger.setLevel(logging.INFO)


class NotStartedError(Exception):
    """There is no task; the text is for the events of the stack."""


def handler(event: Mapping[str, Any], _context: Any) -> None:
    """Serve a request of CloudFormation, or the event that the task has stopped."""
    if "Task" in event:
        tell(event, client=boto3.client)
        return
    # Of a request that never started a task; one identity, since at a new one the former is deleted.
    task_arn = event.get("PhysicalResourceId", "no task")
    try:
        task_arn = act(event, client=boto3.client)
        status, reason = "SUCCESS", ""
    except Exception as error:
        logger.exception("the migration was not started")
        status, reason = "FAILED", str(error) or repr(error)
    outcome = {
        "Status": status,
        "Reason": reason[-LONGEST_REASON:],
        "PhysicalResourceId": task_arn,
        **{key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")},
    }
    put(event["ResponseURL"], outcome)


def act(event: Mapping[str, Any], *, client: Callable[[str], Any]) -> str:
    """Do what the request asks and return the task's ARN, which is the resource's identity."""
    if event["RequestType"] == "Delete":
        # Of the whole stack, of a failed creation, or of the task of the deployment before.
        stop(event, client=client)
        return str(event["PhysicalResourceId"])
    status = client("cloudformation").describe_stacks(StackName=event["StackId"])["Stacks"][0]["StackStatus"]
    if "ROLLBACK" in status:
        # The former version cannot undo a migration; refusing the newer schema, it would fail the rollback.
        stop(event, client=client)
        return str(event["PhysicalResourceId"])
    return start(event["ResourceProperties"], token=event["RequestId"], ecs=client("ecs"))


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
    raise NotStartedError(f"ECS could not start the migration task: {why}")


def stop(event: Mapping[str, Any], *, client: Callable[[str], Any]) -> None:
    """Stop the task if it runs: left alone, it would change the schema while CloudFormation rolls back."""
    task_arn = event["PhysicalResourceId"]
    if not task_arn.startswith("arn:"):
        return
    try:
        client("ecs").stop_task(
            cluster=event["ResourceProperties"]["Cluster"], task=task_arn, reason="its deployment has ended"
        )
    except Exception:
        # ECS forgets a task an hour after its end; and nothing may keep a stack from being deleted.
        logger.exception("%s was not stopped", task_arn)


def tell(event: Mapping[str, Any], *, client: Callable[[str], Any]) -> None:
    """Tell the wait condition how the task ended."""
    task = event["Task"]
    task_id = task["taskArn"].rsplit("/", 1)[-1]
    failure = why_failed(task, event, task_id=task_id, client=client)
    reason = failure or course(event, task_id=task_id, client=client)
    logger.info("%s ended: %s", task_id, reason)
    signal = {
        "Status": "FAILURE" if failure else "SUCCESS",
        "Reason": reason,
        "UniqueId": task_id,
        "Data": reason if not failure else task_id,
    }
    try:
        put(event["Signal"], signal)
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise
        # The deployment that waited is over: it gave up, or was cancelled.
        logger.warning("nobody waits for %s any more: %s", task_id, error)


def why_failed(
    task: Mapping[str, Any], event: Mapping[str, Any], *, task_id: str, client: Callable[[str], Any]
) -> str:
    """Return why the task did not succeed, with its last words; nothing if it did."""
    name = event["Container"]
    container: dict[str, Any] = next((each for each in task["containers"] if each["name"] == name), {})
    if container.get("exitCode") == 0 and task.get("stopCode") == "EssentialContainerExited":
        return ""
    stream = f"{event['LogStreamPrefix']}/{name}/{task_id}"
    exited = f"exit code {container['exitCode']}" if "exitCode" in container else "it never ran"
    why = "; ".join(filter(None, [task.get("stoppedReason"), container.get("reason"), exited]))
    return (
        f"migration task {task_id} failed: {why}\n{last_lines(event['LogGroup'], stream, client=client)}\n"
        f"Whole log: {event['LogGroup']} {stream}. The service is unchanged: correct the cause and "
        "deploy again."
    )


def course(event: Mapping[str, Any], *, task_id: str, client: Callable[[str], Any]) -> str:
    """Return how long each phase of a migration that succeeded took, and its snapshot, from its last line."""
    stream = f"{event['LogStreamPrefix']}/{event['Container']}/{task_id}"
    try:
        lines = last_lines(event["LogGroup"], stream, client=client).splitlines()
    except Exception:
        # It has succeeded all the same.
        logger.exception("the log of %s was not read", task_id)
        lines = []
    for line in reversed(lines):
        try:
            last = json.loads(line)
            seconds = {name: each for name, each in last["seconds"].items() if each}
        except (ValueError, TypeError, KeyError):
            continue
        phases = ", ".join(f"{name} {each} s" for name, each in seconds.items())
        snapshot = f"; snapshot {last['snapshot']}" if last.get("snapshot") else ""
        return f"migrated to {last.get('schema')}: {phases}{snapshot}"
    return "migrated"


def last_lines(group: str, stream: str, *, client: Callable[[str], Any]) -> str:
    """Return the end of a log, or why there is none."""
    lines: list[str] = []
    for _ in range(LOG_ATTEMPTS):
        time.sleep(POLL_SECONDS)
        try:
            events = client("logs").get_log_events(
                logGroupName=group, logStreamName=stream, limit=LOG_LINES, startFromHead=False
            )["events"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                return f"Its log could not be read: {error}"
            continue
        if events:
            lines = [each["message"] for each in events]
            break
    return "\n".join(lines)[-LONGEST_REASON:] or "It wrote no log."


def put(url: str, document: Mapping[str, str]) -> None:
    """Send CloudFormation a document, at a URL that it gave us."""
    request = urllib.request.Request(  # noqa: S310 - the URL is CloudFormation's
        url, data=json.dumps(document).encode(), method="PUT", headers={"Content-Type": ""}
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass
