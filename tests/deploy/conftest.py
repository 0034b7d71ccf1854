"""An emulated account, a copy of this repository, and a shell in it whose AWS is that account."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from local import demo_roles
from local.deployment import Stack, read
from local.parts.aws import Aws
from local.parts.progress import Progress
from local.platform import Platform, account
from local.state import PROJECT, State
from local.synthesis import Synthesis

FOUNDATION, SERVICE = "MlflowOnAws-dev-Foundation", "MlflowOnAws-dev-Service"
_NOT_COPIED = (
    ".git",
    ".venv",
    ".local",
    "node_modules",
    "cdk.out",
    "cdk-outputs-*",
    "__pycache__",
    "*.egg-info",
)
_SECONDS = 280


@dataclass
class Shell:
    """A user's terminal in a checkout of the repository, signed in to the emulated account."""

    directory: Path
    variables: dict[str, str]

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a line of shell; stdout holds everything that it said."""
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory,
            env={**self.variables, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    def types(self, command: str, **variables: str) -> tuple[str, int]:
        """Run a line in a terminal, as a person who answers every question with yes."""
        parent, child = pty.openpty()
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.directory,
            env={**self.variables, "NO_COLOR": "1", "CDK_PROGRESS": "events", **variables},
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)
        said, answered = b"", 0
        with contextlib.suppress(OSError):  # the terminal ends with the process
            while chunk := os.read(parent, 65536):
                said += chunk
                while answered < said.count(b"(y/n)"):
                    os.write(parent, b"y\n")
                    answered += 1
        os.close(parent)
        return said.decode(errors="replace"), process.wait()

    def does(self, command: str) -> str:
        """Run a line that must succeed; returns what it said."""
        done = self.run(command)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        return done.stdout

    def refuses(self, command: str) -> str:
        """Run a line that must fail; returns what it said."""
        done = self.run(command)
        assert done.returncode != 0, f"$ {command}\n{done.stdout}"
        return done.stdout

    def configure(self, **sections: dict[str, Any] | bool | str) -> None:
        """Change config/dev.toml."""
        file = self.directory / "config" / "dev.toml"
        document = tomlkit.parse(file.read_text())
        for name, value in sections.items():
            if isinstance(value, dict):
                document.setdefault(name, tomlkit.table()).update(value)
            else:
                document[name] = value
        # A plain key after a table would belong to the table.
        plain = {key: value for key, value in document.items() if not isinstance(value, dict | list)}
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in plain.items())
        for key in plain:
            del document[key]
        file.write_text(text + tomlkit.dumps(document))


@dataclass
class EmulatedAccount:
    """The account, seen by its root, and the shell of whoever deploys to it."""

    platform: Platform
    shell: Shell
    aws: Aws

    def stack(self, name: str) -> Stack:
        """One deployed stack."""
        return read(self.aws, name)

    def status(self, name: str) -> str:
        """Its status; nothing if there is no such stack."""
        pages = self.aws.client("cloudformation").get_paginator("describe_stacks").paginate()
        found = [each for page in pages for each in page["Stacks"] if each["StackName"] == name]
        return str(found[0]["StackStatus"]) if found else ""

    def resources(self) -> dict[str, dict[str, str]]:
        """Physical ids by logical id, of each stack that exists."""
        return {
            name: {logical: physical for logical, (_, physical) in self.stack(name).resources.items()}
            for name in (FOUNDATION, SERVICE)
            if self.status(name)
        }

    def template(self, name: str) -> dict[str, Any]:
        """The synthesized template."""
        file = self.shell.directory / "cdk.out" / f"{name}.template.json"
        return dict(json.loads(file.read_text()))

    @contextlib.contextmanager
    def served(self, name: str = SERVICE, *, aws: Aws | None = None) -> Iterator[dict[str, str]]:
        """The deployed service behind a load balancer; yields the variables of a contributor.

        `aws` is the root where the service is, if it is in another region.
        """
        aws = aws or self.aws
        service = read(aws, name)
        self.platform.serve(service, aws=aws)
        ended = threading.Event()
        following = threading.Thread(target=self._follow, args=(ended,))
        following.start()
        try:
            yield self.platform.client_environment().variables()
        finally:
            ended.set()
            following.join()
            self.platform.stop_serving()
            self._dismiss(aws, service.outputs["UserPoolId"])

    def _follow(self, ended: threading.Event) -> None:
        while not ended.wait(0.5):
            # While a deployment changes the listener, there may be none; the next look finds it.
            with contextlib.suppress(Exception):
                self.platform.refresh()

    def _dismiss(self, aws: Aws, pool: str) -> None:
        iam, cognito = aws.client("iam"), aws.client("cognito-idp")
        for name in (f"mlflow-{role}" for role in demo_roles.ROLES):
            for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
                iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
            iam.delete_role(RoleName=name)
        for user in cognito.list_users(UserPoolId=pool)["Users"]:
            cognito.admin_delete_user(UserPoolId=pool, Username=user["Username"])


def _checkout(directory: Path) -> Path:
    """A copy of the repository, which uses what is installed in this one."""
    shutil.copytree(PROJECT, directory, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    for installed in (".venv", "node_modules"):
        (directory / installed).symlink_to(PROJECT / installed)
    return directory


@contextlib.contextmanager
def emulated_account() -> Iterator[EmulatedAccount]:
    """An empty account, with config/dev.toml edited as README says, in a copy of the repository."""
    directory = Path(tempfile.mkdtemp(prefix="mlflow-aws-deploy-"))
    directory.chmod(0o711)
    platform = Platform(State(directory / "state"), Progress(10, lambda _: None))
    try:
        platform.start_account()
        aws = account(platform.state)
        checkout = _checkout(directory / "checkout")
        platform.configure(
            Synthesis(
                project=checkout, output=checkout / "cdk.out", configuration=checkout / "config" / "dev.toml"
            )
        )
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "AWS_ENDPOINT_URL": aws.endpoint,
            "AWS_ACCESS_KEY_ID": aws.access_key,
            "AWS_SECRET_ACCESS_KEY": aws.secret_key,
            "AWS_REGION": aws.region,
            # Version 1 of the AWS CLI knows only this one.
            "AWS_DEFAULT_REGION": aws.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CDK_NOTICES": "false",
            "CDK_DISABLE_VERSION_CHECK": "1",
            "CDK_DISABLE_CLI_TELEMETRY": "true",
        }
        yield EmulatedAccount(platform, Shell(checkout, variables), aws)
    finally:
        platform.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def emulated() -> Iterator[EmulatedAccount]:
    """The module's account."""
    with emulated_account() as emulated:
        yield emulated
