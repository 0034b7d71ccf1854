"""Runs the migration task to its end on behalf of CloudFormation, and reports why if it failed.

Needs nothing but the Python runtime of AWS Lambda; the template carries this file as it is.
"""

import json
import time
import urllib.request

import boto3

POLL_SECONDS = 5
# Time kept back to stop the task, read its log and answer before Lambda ends this invocation.
RESERVE_SECONDS = 60
# CloudFormation refuses answers above 4096 bytes.
LONGEST_REASON = 2500
LOG_LINES = 20


class MigrationFailedError(Exception):
    """The task did not succeed; the text is for the events of the stack."""


def handler(event, context):
    """Answer one request of CloudFormation; never leave it waiting."""
    ecs, logs, cloudformation = (boto3.client(name) for name in ("ecs", "logs", "cloudformation"))
    try:
        deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS
        reason = act(event, ecs=ecs, logs=logs, cloudformation=cloudformation, deadline=deadline)
        answer(event, "SUCCESS", reason)
    except Exception as error:
        print(f"migration failed: {error!r}")
        answer(event, "FAILED", str(error) or repr(error))


def act(event, *, ecs, logs, cloudformation, deadline):
    """Do what the request asks and return a sentence about it; raise if the migration did not succeed."""
    if event["RequestType"] == "Delete":
        return "the schema stays as it is"
    stack = cloudformation.describe_stacks(StackName=event["StackId"])["Stacks"][0]
    if "ROLLBACK" in stack["StackStatus"]:
        # The old version cannot undo a migration, and would fail the rollback by refusing the newer schema.
        return f"not run: the stack is in {stack['StackStatus']}"
    return migrate(
        event["ResourceProperties"], token=event["RequestId"], ecs=ecs, logs=logs, deadline=deadline
    )


def migrate(properties, *, token, ecs, logs, deadline, sleep=time.sleep):
    """Run the task and wait for its end. The same token never starts a second task."""
    started = ecs.run_task(
        cluster=properties["Cluster"],
        taskDefinition=properties["TaskDefinition"],
        launchType="FARGATE",
        count=1,
        clientToken=token.replace("-", "")[:64],
        networkConfiguration={
            "awsvpcConfiguration": {
                "subnets": properties["Subnets"],
                "securityGroups": properties["SecurityGroups"],
                "assignPublicIp": "DISABLED",
            }
        },
    )
    if not started["tasks"]:
        failures = ", ".join(f"{each.get('reason')} ({each.get('arn')})" for each in started["failures"])
        raise MigrationFailedError(f"ECS could not start the migration task: {failures}")
    task_arn = started["tasks"][0]["taskArn"]
    print(f"started {task_arn}")
    return conclude(wait(properties["Cluster"], task_arn, ecs, deadline, sleep), properties, logs)


def wait(cluster, task_arn, ecs, deadline, sleep):
    """Return the task once it has stopped; past the deadline, stop it."""
    stopping = False
    while True:
        tasks = ecs.describe_tasks(cluster=cluster, tasks=[task_arn])["tasks"]
        if tasks and tasks[0]["lastStatus"] == "STOPPED":
            return tasks[0]
        if not stopping and time.monotonic() > deadline:
            # Left running, it could change the schema after CloudFormation has rolled back.
            ecs.stop_task(cluster=cluster, task=task_arn, reason="the migration exceeded its time")
            stopping = True
        sleep(POLL_SECONDS)


def conclude(task, properties, logs):
    """Return a sentence about a task that succeeded; raise with its last words if it did not."""
    task_id = task["taskArn"].rsplit("/", 1)[-1]
    container = next((each for each in task["containers"] if each["name"] == properties["Container"]), {})
    if container.get("exitCode") == 0:
        return f"migrated by task {task_id}"
    stream = f"{properties['LogStreamPrefix']}/{properties['Container']}/{task_id}"
    why = "; ".join(
        filter(
            None,
            [task.get("stoppedReason"), container.get("reason"), f"exit code {container.get('exitCode')}"],
        )
    )
    raise MigrationFailedError(
        f"migration task {task_id} failed: {why}\n{last_lines(logs, properties['LogGroup'], stream)}\n"
        f"Its whole log: {properties['LogGroup']} {stream}. The service was not changed; correct the cause and "
        "deploy again."
    )


def last_lines(logs, group, stream):
    """Return the end of a log, or why there is none."""
    try:
        events = logs.get_log_events(
            logGroupName=group, logStreamName=stream, limit=LOG_LINES, startFromHead=False
        )["events"]
    except logs.exceptions.ResourceNotFoundException:
        return "It wrote no log: the container never started."
    return "\n".join(each["message"] for each in events)[-LONGEST_REASON:]


def answer(event, status, reason):
    """Tell CloudFormation the outcome at the URL it gave us."""
    body = json.dumps(
        {
            "Status": status,
            "Reason": reason,
            # One identity for all times: a changed one would make CloudFormation delete the former.
            "PhysicalResourceId": "migration",
            "StackId": event["StackId"],
            "RequestId": event["RequestId"],
            "LogicalResourceId": event["LogicalResourceId"],
        }
    ).encode()
    request = urllib.request.Request(
        event["ResponseURL"], data=body, method="PUT", headers={"Content-Type": ""}
    )
    with urllib.request.urlopen(request, timeout=10):
        pass
