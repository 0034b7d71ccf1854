"""Each adapter that brings the emulator closer to AWS, seen through the API."""

from __future__ import annotations

import io
import json
import time
import urllib.error
import urllib.request
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from tests.local.conftest import Account

TASK_CODE = """
import json, os, urllib.request
request = urllib.request.Request(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"],
                                 headers={"Authorization": os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]})
document = json.load(urllib.request.urlopen(request))
print(json.dumps({"role": document["RoleArn"], "key": document["AccessKeyId"][:4],
                  "environment": sorted(os.environ), "word": os.environ["WORD"],
                  "url": os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]}))
"""


def test_a_bucket_of_cloudformation_has_its_encryption(account: Account) -> None:
    s3, outputs = account.aws.client("s3"), account.instance["outputs"]
    rule = s3.get_bucket_encryption(Bucket=outputs["Bucket"])["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["BucketKeyEnabled"] is True
    assert rule["ApplyServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": outputs["KeyArn"],
    }


def test_an_object_is_encrypted_with_the_bucket_s_key_without_asking(account: Account) -> None:
    s3, outputs = account.aws.client("s3"), account.instance["outputs"]
    put = s3.put_object(Bucket=outputs["Bucket"], Key="k", Body=b"x")
    assert (put["ServerSideEncryption"], put["SSEKMSKeyId"]) == ("aws:kms", outputs["KeyArn"])


def test_a_database_of_cloudformation_has_a_managed_secret_and_a_reachable_address(account: Account) -> None:
    outputs = account.instance["outputs"]
    assert account.instance["MasterUserSecret"]["SecretArn"] == outputs["Secret"]
    assert account.instance["Endpoint"]["Address"] == outputs["Endpoint"] == "localhost"
    assert account.instance["Endpoint"]["Port"] == account.database_port


def test_s3_refuses_requests_that_nobody_signed(account: Account) -> None:
    url = f"{account.aws.endpoint}/{account.instance['outputs']['Bucket']}/k"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url)
    assert refused.value.code == 403
    refused.value.close()


def test_a_role_can_do_what_its_policy_says_and_no_more(account: Account) -> None:
    bucket = account.instance["outputs"]["Bucket"]
    resource = f"arn:aws:s3:::{bucket}/mine/*"
    put = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": resource}
    key = account.instance["outputs"]["KeyArn"]
    encrypt = {"Effect": "Allow", "Action": "kms:GenerateDataKey", "Resource": key}
    with pytest.raises(ClientError, match="AccessDenied"):
        account.role([put]).client("s3").put_object(Bucket=bucket, Key="mine/a", Body=b"x")
    role = account.role([put, encrypt])
    s3 = role.client("s3")
    s3.put_object(Bucket=bucket, Key="mine/a", Body=b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=bucket, Key="other/a", Body=b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.get_object(Bucket=bucket, Key="mine/a")
    with pytest.raises(ClientError, match="AccessDenied"):
        role.client("iam").list_roles()


@pytest.fixture(scope="module")
def task_role(account: Account) -> str:
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "ecs-tasks.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = account.aws.client("iam").create_role(RoleName="task", AssumeRolePolicyDocument=json.dumps(trust))
    return str(role["Role"]["Arn"])


def run_task(account: Account, task_role: str, code: str, **overrides: Any) -> tuple[dict[str, Any], str]:
    """Run a task to its end; return its description and what it printed to CloudWatch."""
    ecs, logs = account.aws.client("ecs"), account.aws.client("logs")
    ecs.create_cluster(clusterName="tested")
    logs.create_log_group(logGroupName="tasks") if not logs.describe_log_groups()["logGroups"] else None
    options = {"awslogs-group": "tasks", "awslogs-stream-prefix": "t", "awslogs-region": account.aws.region,
               "awslogs-create-group": "true"}  # fmt: skip
    ecs.register_task_definition(
        family="tested",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        taskRoleArn=task_role,
        containerDefinitions=[
            {
                "name": "main",
                "image": "tested/image:latest",
                "command": [code],
                "environment": [{"name": "WORD", "value": "defined"}],
                "logConfiguration": {"logDriver": "awslogs", "options": options},
            }
        ],
    )
    started = ecs.run_task(
        cluster="tested", taskDefinition="tested", launchType="FARGATE", overrides=overrides
    )
    arn = started["tasks"][0]["taskArn"]
    deadline = time.monotonic() + 30
    while (task := ecs.describe_tasks(cluster="tested", tasks=[arn])["tasks"][0])["lastStatus"] != "STOPPED":
        assert time.monotonic() < deadline, task
        time.sleep(0.1)
    stream = f"t/main/{arn.rsplit('/', 1)[-1]}"
    for _ in range(100):
        try:
            events = logs.get_log_events(logGroupName="tasks", logStreamName=stream)["events"]
        except ClientError:
            events = []
        if events:
            break
        time.sleep(0.1)
    return task, "\n".join(event["message"] for event in events)


@pytest.fixture(scope="module")
def told(account: Account, task_role: str) -> tuple[dict[str, Any], dict[str, Any]]:
    overrides = {"name": "main", "environment": [{"name": "WORD", "value": "overridden"}]}
    task, printed = run_task(account, task_role, TASK_CODE, containerOverrides=[overrides])
    return task, json.loads(printed)


def test_a_task_runs_for_real_and_its_output_reaches_cloudwatch(
    told: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    task, printed = told
    assert task["containers"][0]["exitCode"] == 0
    assert printed["word"] == "overridden"


def test_a_task_gets_temporary_credentials_of_its_own_role(
    told: tuple[dict[str, Any], dict[str, Any]], task_role: str
) -> None:
    assert (told[1]["role"], told[1]["key"]) == (task_role, "ASIA")


def test_a_task_s_environment_holds_no_key_of_the_emulator(
    told: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    names = told[1]["environment"]
    assert not [name for name in names if "ACCESS_KEY" in name or "SESSION_TOKEN" in name]


def test_without_its_token_a_task_gets_no_credentials(
    told: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(told[1]["url"])
    assert refused.value.code == 403
    refused.value.close()


def test_a_task_that_fails_reports_its_exit_code(account: Account, task_role: str) -> None:
    task, printed = run_task(account, task_role, "print('about to fail', flush=True); raise SystemExit(7)")
    assert task["containers"][0]["exitCode"] == 7
    assert task["stopCode"] == "EssentialContainerExited"
    assert printed == "about to fail"


def test_a_function_has_boto3_and_its_own_role(account: Account) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr(
            "index.py",
            "import boto3\ndef handler(event, context):\n"
            "    return boto3.client('sts').get_caller_identity()['Arn']\n",
        )
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    role = account.aws.client("iam").create_role(RoleName="fn", AssumeRolePolicyDocument=json.dumps(trust))
    functions = account.aws.client("lambda")
    functions.create_function(
        FunctionName="who",
        Runtime="python3.14",
        Handler="index.handler",
        Role=role["Role"]["Arn"],
        Code={"ZipFile": archive.getvalue()},
        Timeout=30,
    )
    answer = json.load(functions.invoke(FunctionName="who")["Payload"])
    assert answer.endswith("assumed-role/fn/who")


def test_a_role_that_may_run_one_definition_in_one_cluster_runs_no_other(
    account: Account, task_role: str
) -> None:
    run_task(account, task_role, "print(1)")
    ecs = account.aws.client("ecs")
    definition = ecs.describe_task_definition(taskDefinition="tested")["taskDefinition"]["taskDefinitionArn"]
    cluster = ecs.describe_clusters(clusters=["tested"])["clusters"][0]["clusterArn"]
    condition = {"ArnEquals": {"ecs:cluster": cluster}}
    runner = account.role(
        [{"Effect": "Allow", "Action": "ecs:RunTask", "Resource": definition, "Condition": condition}]
    ).client("ecs")
    assert runner.run_task(cluster="tested", taskDefinition=definition)["tasks"]
    other = definition.rpartition(":")[0] + ":999"
    with pytest.raises(ClientError, match="AccessDenied"):
        runner.run_task(cluster="tested", taskDefinition=other)
    with pytest.raises(ClientError, match="AccessDenied"):
        runner.run_task(cluster="elsewhere", taskDefinition=definition)
