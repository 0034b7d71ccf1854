"""A deployment that fails half way is repeated, and ends well without a hand's work."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.conftest import FOUNDATION, SERVICE, EmulatedAccount

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DEPLOY = 'make deploy ENV=dev ARGS="--require-approval never"'
# The emulator does not find a stack by a resource's id, so the role below would count as somebody else's.
AGAIN = f"PREFLIGHT=no {DEPLOY}"
# Its name is taken: whatever was made before it has to go again.
TAKEN = "mlflow-train"
WORKFLOW = {"name": TAKEN, "role": "contributor", "repository": "example/models", "branch": "main"}


def take_the_name(account: EmulatedAccount) -> None:
    trust = {"Statement": [{"Effect": "Deny", "Principal": "*", "Action": "*"}]}
    account.aws.client("iam").create_role(RoleName=TAKEN, AssumeRolePolicyDocument=json.dumps(trust))


def kept(account: EmulatedAccount) -> dict[str, Any]:
    """What holds data or is protected, and is in the account now."""
    client = account.aws.client
    keys = [each["KeyId"] for each in client("kms").list_keys()["Keys"]]
    states = [client("kms").describe_key(KeyId=each)["KeyMetadata"]["KeyState"] for each in keys]
    return {
        "buckets": len(
            [each for each in client("s3").list_buckets()["Buckets"] if "cdk" not in each["Name"]]
        ),
        "keys": states.count("Enabled"),
        "pools": len(client("cognito-idp").list_user_pools(MaxResults=60)["UserPools"]),
        "databases": len(client("rds").describe_db_instances()["DBInstances"]),
    }


def test_a_first_deployment_that_fails_can_be_repeated(emulated: EmulatedAccount) -> None:
    emulated.shell.does("make bootstrap ENV=dev")
    take_the_name(emulated)
    emulated.shell.configure(identity={"github": [WORKFLOW]})
    assert TAKEN in emulated.shell.refuses(DEPLOY)
    assert emulated.status(FOUNDATION) == ""  # the preflight has seen it
    assert TAKEN in emulated.shell.refuses(f"PREFLIGHT=no {DEPLOY}")
    assert emulated.status(FOUNDATION) in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED")
    emulated.shell.configure(identity={"github": [{**WORKFLOW, "name": "mlflow-train-2"}]})
    said = emulated.shell.does(DEPLOY)
    assert f"{FOUNDATION}: its first deployment failed" in said
    assert (emulated.status(FOUNDATION), emulated.status(SERVICE)) == ("CREATE_COMPLETE", "CREATE_COMPLETE")
    template = emulated.template(FOUNDATION)["Resources"].values()
    count = [each["Type"] for each in template].count
    assert kept(emulated) == {
        "buckets": count("AWS::S3::Bucket"),
        "keys": count("AWS::KMS::Key"),
        "pools": 1,
        "databases": 1,
    }


def test_a_service_that_fails_can_be_repeated(emulated: EmulatedAccount) -> None:
    before = emulated.resources()[FOUNDATION]
    emulated.shell.does('make destroy ENV=dev ARGS="--force"')
    emulated.shell.configure(server={"image_uri": "mlflow-on-aws/server:none"})
    emulated.shell.refuses(AGAIN)
    assert emulated.status(SERVICE) == "ROLLBACK_COMPLETE"
    emulated.shell.configure(server={"image_uri": "mlflow-on-aws/server:local"})
    said = emulated.shell.does(AGAIN)
    assert f"{SERVICE}: its first deployment failed" in said
    assert emulated.status(SERVICE) == "CREATE_COMPLETE"
    assert emulated.resources()[FOUNDATION] == before


def test_a_change_that_fails_is_rolled_back_and_repeated(emulated: EmulatedAccount) -> None:
    before = emulated.resources()[SERVICE]
    emulated.shell.configure(server={"image_uri": "mlflow-on-aws/server:none"})
    emulated.shell.refuses(AGAIN)
    assert emulated.status(SERVICE) == "UPDATE_ROLLBACK_COMPLETE"
    emulated.shell.configure(server={"image_uri": "mlflow-on-aws/server:local", "memory_mib": 2048})
    emulated.shell.does(AGAIN)
    assert emulated.status(SERVICE) == "UPDATE_COMPLETE"
    after = emulated.resources()[SERVICE]
    # Each migration has resources of its own; the tasks, also those that an operator starts, run the image.
    others = {key for key in before.keys() & after.keys() if not key.startswith("Migration")}
    changed = {key for key in others if after[key] != before[key]}
    assert all("TaskDefinition" in key for key in changed), changed
