"""Who deploys, into which account and region: `python -m preflight.credentials ENV`.

Every AWS command of the Makefile asks this first. Exit code 2, with the remedy, unless the answer fits the
environment's configuration.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stacks.config import EnvironmentConfig
from stacks.config_file import CONFIG, ConfigurationError, load_environment
from stacks.regions import region_with_sign_in

_SIGN_IN = "sign in with `aws sso login`, name the profile with `export AWS_PROFILE=…`, and run this again"
# Whoever waits longer than this for STS has no way to AWS.
_SECONDS = 4


class CredentialsError(Exception):
    """Nothing can be deployed with what this shell has; the message ends with the remedy."""


@dataclass(frozen=True)
class Deployer:
    """The identity that AWS knows this shell by, and where it would deploy."""

    arn: str
    account: str
    region: str


def deployer(environment: EnvironmentConfig, environ: Mapping[str, str]) -> Deployer:
    """Ask AWS who this shell is, and compare the account with the configured one.

    Raises:
        CredentialsError: there are no usable credentials, no region, or it is the wrong account.
    """
    import botocore.exceptions

    try:
        # The variable that the CDK CLI takes first is unknown to boto3.
        session = session_of(environ.get("AWS_REGION"))
        if session.get_credentials() is None:
            raise CredentialsError(f"no AWS credentials: {_SIGN_IN}")
        region = environment.region or session.region_name
        if not region:
            raise CredentialsError("no region: set `region` in the configuration, or `export AWS_REGION=…`")
        try:
            region_with_sign_in(region)
        except ValueError as error:
            raise CredentialsError(f"region {region} {error}") from error
        identity = _identity(session, region)
    except botocore.exceptions.ProfileNotFound as error:
        raise CredentialsError(
            f"AWS_PROFILE={environ.get('AWS_PROFILE', '')} is not a profile of your AWS configuration, "
            f"which has {', '.join(_profiles()) or 'none: make one with `aws configure sso`'}"
        ) from error
    except botocore.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        raise CredentialsError(f"AWS refuses these credentials ({code}): {_SIGN_IN}") from error
    except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
        raise CredentialsError(
            f"AWS does not answer: {error}; look at the network, proxies and the region's name"
        ) from error
    except botocore.exceptions.BotoCoreError as error:
        raise CredentialsError(f"the AWS credentials are of no use: {error}: {_SIGN_IN}") from error
    found = Deployer(arn=identity["Arn"], account=identity["Account"], region=region)
    if environment.account not in (None, found.account):
        raise CredentialsError(
            f"the configuration says account {environment.account}, and you are {found.arn}, in account "
            f"{found.account}: name a profile of the right account with `export AWS_PROFILE=…`, or correct "
            "`account`"
        )
    return found


def session_of(region: str | None) -> Any:
    """A boto3 session with the credentials that this shell has; `region` comes before the profile's."""
    import boto3

    return boto3.session.Session(region_name=region)


def clients_of(
    environment: EnvironmentConfig, environ: Mapping[str, str], region: str | None = None
) -> Callable[[str], Any]:
    """Make boto3 clients for the environment's region, or another one, by service name."""
    session = session_of(region or environment.region or environ.get("AWS_REGION"))
    return functools.cache(lambda service: session.client(service))


def _profiles() -> list[str]:
    import botocore.session

    return list(botocore.session.Session().available_profiles)


def _identity(session: Any, region: str) -> Any:
    from botocore.config import Config

    patience = Config(connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"total_max_attempts": 1})
    return session.client("sts", region_name=region, config=patience).get_caller_identity()


def main(arguments: Sequence[str]) -> int:
    """Print who deploys what, where; return 2 after a message on stderr if that cannot work."""
    parser = argparse.ArgumentParser(prog="python -m preflight.credentials", description=__doc__)
    parser.add_argument("environment", help="name of a file in config/, without .toml")
    name = parser.parse_args(arguments).environment
    try:
        environment = load_environment(name=name, path=None, directory=CONFIG)
        found = deployer(environment, os.environ)
    except ConfigurationError as error:
        print(f"configuration error: {error}", file=sys.stderr)
        return 2
    except CredentialsError as error:
        print(f"credentials: {error}", file=sys.stderr)
        return 2
    print(f"{name}: account {found.account}, region {found.region}, as {found.arn}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
