"""The way through an account with the pinned CDK CLI: deploy, change, destroy, and deploy again."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass

import pytest

from local.recorded import only_recorded, told
from tests.deploy.conftest import FOUNDATION, SERVICE, EmulatedAccount

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DEPLOY = 'make deploy ENV=dev ARGS="--require-approval never"'


@pytest.fixture(scope="module")
def deployed(emulated: EmulatedAccount) -> EmulatedAccount:
    """The account after README's commands."""
    emulated.shell.does("make bootstrap ENV=dev")
    emulated.shell.does(DEPLOY)
    return emulated


def test_every_resource_of_the_templates_is_in_the_account(deployed: EmulatedAccount) -> None:
    created = json.loads((deployed.platform.state.run / "emulator" / "ready.json").read_text())["types"]
    for name in (FOUNDATION, SERVICE):
        template = deployed.template(name)
        assert set(deployed.stack(name).resources) == set(template["Resources"])
        print("\n".join(told(only_recorded(template, created))))


def test_the_resources_are_what_the_stacks_say(deployed: EmulatedAccount) -> None:
    assert "✗" not in deployed.shell.does("make verify ENV=dev")


def test_the_foundation_is_protected_after_the_first_deployment(deployed: EmulatedAccount) -> None:
    stacks = deployed.aws.client("cloudformation").describe_stacks(StackName=FOUNDATION)["Stacks"]
    assert stacks[0]["EnableTerminationProtection"]


def test_a_second_deployment_changes_nothing(deployed: EmulatedAccount) -> None:
    before = deployed.resources()
    assert "Number of stacks with differences: 0" in deployed.shell.does("make diff ENV=dev")
    said = deployed.shell.does(DEPLOY)
    assert f"{FOUNDATION} (no changes)" in said
    assert f"{SERVICE} (no changes)" in said
    assert deployed.resources() == before


def test_a_changed_value_changes_only_what_it_should(deployed: EmulatedAccount) -> None:
    before, networks = deployed.resources(), ["10.0.0.0/8", "192.168.0.0/16"]
    deployed.shell.configure(ingress={"allowed_cidrs": networks})
    (group,) = changed_in(deployed.shell.does("make diff ENV=dev"))
    assert deployed.stack(SERVICE).resources[group][0] == "AWS::EC2::SecurityGroup"
    deployed.shell.does(DEPLOY)
    assert deployed.resources() == before
    described = deployed.aws.client("ec2").describe_security_groups(GroupIds=[before[SERVICE][group]])
    rules = described["SecurityGroups"][0]["IpPermissions"]
    assert [each["CidrIp"] for rule in rules for each in rule["IpRanges"]] == networks


def changed_in(diff: str) -> set[str]:
    """Logical ids of the resources that `cdk diff` names."""
    return set(
        re.findall(
            r"^\[[~+-]\] AWS::\S+ .*?(\w+)(?: (?:may be replaced|replace|destroy))?$", diff, re.MULTILINE
        )
    )


@dataclass(frozen=True)
class Data:
    """An artifact and a person, as somebody's work leaves them."""

    bucket: str
    pool: str
    name: str

    def is_there(self, account: EmulatedAccount) -> bool:
        """Whether both can be read."""
        body = account.aws.client("s3").get_object(Bucket=self.bucket, Key=self.name)["Body"].read()
        people = account.aws.client("cognito-idp").list_users(UserPoolId=self.pool)["Users"]
        return body == b"by a run" and self.name in [each["Username"] for each in people]


def put_data(account: EmulatedAccount, name: str) -> Data:
    outputs = account.stack(SERVICE).outputs
    data = Data(outputs["ArtifactBucket"], outputs["UserPoolId"], name)
    account.aws.client("s3").put_object(Bucket=data.bucket, Key=name, Body=b"by a run")
    account.aws.client("cognito-idp").admin_create_user(
        UserPoolId=data.pool, Username=name, TemporaryPassword="Te5t!" + secrets.token_hex(8)
    )
    return data


def test_a_destroyed_service_comes_back_to_its_data(deployed: EmulatedAccount) -> None:
    before = deployed.resources()
    data = put_data(deployed, "first")
    with deployed.platform.postgres.cursor("mlflow") as cursor:
        cursor.execute("INSERT INTO experiments (name, lifecycle_stage) VALUES ('kept', 'active')")
    said = deployed.shell.does('make destroy ENV=dev ARGS="--force"')
    assert "runs, models and people stay" in said
    assert deployed.status(SERVICE) == ""
    assert services_left(deployed) == []
    deployed.shell.does(DEPLOY)
    assert deployed.resources()[FOUNDATION] == before[FOUNDATION]
    assert data.is_there(deployed)
    with deployed.platform.postgres.cursor("mlflow") as cursor:
        cursor.execute("SELECT count(*) FROM experiments WHERE name = 'kept'")
        assert cursor.fetchone() == (1,)


def services_left(deployed: EmulatedAccount) -> list[str]:
    """What of the service stack is still there without it."""
    client = deployed.aws.client
    return [
        *(each["LoadBalancerArn"] for each in client("elbv2").describe_load_balancers()["LoadBalancers"]),
        *(each["TargetGroupArn"] for each in client("elbv2").describe_target_groups()["TargetGroups"]),
        *client("ecs").list_clusters()["clusterArns"],
        *(each["RoleName"] for each in client("iam").list_roles()["Roles"] if SERVICE in each["RoleName"]),
        *(
            each["FunctionName"]
            for each in client("lambda").list_functions()["Functions"]
            if SERVICE in each["FunctionName"]
        ),
        *(
            each["logGroupName"]
            for each in client("logs").describe_log_groups()["logGroups"]
            if SERVICE in each["logGroupName"]
        ),
    ]


def test_destroying_everything_says_what_refuses_before_it_starts(deployed: EmulatedAccount) -> None:
    said = deployed.shell.refuses('make destroy ENV=dev STACKS=--all ARGS="--force"')
    assert f"{FOUNDATION}: termination_protection is true" in said
    assert "database.deletion_protection is true" in said
    assert "set them to false in config/dev.toml" in said
    assert (deployed.status(FOUNDATION), deployed.status(SERVICE)) == ("CREATE_COMPLETE", "CREATE_COMPLETE")


def test_everything_can_be_destroyed_and_deployed_again_and_data_survives(deployed: EmulatedAccount) -> None:
    data = put_data(deployed, "second")
    before = deployed.stack(FOUNDATION)
    deployed.shell.configure(termination_protection=False, database={"deletion_protection": False})
    deployed.shell.does(DEPLOY)
    deployed.shell.does('make destroy ENV=dev STACKS=--all ARGS="--force"')
    assert (deployed.status(FOUNDATION), deployed.status(SERVICE)) == ("", "")
    assert data.is_there(deployed)
    rds = deployed.aws.client("rds")
    assert rds.describe_db_instances()["DBInstances"] == []
    assert len(rds.describe_db_snapshots()["DBSnapshots"]) == 1
    kms = deployed.aws.client("kms")
    for key in before.of_type("AWS::KMS::Key"):
        assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"
    roles = [each["RoleName"] for each in deployed.aws.client("iam").list_roles()["Roles"]]
    assert [each for each in roles if each.startswith("MlflowOnAws")] == []
    deployed.shell.does(DEPLOY)
    assert deployed.stack(SERVICE).outputs["ArtifactBucket"] != data.bucket
