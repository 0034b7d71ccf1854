"""The whole platform, as `make up` starts it: from synthesis to a client's program."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from client_smoke.steps import STEPS
from local import demo_roles
from local.parts.aws import Aws
from local.platform import PARTNER, account
from local.state import PROJECT, State
from stacks.roles import BY_NAME
from tests.laptop import Laptop, running_laptop

# AKIA… and ASIA… are ids, not secrets, but do not belong in an argument list either.
_SECRET = re.compile(
    r"(AKIA|ASIA)[A-Z0-9]{12,}|X-Amz-Signature|password[=:]|aws_session_token", re.IGNORECASE
)


PROFILE = ("--approver-profile", "approver")


def exported(state: State, role: str) -> dict[str, str]:
    """The environment of a shell with an AWS profile after `make -s env ROLE=...`."""
    return Laptop(state).environment(role, AWS_PROFILE="somebody-else")


@pytest.fixture(scope="module")
def state() -> Iterator[State]:
    """A platform of its own, since a test kills its server and checks what it leaves behind."""
    with running_laptop() as laptop:
        yield laptop.state
        laptop.local("down")
        assert laptop.state.ledger.alive() == []
        assert not laptop.state.endpoints.exists()
        assert not laptop.state.users.exists()


@pytest.fixture(scope="module")
def client(state: State) -> dict[str, str]:
    """The environment of a contributor's shell."""
    return exported(state, "contributor")


@pytest.fixture(scope="module")
def partner(state: State, client: dict[str, str]) -> dict[str, dict[str, str]]:
    """Shells in a second account: its roles have the very documents of the deployed policies, by role."""
    ours = account(state)
    theirs = dataclasses.replace(ours, account_id=PARTNER, access_key=PARTNER)
    iam = theirs.client("iam")
    iam.enable_outbound_web_identity_federation()
    trust = {"Effect": "Allow", "Principal": {"AWS": PARTNER}, "Action": "sts:AssumeRole"}
    deployed = {
        each["PolicyName"]: each for each in ours.client("iam").list_policies(Scope="Local")["Policies"]
    }
    shells = {}
    for role in ("viewer", "contributor", "approver"):
        (policy,) = (each for name, each in deployed.items() if f"Clients{role.capitalize()}Policy" in name)
        version = ours.client("iam").get_policy_version(
            PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"]
        )
        copied = iam.create_policy(
            PolicyName=f"mlflow-{role}", PolicyDocument=json.dumps(version["PolicyVersion"]["Document"])
        )
        iam.create_role(
            RoleName=f"mlflow-{role}",
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
            MaxSessionDuration=demo_roles.SESSION_SECONDS,
        )
        iam.attach_role_policy(RoleName=f"mlflow-{role}", PolicyArn=copied["Policy"]["Arn"])
        session = demo_roles.assume(theirs, role)
        shells[role] = {
            **client,
            **session.variables(),
            "MLFLOW_TRACKING_TOKEN": demo_roles.token(session, audience=client["MLFLOW_AWS_AUDIENCE"]),
        }
    return shells


def processes() -> dict[int, tuple[int, str]]:
    """Parent and argument list of every process on this machine, as any user can see them."""
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        shown = subprocess.run(
            ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        ).stdout
        fields = (line.split(None, 2) for line in shown.splitlines())
        return {int(pid): (int(ppid), " ".join(args)) for pid, ppid, *args in fields}
    found = {}
    for directory in proc.iterdir():
        # It may have ended since it was listed.
        with contextlib.suppress(OSError):
            if directory.name.isdigit():
                parent = (directory / "stat").read_text().rpartition(")")[2].split()[1]
                line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(directory.name)] = (int(parent), line)
    return found


def command_lines(state: State) -> dict[int, str]:
    """Argument lists of the platform's processes and of all they started."""
    table = processes()
    supervisor = state.supervisor()
    assert supervisor is not None
    ours = {supervisor.pid}
    while more := {pid for pid, (parent, _) in table.items() if parent in ours} - ours:
        ours |= more
    return {pid: table[pid][1] for pid in ours}


def server(state: State) -> int:
    """The process id of the server task."""
    return next(each.pid for each in state.ledger.alive() if each.what.startswith("task "))


def browser(state: State) -> httpx.Client:
    """A client that trusts the platform's authority, keeps cookies and follows no redirect."""
    endpoints = State.read(state.endpoints)
    trust = ssl.create_default_context(cafile=endpoints["ca_file"])
    return httpx.Client(base_url=endpoints["tracking_url"], verify=trust, trust_env=False, timeout=30)


def get(state: State, path: str, token: str) -> int:
    with browser(state) as http:
        return http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code


@contextlib.contextmanager
def signed_in(state: State, who: str) -> Iterator[httpx.Client]:
    """A browser after signing in with the page, as a person does."""
    user = State.read(state.users)[who]
    with browser(state) as http:
        http.follow_redirects = True
        page = http.get("/")
        assert (page.status_code, page.url.path) == (200, "/oauth2/authorize")
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
        home = http.post(page.url.copy_with(path="/login", query=None), data={**hidden, **user})
        assert (home.status_code, home.url.path) == (200, "/")
        yield http


def approving(shell: dict[str, str], file: Path) -> dict[str, str]:
    """Write this shell's AWS credentials as the profile `approver`; return what names it."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    file.touch(mode=0o600)
    file.write_text("\n".join(["[approver]", *(f"{name.lower()} = {shell[name]}" for name in names), ""]))
    return {"AWS_SHARED_CREDENTIALS_FILE": str(file)}


def test_every_smoke_step_passes_and_no_argument_list_holds_a_secret(
    state: State, client: dict[str, str], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    files = {role: tmp_path / f"{role}.token" for role in ("viewer", "approver")}
    tokens = [client["MLFLOW_TRACKING_TOKEN"]]
    for role, file in files.items():
        file.touch(mode=0o600)
        tokens.append(exported(state, role)["MLFLOW_TRACKING_TOKEN"])
        file.write_text(tokens[-1])
    more = [part for role, file in files.items() for part in (f"--{role}-token-file", str(file))]
    profile = approving(exported(state, "approver"), tmp_path / "credentials")
    smoke = subprocess.Popen(
        [sys.executable, "-m", "client_smoke", "--require-all", "--json", str(report), *more, *PROFILE],
        cwd=PROJECT,
        env={**client, **profile},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seen: set[str] = set()
    while smoke.poll() is None:
        seen |= {line for _, line in processes().values()}
        with contextlib.suppress(subprocess.TimeoutExpired):
            smoke.wait(0.5)
    output, _ = smoke.communicate()
    assert smoke.returncode == 0, output
    steps = json.loads(report.read_text())["steps"]
    assert [step["name"] for step in steps][: len(STEPS)] == [step.name for step in STEPS]
    assert {step["status"] for step in steps} == {"passed"}

    root = State.read(state.root)
    secrets = [client["AWS_SECRET_ACCESS_KEY"], client["AWS_SESSION_TOKEN"], root["secret_key"], *tokens]
    assert any("mlflow_aws_server" in line for line in seen)
    assert not [line for line in seen if any(secret in line for secret in secrets)]
    assert not [line for line in command_lines(state).values() if _SECRET.search(line)]


@pytest.mark.slow
def test_every_smoke_step_passes_for_the_roles_of_a_second_account(
    partner: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    """A token chooses the load balancer's rule: there is nothing of ours in its clients."""
    files = {role: tmp_path / f"{role}.token" for role in ("viewer", "approver")}
    for role, file in files.items():
        file.touch(mode=0o600)
        file.write_text(partner[role]["MLFLOW_TRACKING_TOKEN"])
    more = [part for role, file in files.items() for part in (f"--{role}-token-file", str(file))]
    done = subprocess.run(
        [sys.executable, "-m", "client_smoke", "--require-all", *more, *PROFILE],
        cwd=PROJECT,
        env={**partner["contributor"], **approving(partner["approver"], tmp_path / "credentials")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"arn:aws:iam::{PARTNER}:role/mlflow-contributor" in done.stdout
    assert "every step passed" in done.stdout


def test_a_role_of_a_second_account_has_its_role_here_by_its_own_issuer(
    state: State, partner: dict[str, dict[str, str]]
) -> None:
    token = partner["viewer"]["MLFLOW_TRACKING_TOKEN"]
    with browser(state) as http:
        told = http.get("/api/2.0/mlflow-aws/whoami", headers={"Authorization": f"Bearer {token}"}).json()
    assert (told["principal"], told["role"]) == (f"arn:aws:iam::{PARTNER}:role/mlflow-viewer", "viewer")
    iam = dataclasses.replace(account(state), account_id=PARTNER, access_key=PARTNER).client("iam")
    issuer = iam.get_outbound_web_identity_federation_info()["IssuerIdentifier"]
    assert issuer != State.read(state.endpoints)["token_issuer"]


def test_stock_client_connects_with_nothing_but_the_exported_variables(client: dict[str, str]) -> None:
    program = (
        "import boto3, mlflow;"
        "assert mlflow.search_experiments()[0].artifact_location.startswith('s3://');"
        "print(boto3.client('sts').get_caller_identity()['Arn'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=client, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert ":assumed-role/" in done.stdout


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_the_server_s_environment_holds_no_key_and_no_password(state: State) -> None:
    for pid, line in command_lines(state).items():
        if "mlflow_aws_server" in line:
            content = Path(f"/proc/{pid}/environ").read_bytes().decode()
            names = {pair.partition("=")[0] for pair in content.split("\0")}
            assert not [
                name for name in names if re.search(r"ACCESS_KEY|SESSION_TOKEN|PASSWORD|PGPASS", name)
            ]
            # A URL with a password in it has `user:password@`.
            assert not re.search(r"://[^/@\s]+:[^/@\s]+@", content)


def test_the_client_has_temporary_credentials_of_a_role(client: dict[str, str]) -> None:
    assert client["AWS_ACCESS_KEY_ID"].startswith("ASIA")
    assert client["AWS_SESSION_TOKEN"]
    assert "AWS_PROFILE" not in client


def test_the_endpoints_file_says_where_everything_is(state: State) -> None:
    endpoints = json.loads(state.endpoints.read_text())
    assert set(endpoints) == {
        "tracking_url", "server_url", "ca_file", "aws_endpoint", "bucket", "region",
        "audience", "token_issuer", "sign_in_url", "users_file",
    }  # fmt: skip
    assert state.endpoints.stat().st_mode & 0o077 == 0
    with urllib.request.urlopen(f"{endpoints['server_url']}/health", timeout=10) as answer:
        assert answer.status == 200


def test_a_second_up_says_where_the_first_runs(state: State) -> None:
    assert "already running at https://localhost" in Laptop(state).local("up").stderr


def test_what_is_not_emulated_is_printed(state: State) -> None:
    printed = (state.logs / "platform.log").read_text()
    assert "Not emulated:" in printed
    assert "AWS::EC2::FlowLog" in printed


def test_readiness_is_not_answered_through_the_load_balancer(state: State, client: dict[str, str]) -> None:
    assert get(state, "/ready", client["MLFLOW_TRACKING_TOKEN"]) == 404


@pytest.mark.parametrize("role", ["viewer", "contributor", "approver", "admin"])
def test_a_program_has_the_role_of_its_environment(state: State, role: str) -> None:
    token = exported(state, role)["MLFLOW_TRACKING_TOKEN"]
    with browser(state) as http:
        told = http.get("/api/2.0/mlflow-aws/whoami", headers={"Authorization": f"Bearer {token}"}).json()
    assert (told["principal"], told["role"], told["lane"]) == (
        f"arn:aws:iam::000000000000:role/mlflow-{role}",
        role,
        "iam",
    )


def test_a_person_signs_in_with_the_page_and_has_the_role_of_their_group(state: State) -> None:
    create = "/ajax-api/2.0/mlflow/experiments/create"
    with signed_in(state, "viewer") as http:
        told = http.get("/api/2.0/mlflow-aws/whoami").json()
        refused = http.post(create, json={"name": "by a viewer"})
    assert (told["principal"], told["role"], told["lane"]) == ("cognito:viewer", "viewer", "cognito")
    assert refused.status_code == 403
    with signed_in(state, "contributor") as http:
        assert http.post(create, json={"name": "by a contributor"}).status_code == 200


def test_without_a_session_fetches_are_refused_and_visits_lead_to_the_page(
    state: State,
) -> None:
    sign_in = State.read(state.endpoints)["sign_in_url"]
    with browser(state) as http:
        assert http.post("/ajax-api/2.0/mlflow/runs/search", json={}).status_code == 401
        assert http.get("/api/2.0/mlflow-aws/whoami").status_code == 401
        visited = http.get("/")
    assert visited.status_code == 302
    assert visited.headers["Location"].startswith(f"{sign_in}/oauth2/authorize?")


def test_only_the_owner_can_read_the_passwords(state: State) -> None:
    users = State.read(state.users)
    assert set(users) == set(BY_NAME)
    assert state.users.stat().st_mode & 0o077 == 0
    assert len({user["password"] for user in users.values()}) == len(users)


def test_a_registration_is_an_event_on_the_deployed_bus_and_a_webhook_keeps_its_secret(state: State) -> None:
    aws, admin = account(state), exported(state, "admin")
    (stack,) = (
        each
        for each in aws.client("cloudformation").describe_stacks()["Stacks"]
        if each["StackName"].endswith("-Service")
    )
    bus = next(each for each in stack["Outputs"] if each["OutputKey"] == "EventBusName")["OutputValue"]
    events, sqs = aws.client("events"), aws.client("sqs")
    queue = sqs.create_queue(QueueName="events")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="all", EventBusName=bus, EventPattern=json.dumps({"source": ["mlflow-on-aws"]}))
    events.put_targets(Rule="all", EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])
    program = (
        "import mlflow; client = mlflow.MlflowClient();"
        "client.create_webhook('ci', 'https://8.8.8.8/hook', ['model_version.created'], secret='signing');"
        "assert [each.name for each in client.list_webhooks()] == ['ci'];"
        "client.create_registered_model('told')"
    )
    subprocess.run([sys.executable, "-c", program], env=admin, check=True, timeout=120)
    deadline = time.monotonic() + 120
    while not (found := sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages")):
        assert time.monotonic() < deadline
    event = json.loads(found[0]["Body"])
    assert (event["detail-type"], event["detail"]["model"]) == ("Model Registered", "told")
    assert event["detail"]["principal"].startswith("arn:aws:iam::")


def test_the_task_reports_that_it_is_healthy(state: State) -> None:
    aws: Aws = account(state)
    ecs = aws.client("ecs")
    cluster = ecs.list_clusters()["clusterArns"][0]
    deadline = time.monotonic() + 60
    while True:
        (task,) = ecs.describe_tasks(cluster=cluster, tasks=ecs.list_tasks(cluster=cluster)["taskArns"])[
            "tasks"
        ]
        if task["healthStatus"] == "HEALTHY":
            return
        assert time.monotonic() < deadline, task
        time.sleep(0.5)


@pytest.mark.slow
def test_a_server_that_dies_is_replaced_and_found_again(state: State, client: dict[str, str]) -> None:
    before = server(state)
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 90
    while True:
        try:
            if get(state, "/health", client["MLFLOW_TRACKING_TOKEN"]) == 200 and server(state) != before:
                return
        except (httpx.HTTPError, StopIteration):
            pass
        assert time.monotonic() < deadline, "no new server within 90 seconds"
        time.sleep(0.3)
