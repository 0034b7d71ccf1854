"""What the documents say to type into a shell for an account is run as printed, with the pinned CDK CLI.

Only the server's address is another: the laptop's load balancer.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.installation import installed
from tests.deploy.conftest import SERVICE, EmulatedAccount
from tests.documents import Block, blocks, documents

# Two whole deployments, beside whatever else this machine does.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LOCK = Path(__file__).with_name("awscli.txt")
MINE = "tests/deploy/test_documents.py"
DEPLOYMENT = ("docs/deploy.md", "README.md")
HOSTS = ("https://mlflow.dev.example.com", "https://mlflow.example.com")


def mine(document: str) -> list[Block]:
    """The blocks of a document that this module runs."""
    return [each for each in blocks(document) if each.test == MINE]


def as_typed(account: EmulatedAccount, command: str) -> None:
    """Run a line in the shell of a person who answers yes; smoke runs against the laptop's load balancer."""
    with contextlib.ExitStack() as stack:
        variables = {"EDITOR": "true"}
        if "smoke" in command:
            variables |= stack.enter_context(account.served())
            for host in HOSTS:
                command = command.replace(host, account.platform.tracking_url)
        said, code = account.shell.types(command, **variables)
    assert code == 0, f"$ {command}\n{said}"


@pytest.mark.parametrize("document", DEPLOYMENT)
def test_the_commands_of_a_deployment_are_run_as_printed(emulated: EmulatedAccount, document: str) -> None:
    run = mine(document)
    assert run
    for block in run:
        if "STACKS=--all" in block.commands:
            emulated.shell.configure(
                termination_protection=False,
                database={"deletion_protection": False},
                ingress={"deletion_protection": False},
            )
        for command in block.commands.splitlines():
            as_typed(emulated, command)


def test_every_block_is_run_here() -> None:
    others = {each for each in documents() if mine(each)} - set(DEPLOYMENT)
    assert others == {"docs/client-auth.md", "docs/connect.md", "docs/smoke.md"}


@pytest.fixture(scope="module")
def aws_command() -> Path:
    """The folder of the `aws` command."""
    return installed("awscli", LOCK) / "bin"


@pytest.fixture(scope="module")
def contributor(emulated: EmulatedAccount) -> Iterator[dict[str, str]]:
    """The variables of a contributor of the served deployment."""
    if emulated.status(SERVICE) == "":
        emulated.shell.does("make bootstrap ENV=dev")
        emulated.shell.does('make deploy ENV=dev ARGS="--require-approval never"')
    with emulated.served() as variables:
        yield variables


@pytest.mark.parametrize("document", ["docs/client-auth.md", "docs/connect.md"])
def test_a_token_of_the_aws_command_signs_in(
    emulated: EmulatedAccount, contributor: dict[str, str], aws_command: Path, document: str
) -> None:
    (block,) = mine(document)
    given = {name: value for name, value in contributor.items() if name != "MLFLOW_TRACKING_TOKEN"}
    command = block.commands.replace(f"--audience {HOSTS[1]}", f"--audience {given['MLFLOW_AWS_AUDIENCE']}")
    ask = (
        'curl --silent --fail --cacert "$MLFLOW_TRACKING_SERVER_CERT_PATH" '
        '-H "Authorization: Bearer $MLFLOW_TRACKING_TOKEN" '
        f"{emulated.platform.tracking_url}/api/2.0/mlflow-aws/whoami"
    )
    done = emulated.shell.run(f"{command}\n{ask}", **given, PATH=path_with(aws_command))
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["role"] == "contributor"


def path_with(folder: Path) -> str:
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.usefixtures("contributor")
def test_the_aws_command_switches_outbound_federation_on_and_shows_it(
    emulated: EmulatedAccount, aws_command: Path
) -> None:
    emulated.aws.client("iam").disable_outbound_web_identity_federation()
    for command in (
        "aws iam enable-outbound-web-identity-federation",
        "aws iam get-outbound-web-identity-federation-info",
    ):
        done = emulated.shell.run(command, PATH=path_with(aws_command))
        assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["JwtVendingEnabled"] is True


def test_the_smoke_client_of_its_document_passes(
    emulated: EmulatedAccount, contributor: dict[str, str]
) -> None:
    (block,) = mine("docs/smoke.md")
    command = block.commands.replace(HOSTS[1], emulated.platform.tracking_url)
    done = emulated.shell.run(command, **contributor, PATH=path_with(Path(sys.executable).parent))
    assert done.returncode == 0, done.stdout
