"""On a running deployment: every change by hand turns a check red, and green again once it is undone."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from findings.finding import AccountFinding, Mark
from local.environment import clean
from local.platform import REGION, account
from local.state import PROJECT
from tests.laptop import Laptop
from tests.verify_account.misconfigurations import MORE, TWELVE, Change, Deployment, made
from verify_account.verify import CHECKS, verify

pytestmark = pytest.mark.slow
SERVICE = "MlflowOnAws-dev-Service"
# What the emulator does not know, or only records.
NOT_ASKED = {
    "the listener has no other certificate",
    "the network's traffic is recorded",
}


@pytest.fixture(scope="module")
def deployment(laptop: Laptop) -> Deployment:
    client = account(laptop.state).client
    (stack,) = client("cloudformation").describe_stacks(StackName=SERVICE)["Stacks"]
    return Deployment(client, {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]})


def findings(deployment: Deployment) -> list[AccountFinding]:
    return verify(deployment.client, deployment.outputs)


def bad(deployment: Deployment) -> list[str]:
    return [f"{each.title}: {each.told}" for each in findings(deployment) if each.mark is Mark.BAD]


def test_the_deployment_as_deployed_passes_and_what_cannot_be_asked_here_is_told(
    deployment: Deployment,
) -> None:
    found = findings(deployment)
    assert [each for each in found if each.mark is Mark.BAD] == []
    assert {each.title for each in found if each.mark is Mark.NOT_ASKED} == NOT_ASKED
    assert len(found) == len(CHECKS)


def at_rest(deployment: Deployment) -> list[str]:
    """What is red once nothing moves: a busy machine may replace a task, whose target stays for a while."""
    deadline = time.monotonic() + 60
    while (red := bad(deployment)) and time.monotonic() < deadline:
        time.sleep(2)
    return red


@pytest.mark.parametrize(("change", "title"), TWELVE.values(), ids=TWELVE)
def test_a_change_by_hand_turns_a_check_red_and_undoing_it_green(
    deployment: Deployment, change: Change, title: str
) -> None:
    with made(change, deployment):
        red = bad(deployment)
    assert [each for each in red if title in each], red
    assert at_rest(deployment) == []


@pytest.mark.parametrize(("change", "title"), MORE.values(), ids=MORE)
def test_a_change_by_hand_turns_a_check_red(deployment: Deployment, change: Change, title: str) -> None:
    with made(change, deployment):
        red = bad(deployment)
    assert [each for each in red if title in each], red


def test_with_every_change_undone_all_is_green(deployment: Deployment) -> None:
    assert at_rest(deployment) == []


def command(
    laptop: Laptop, *arguments: str, module: str = "verify_account", **credentials: str
) -> subprocess.CompletedProcess[str]:
    """`python -m` one of the two looks, in a shell with these credentials, on loopback."""
    aws = account(laptop.state)
    given = {
        "AWS_ACCESS_KEY_ID": aws.access_key,
        "AWS_SECRET_ACCESS_KEY": aws.secret_key,
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_REGION": REGION,
        **credentials,
    }
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=PROJECT,
        env=clean(**given),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_passes_and_prints_every_check(laptop: Laptop) -> None:
    done = command(laptop, "--env", "dev")
    assert done.returncode == 0, done.stdout + done.stderr
    for title in NOT_ASKED:
        assert title[:40] in done.stdout
    assert f"{SERVICE} in {REGION}: {len(CHECKS) - len(NOT_ASKED)} passed, 2 not asked here" in done.stdout


def test_the_command_tells_programs_what_failed_and_why(laptop: Laptop, deployment: Deployment) -> None:
    change, title = TWELVE["versioning suspended"]
    with made(change, deployment):
        done = command(laptop, "--json")
    assert done.returncode == 1
    (failed,) = [each for each in json.loads(done.stdout)["findings"] if each["result"] == "failed"]
    assert title in failed["title"]
    assert "Suspended" in failed["observed"]
    assert failed["remedy"]


def limited(laptop: Laptop, document: object) -> dict[str, str]:
    """Credentials of a new user with this policy."""
    iam = account(laptop.state).client("iam")
    name = f"verifier-{len(iam.list_users()['Users'])}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="verify", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}


def test_the_printed_policy_suffices(laptop: Laptop) -> None:
    policy = json.loads(command(laptop, "--policy").stdout)
    done = command(laptop, "--json", **limited(laptop, policy))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_denied_call_is_one_failed_check_that_names_the_action(laptop: Laptop) -> None:
    policy = json.loads(command(laptop, "--policy").stdout)
    policy["Statement"][0]["Action"].remove("s3:GetBucketLogging")
    done = command(laptop, "--json", **limited(laptop, policy))
    assert done.returncode == 1
    (failed,) = [each for each in json.loads(done.stdout)["findings"] if each["result"] == "failed"]
    assert failed["observed"] == "denied: s3:GetBucketLogging"


def test_a_stack_that_is_not_there_is_told_with_the_place(laptop: Laptop) -> None:
    done = command(laptop, "--env", "nope")
    assert done.returncode == 2
    assert "no stack MlflowOnAws-nope-Service in account" in done.stderr
    assert REGION in done.stderr


def test_outputs_may_come_from_a_file(laptop: Laptop, deployment: Deployment) -> None:
    file = laptop.state.directory / "outputs.json"
    file.write_text(json.dumps({SERVICE: dict(deployment.outputs)}))
    assert command(laptop, "--outputs-file", str(file), "--json").returncode == 0
    file.write_text(json.dumps({SERVICE: {}}))
    done = command(laptop, "--outputs-file", str(file))
    assert done.returncode == 2
    assert "deploy this version first" in done.stderr


def test_the_policy_holds_what_is_asked_and_no_more(deployment: Deployment) -> None:
    from verify_account.account import Account

    asked = Account(deployment.client, deployment.outputs)
    for check in CHECKS:
        try:
            check.look(asked)
        except Exception as error:
            assert check.title in NOT_ASKED, error  # noqa: PT017
    policy = json.loads((PROJECT / "stacks" / "foundation" / "verifier.json").read_text())
    (statement,) = policy["Statement"]
    # Asked only of a snapshot, of Aurora, or where there are flow logs.
    elsewhere = {
        "ec2:DescribeFlowLogs",
        "rds:DescribeDBSnapshotAttributes",
        "rds:DescribeDBClusters",
        "rds:DescribeDBClusterParameters",
        "rds:DescribeDBClusterSnapshots",
        "rds:DescribeDBClusterSnapshotAttributes",
    }
    assert set(statement["Action"]) == asked.reader.actions | elsewhere


def test_preflight_finds_the_deployed_account_ready(laptop: Laptop) -> None:
    configuration = str(laptop.state.directory / "demo.toml")
    done = command(laptop, "--config", configuration, "--json", module="preflight")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {each["title"]: each["result"] for each in json.loads(done.stdout)["findings"]}
    assert found["the stacks are ready for a deployment"] == "passed"
    assert found["the certificate is issued, here, for this host"] == "passed"
    assert found["the database's class and version are offered in every zone"] == "passed"
