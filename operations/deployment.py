"""A deployment as its operator finds it: by its stacks' outputs, with the operator's own credentials."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from operations.errors import CannotRunError
from preflight.credentials import CredentialsError, clients_of, deployer
from preflight.protection import describe, stack_names
from stacks.config import EnvironmentConfig
from stacks.config_file import CONFIG, ConfigurationError, load_environment


@dataclass(frozen=True, kw_only=True)
class TaskPlace:
    """Where and as what a one-off task runs: what the stack's output of the operation holds."""

    command: str
    cluster: str
    task_definition: str
    subnets: list[str]
    security_groups: list[str]
    container: str
    log_group: str
    log_stream_prefix: str


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One environment in its account; `client` makes a boto3 client by its service's name."""

    name: str
    environment: EnvironmentConfig
    account: str
    region: str
    client: Callable[[str], Any]
    outputs: Mapping[str, str]

    @classmethod
    def of(cls, name: str, *, environ: Mapping[str, str]) -> Deployment:
        """Find the deployment of `config/NAME.toml`.

        Raises:
            CannotRunError: no such file, no usable credentials, or nothing is deployed.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            environment = load_environment(name=name, path=None, directory=CONFIG)
            who = deployer(environment, environ)
            client, service = clients_of(environment, environ), stack_names(name)[0]
            stack = describe(client("cloudformation"), service)
        except (ConfigurationError, CredentialsError) as error:
            raise CannotRunError(str(error)) from error
        except (BotoCoreError, ClientError) as error:
            raise CannotRunError(f"CloudFormation does not say what is deployed: {error}") from error
        if stack is None:
            raise CannotRunError(
                f"no stack {service} in account {who.account}, region {who.region}: "
                f"name the right profile by AWS_PROFILE, or `make deploy ENV={name}` first"
            )
        return cls(
            name=name,
            environment=environment,
            account=who.account,
            region=who.region,
            client=client,
            outputs={each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])},
        )

    @property
    def foundation(self) -> str:
        """The name of the stack of what one would miss."""
        return stack_names(self.name)[1]

    @property
    def service(self) -> str:
        """The name of the disposable stack."""
        return stack_names(self.name)[0]

    def output(self, name: str) -> str:
        """A value that the service stack publishes.

        Raises:
            CannotRunError: the deployed version does not.
        """
        if name not in self.outputs:
            raise CannotRunError(
                f"{self.service} has no output {name}: `make deploy ENV={self.name}` this version first"
            )
        return self.outputs[name]

    def tracking_url(self, environ: Mapping[str, str]) -> str:
        """Where this shell reaches the server.

        MLFLOW_TRACKING_URI, such as a tunnel, counts beside an MLFLOW_AWS_AUDIENCE that is this deployment's.
        """
        deployed = self.output("TrackingUrl")
        if environ.get("MLFLOW_AWS_AUDIENCE") == deployed:
            return environ.get("MLFLOW_TRACKING_URI", deployed)
        return deployed

    def place(self, operation: str) -> TaskPlace:
        """Where the one-off task of this operation runs."""
        return TaskPlace(**json.loads(self.output(f"Operation{operation}")))
