"""On a running deployment: the canary as it is deployed, and what turns which of its metrics red."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from local.parts.postgres import Postgres
from local.platform import account
from local.state import State
from tests.laptop import Laptop

pytestmark = pytest.mark.slow
SERVICE = "MlflowOnAws-dev-Service"
# Somebody else's model, under a name like the canary's.
DECOY = "smoke-canary-of-a-person"
_SECONDS = 240


@dataclass(frozen=True)
class Deployed:
    """The canary's task, as CloudFormation made it and as its rule starts it."""

    state: State
    resources: Mapping[str, str]

    def client(self, service: str) -> Any:
        return account(self.state).client(service)

    def one(self, start: str) -> str:
        (found,) = (name for logical, name in self.resources.items() if logical.startswith(start))
        return found

    def start(self) -> str:
        """Start the task as the rule's target says; the emulator keeps no network of a target."""
        ecs, events = self.client("ecs"), self.client("events")
        (target,) = events.list_targets_by_rule(Rule=self.one("CanarySchedule"))["Targets"]
        service = ecs.describe_services(cluster=target["Arn"], services=[self.one("ServerService")])
        (started,) = ecs.run_task(
            cluster=target["Arn"],
            taskDefinition=target["EcsParameters"]["TaskDefinitionArn"],
            launchType="FARGATE",
            networkConfiguration=service["services"][0]["networkConfiguration"],
            overrides=json.loads(target["Input"]),
        )["tasks"]
        return str(started["taskArn"])

    def ended(self, task: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while True:
            (found,) = self.client("ecs").describe_tasks(cluster=task.split("/")[1], tasks=[task])["tasks"]
            if found["lastStatus"] == "STOPPED":
                return
            assert time.monotonic() < deadline, found
            time.sleep(1)

    def told(self, task: str) -> dict[str, Any]:
        """The line of a run that has ended, from the log group of its definition."""
        stream = f"canary/canary/{task.rsplit('/', 1)[-1]}"
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(self.client("logs").exceptions.ResourceNotFoundException):
                page = self.client("logs").get_log_events(
                    logGroupName=self.one("ClusterLog"), logStreamName=stream, startFromHead=True
                )
                for event in page["events"]:
                    if event["message"].startswith('{"_aws"'):
                        line: dict[str, Any] = json.loads(event["message"])
                        return line
            assert time.monotonic() < deadline, f"no line in {stream}"
            time.sleep(1)

    def run(self) -> dict[str, Any]:
        task = self.start()
        self.ended(task)
        return self.told(task)

    @contextlib.contextmanager
    def superuser(self) -> Iterator[Any]:
        directory = State.read(self.state.run / "postgres.json")["directory"]
        with Postgres(directory=Path(directory), port=5432, host="").cursor("mlflow") as cursor:
            yield cursor


@pytest.fixture(scope="module")
def deployed(laptop: Laptop) -> Deployed:
    pages = account(laptop.state).client("cloudformation").get_paginator("list_stack_resources")
    kinds = ("AWS::Events::Rule", "AWS::ECS::Service", "AWS::IAM::Role", "AWS::Logs::LogGroup")
    return Deployed(
        laptop.state,
        {
            each["LogicalResourceId"]: each["PhysicalResourceId"]
            for page in pages.paginate(StackName=SERVICE)
            for each in page["StackResourceSummaries"]
            if each["ResourceType"] in kinds
        },
    )


@contextlib.contextmanager
def broken_bucket_policy(deployed: Deployed) -> Iterator[None]:
    """Somebody's policy shuts everybody out of where the canary writes."""
    (stack,) = deployed.client("cloudformation").describe_stacks(StackName=SERVICE)["Stacks"]
    bucket = next(each["OutputValue"] for each in stack["Outputs"] if each["OutputKey"] == "ArtifactBucket")
    s3 = deployed.client("s3")
    before = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    policy = json.loads(before)
    policy["Statement"].append(
        {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    )
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    try:
        yield
    finally:
        s3.put_bucket_policy(Bucket=bucket, Policy=before)


@contextlib.contextmanager
def stopped_database(deployed: Deployed) -> Iterator[None]:
    """Clients lose the database until it is started again."""
    rds = deployed.client("rds")
    (instance,) = rds.describe_db_instances()["DBInstances"]
    named = {"DBInstanceIdentifier": instance["DBInstanceIdentifier"]}
    rds.stop_db_instance(**named)
    try:
        yield
    finally:
        rds.start_db_instance(**named)


@contextlib.contextmanager
def revoked_role(deployed: Deployed) -> Iterator[None]:
    """An administrator takes from the canary's role what makes it known to the server."""
    iam = deployed.client("iam")
    denied = {"Effect": "Deny", "Action": "sts:GetWebIdentityToken", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    iam.put_role_policy(
        RoleName=deployed.one("CanaryTaskRole"), PolicyName="Revoked", PolicyDocument=document
    )
    try:
        yield
    finally:
        iam.delete_role_policy(RoleName=deployed.one("CanaryTaskRole"), PolicyName="Revoked")


@dataclass(frozen=True)
class Api:
    """MLflow's API as somebody with one of the roles."""

    environ: Mapping[str, str]

    def __call__(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        answer = requests.request(
            method,
            f"{self.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{path}",
            headers={"Authorization": f"Bearer {self.environ['MLFLOW_TRACKING_TOKEN']}"},
            verify=self.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"],
            timeout=30,
            params=body if method == "GET" else None,
            json=None if method == "GET" else body,
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def models(self) -> set[str]:
        found = self("GET", "registered-models/search", filter="name LIKE 'smoke-canary-%'")
        return {each["name"] for each in found.get("registered_models", ())}

    def runs(self, experiment: str) -> set[str]:
        found = self("POST", "runs/search", experiment_ids=[experiment])
        return {each["info"]["run_id"] for each in found.get("runs", ())}


def killed_at_work(deployed: Deployed, api: Api) -> None:
    """A run that is killed once it has registered a model."""
    task = deployed.start()
    deadline = time.monotonic() + _SECONDS
    while not (api.models() - {DECOY}):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (process,) = (each for each in deployed.state.ledger.alive() if each.what.endswith("-canary"))
    os.kill(process.pid, signal.SIGKILL)
    deployed.ended(task)


def two_hours_pass(deployed: Deployed) -> None:
    with deployed.superuser() as cursor:
        for table, column in (("registered_models", "creation_time"), ("runs", "start_time")):
            cursor.execute(f"UPDATE {table} SET {column} = {column} - 7200000")


def test_it_passes_and_removes_what_a_killed_run_left_and_nothing_else(
    deployed: Deployed, laptop: Laptop
) -> None:
    api = Api(laptop.environment("contributor"))
    api("POST", "registered-models/create", name=DECOY)
    killed_at_work(deployed, api)
    experiment = api("GET", "experiments/get-by-name", experiment_name="smoke-canary")["experiment"]
    theirs = api("POST", "runs/create", experiment_id=experiment["experiment_id"], start_time=1)
    left = api.models() - {DECOY}
    assert left
    assert len(api.runs(experiment["experiment_id"])) > 1
    two_hours_pass(deployed)

    line = deployed.run()
    assert (line["broken"], line["CanarySucceeded"]) == ([], 1)
    assert line["passed"] == 28
    assert api.models() == {DECOY}
    assert api.runs(experiment["experiment_id"]) == {theirs["run"]["info"]["run_id"]}
    # CloudWatch Logs makes a metric of it, under the one dimension.
    now = datetime.datetime.now(datetime.UTC)
    counted = deployed.client("cloudwatch").get_metric_statistics(
        Namespace=line["_aws"]["CloudWatchMetrics"][0]["Namespace"],
        MetricName="CanarySucceeded",
        Dimensions=[{"Name": "Deployment", "Value": SERVICE}],
        StartTime=now - datetime.timedelta(hours=1),
        EndTime=now + datetime.timedelta(minutes=1),
        Period=3600,
        Statistics=["Minimum"],
    )
    assert [each["Minimum"] for each in counted["Datapoints"]] == [1.0]


@pytest.mark.parametrize(
    ("change", "red", "step"),
    [
        (broken_bucket_policy, "CanaryArtifacts", "role_reaches_s3"),
        (stopped_database, "CanaryTracking", "server_is_healthy"),
        (revoked_role, "CanaryIdentity", "token_is_issued"),
    ],
)
def test_what_breaks_turns_its_promise_red_and_no_other(
    deployed: Deployed, change: Callable[[Deployed], AbstractContextManager[None]], red: str, step: str
) -> None:
    with change(deployed):
        line = deployed.run()
    assert line["CanarySucceeded"] == 0
    told = {each["Name"] for each in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert told - {"CanarySucceeded", "CanarySeconds"} == {red}, line
    assert line[red] == 0
    assert [each["step"] for each in line["broken"]] == [step]
