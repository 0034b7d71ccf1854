"""Runs a command of the server's image once in the cluster, follows its log, and returns its report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from operations.command import Say
from operations.deployment import Deployment, TaskPlace
from operations.errors import FailedError

POLL_SECONDS = 2.0
# A container's last lines reach its log some seconds after its end.
LOG_SECONDS = 30.0
_LAST_LINES = 20
# Of every line, and of no interest to people.
_FRAME = frozenset({"time", "level", "logger", "process", "message", "phase", "outcome", "ms"})


class TaskFailedError(FailedError):
    """The task did not end well; the message quotes the end of its log."""


def run(
    deployment: Deployment,
    operation: str,
    *,
    arguments: Sequence[str] = (),
    follow: Say = print,
    place: TaskPlace | None = None,
) -> dict[str, Any]:
    """Run the operation's task with these arguments, tell its progress, and return the report it ends with.

    Whatever interrupts the waiting stops the task. `place` stands in for what the stack's output says.

    Raises:
        TaskFailedError: it could not be started, failed, or was stopped.
    """
    where = place or deployment.place(operation)
    ecs = deployment.client("ecs")
    arn = _start(ecs, where, arguments)
    task_id = arn.rsplit("/", 1)[-1]
    log = _Log(deployment.client("logs"), where, task_id)
    try:
        follow(f"{where.command}: task {task_id}")
        stopped = _followed(ecs, where, arn, log, follow)
    except BaseException:
        _stop(ecs, where, arn, follow)
        raise
    return _result(stopped, where, task_id, log, follow)


def _start(ecs: Any, where: TaskPlace, arguments: Sequence[str]) -> str:
    started = ecs.run_task(
        cluster=where.cluster,
        taskDefinition=where.task_definition,
        launchType="FARGATE",
        count=1,
        networkConfiguration={
            "awsvpcConfiguration": {
                "subnets": where.subnets,
                "securityGroups": where.security_groups,
                "assignPublicIp": "DISABLED",
            }
        },
        overrides={"containerOverrides": [{"name": where.container, "command": [where.command, *arguments]}]},
    )
    if started["tasks"]:
        return str(started["tasks"][0]["taskArn"])
    why = "; ".join(f"{each.get('reason')} {each.get('detail', '')}".strip() for each in started["failures"])
    raise TaskFailedError(f"ECS could not start the task {where.command}: {why}; run this again")


def _stop(ecs: Any, where: TaskPlace, arn: str, follow: Say) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        ecs.stop_task(cluster=where.cluster, task=arn, reason="its operator stopped waiting for it")
        follow(f"{where.command}: its task is being stopped")
    except (BotoCoreError, ClientError) as error:
        follow(
            f"{where.command}: its task runs on ({error}); "
            f"aws ecs stop-task --cluster {where.cluster} --task {arn}"
        )


def _followed(ecs: Any, where: TaskPlace, arn: str, log: _Log, follow: Say) -> Mapping[str, Any]:
    while True:
        task: Mapping[str, Any] = ecs.describe_tasks(cluster=where.cluster, tasks=[arn])["tasks"][0]
        log.tell(follow)
        if task["lastStatus"] == "STOPPED":
            return task
        time.sleep(POLL_SECONDS)


def _result(
    task: Mapping[str, Any], where: TaskPlace, task_id: str, log: _Log, follow: Say
) -> dict[str, Any]:
    container: Mapping[str, Any] = next(
        (each for each in task["containers"] if each["name"] == where.container), {}
    )
    succeeded = container.get("exitCode") == 0
    deadline = time.monotonic() + LOG_SECONDS
    # Of what failed, any line will do.
    while (report := log.report()) is None and (succeeded or not log.lines):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
        log.tell(follow)
    if succeeded and report is not None:
        return report
    exited = f"exit code {container['exitCode']}" if "exitCode" in container else "it never ran"
    why = "; ".join(filter(None, [task.get("stoppedReason"), container.get("reason"), exited]))
    told = "\n".join(f"  {each}" for each in log.lines[-_LAST_LINES:]) or "  It wrote no log."
    ended = "failed" if not succeeded else "ended well, but its report did not reach its log"
    raise TaskFailedError(
        f"task {task_id} ({where.command}) {ended}: {why}\n{told}\nWhole log: {where.log_group} {log.stream}"
    )


@dataclass
class _Log:
    """A task's log, read page by page as it grows."""

    client: Any
    where: TaskPlace
    task_id: str
    lines: list[str] = field(default_factory=list)
    _token: str | None = None
    _parts: dict[int, str] = field(default_factory=dict)
    _complete: bool = False

    @property
    def stream(self) -> str:
        return f"{self.where.log_stream_prefix}/{self.where.container}/{self.task_id}"

    def tell(self, follow: Say) -> None:
        """Read what is new, and tell it."""
        for message in self._new():
            line = self._read(message)
            if line:
                self.lines.append(line)
                follow(line)

    def report(self) -> dict[str, Any] | None:
        """The report, if all of it and the line after it are there."""
        if not self._complete:
            return None
        report: dict[str, Any] = json.loads("".join(self._parts[part] for part in sorted(self._parts)))
        return report

    def _new(self) -> Iterator[str]:
        from botocore.exceptions import ClientError

        while True:
            token = {"nextToken": self._token} if self._token else {}
            try:
                page = self.client.get_log_events(
                    logGroupName=self.where.log_group,
                    logStreamName=self.stream,
                    startFromHead=True,
                    **token,
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceNotFoundException":
                    raise
                return
            yield from (str(each["message"]) for each in page["events"])
            # The end is where the token stays the same; a page before it may be empty.
            ended = page["nextForwardToken"] == self._token
            self._token = page["nextForwardToken"]
            if ended:
                return

    def _read(self, message: str) -> str:
        try:
            fields = json.loads(message)
        except ValueError:
            return message
        if not isinstance(fields, dict):
            return message
        if fields.get("message") == self.where.command and fields.get("phase") == "report":
            self._parts[int(fields["part"])] = str(fields["text"])
            return ""
        if fields.get("message") == self.where.command and fields.get("phase") == "all":
            self._complete = fields.get("outcome") == "done"
        return told(fields)


def told(fields: Mapping[str, Any]) -> str:
    """A line of the server's log for people."""
    words = [str(fields.get("message", "")), str(fields.get("phase") or ""), str(fields.get("outcome") or "")]
    if "ms" in fields:
        words.append(f"{fields['ms'] / 1000:.1f} s")
    words += [f"{name}={value}" for name, value in fields.items() if name not in _FRAME]
    return " ".join(filter(None, words))
