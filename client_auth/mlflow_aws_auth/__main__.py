"""`python -m mlflow_aws_auth`: who you are at a server, or a token for it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_EPILOG = """\
exit codes:
  0  done
  1  no token, or the server does not take it; the message says what to do and who can do it
  2  wrong arguments

A token is written to a pipe or, with --output, to a file of mode 0600; never to a terminal unasked:

  MLFLOW_TRACKING_TOKEN=$(python -m mlflow_aws_auth token https://mlflow.example.com)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    from mlflow_aws_auth.errors import AwsAuthError

    try:
        if arguments.profile:
            _use_profile(arguments.profile)
        return _whoami(arguments) if arguments.command == "whoami" else _token(arguments)
    except AwsAuthError as error:
        print(f"mlflow-aws-auth: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mlflow-aws-auth: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlflow_aws_auth",
        description="Sign in to MLflow on AWS with the IAM role you have.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    who = commands.add_parser("whoami", help="check the connection; say who you are and your role")
    who.add_argument("--json", action="store_true", help="print the server's answer as JSON")
    token = commands.add_parser("token", help="print a bearer token for the server")
    token.add_argument(
        "--output", metavar="FILE", type=Path, help="write it to this file (mode 0600) instead"
    )
    for command in (who, token):
        command.add_argument(
            "url", help="the deployment's TrackingUrl (default: MLFLOW_TRACKING_URI)", nargs="?"
        )
        command.add_argument("--profile", metavar="NAME", help="the AWS profile to be (default: AWS_PROFILE)")
    return parser


def _use_profile(name: str) -> None:
    import boto3
    from botocore.exceptions import ProfileNotFound

    from mlflow_aws_auth.errors import AwsAuthError

    try:
        boto3.setup_default_session(profile_name=name)
    except ProfileNotFound as error:
        raise AwsAuthError(
            f"there is no AWS profile {name!r}", next_action="aws configure list-profiles", who="you"
        ) from error


def _url(arguments: argparse.Namespace) -> str:
    from mlflow_aws_auth.errors import AwsAuthError

    url = arguments.url or os.environ.get("MLFLOW_TRACKING_URI")
    if not url:
        raise AwsAuthError(
            "no server was named", next_action="pass its URL, or set MLFLOW_TRACKING_URI", who="you"
        )
    return str(url)


def _whoami(arguments: argparse.Namespace) -> int:
    from mlflow_aws_auth.connection import connect, whoami

    if arguments.json:
        print(json.dumps(whoami(_url(arguments))))
        return 0
    return 1 if connect(_url(arguments)).problems else 0


def _token(arguments: argparse.Namespace) -> int:
    from mlflow_aws_auth.errors import AwsAuthError
    from mlflow_aws_auth.origin import Origin
    from mlflow_aws_auth.provider import token_for

    server = Origin.of(_url(arguments))
    server.require_private()
    if arguments.output is None and sys.stdout.isatty():
        raise AwsAuthError(
            "a token would stay on this terminal",
            next_action="pipe it, or write it to a file with --output FILE",
            who="you",
        )
    token = token_for(server).value
    if arguments.output is None:
        print(token)
    else:
        _write_private(arguments.output, token)
    return 0


def _write_private(path: Path, content: str) -> None:
    from mlflow_aws_auth.errors import AwsAuthError

    try:
        # Mode at creation, so that there is no moment in which others may read it.
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise AwsAuthError(
            f"{path} cannot be written: {error.strerror}", next_action="name another file", who="you"
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(content + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
