"""Checks a deployment in its account, and changes nothing: `python -m verify_account --env dev`.

Exit code 0 if every check passed, 1 if one failed, 2 if they could not be made.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from findings.finding import COULD_NOT_RUN, AccountFinding, as_json, counted, exit_code, show
from findings.reader import AbsentError, AccountReader, DeniedError
from verify_account.verify import CHECKS, verify

# Of the stacks, which make it a managed policy.
_POLICY = Path(__file__).parents[1] / "stacks" / "foundation" / "verifier.json"
_NEEDED = ("FoundationStack", "ServiceStack", "ArtifactBucket", "LoadBalancerDnsName", "TokenIssuer")


class CannotVerifyError(Exception):
    """Nothing can be checked; the message ends with the remedy."""


def main(arguments: Sequence[str]) -> int:
    """Check, print the findings, and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.policy:
        print(_POLICY.read_text(), end="")
        return 0
    try:
        return _verified(options)
    except CannotVerifyError as error:
        print(f"verify: {error}", file=sys.stderr)
        return COULD_NOT_RUN


def _verified(options: argparse.Namespace) -> int:
    from botocore.exceptions import BotoCoreError

    stack = f"MlflowOnAws-{options.env}-Service"
    try:
        # The variable that the CDK CLI takes first is unknown to boto3.
        session = _session(options.region or os.environ.get("AWS_REGION"))
        outputs = _outputs(options, stack, AccountReader(session.client), session.region_name)
        findings = verify(session.client, outputs, _progress())
    except BotoCoreError as error:
        raise CannotVerifyError(
            f"{error}: sign in with `aws sso login`, and name profile and region by AWS_PROFILE, AWS_REGION"
        ) from error
    print(end="\r\033[K" if sys.stderr.isatty() else "", file=sys.stderr)
    if options.json:
        print(as_json(findings, stack=stack, region=session.region_name))
    else:
        show(findings, sys.stdout)
        print(f"\n{stack} in {session.region_name}: {counted(findings)}")
    return exit_code(findings)


def _session(region: str | None) -> Any:
    import boto3

    return boto3.session.Session(region_name=region)


def _outputs(
    options: argparse.Namespace, stack: str, reader: AccountReader, region: str
) -> Mapping[str, str]:
    try:
        account = reader.ask("sts", "get_caller_identity")["Account"]
        if options.outputs_file:
            outputs = _of_file(options.outputs_file, stack)
        else:
            found = reader.ask("cloudformation", "describe_stacks", StackName=stack)["Stacks"][0]
            outputs = {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", [])}
    except DeniedError as error:
        raise CannotVerifyError(f"{error}: see python -m verify_account --policy") from error
    except AbsentError as error:
        if error.code == "ValidationError":
            raise CannotVerifyError(
                f"no stack {stack} in account {account}, region {region}: "
                "name profile and region with AWS_PROFILE and AWS_REGION, or deploy first"
            ) from error
        raise CannotVerifyError(f"AWS refuses these credentials ({error.code}): `aws sso login`") from error
    missing = [name for name in _NEEDED if name not in outputs]
    if missing:
        raise CannotVerifyError(f"{stack} has no output {', '.join(missing)}: deploy this version first")
    return outputs


def _of_file(path: Path, stack: str) -> Mapping[str, str]:
    """As `cdk deploy --outputs-file` writes them."""
    try:
        written: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotVerifyError(f"{path}: {error}; it is what `cdk deploy --outputs-file` writes") from error
    return dict(written.get(stack, written))


def _progress() -> Any:
    done: list[AccountFinding] = []

    def say(finding: AccountFinding) -> None:
        done.append(finding)
        if sys.stderr.isatty():
            text = f"\r\033[K[{len(done)}/{len(CHECKS)}] {finding.title[:70]}"
            print(text, end="", file=sys.stderr, flush=True)

    return say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m verify_account", description=__doc__)
    parser.add_argument("--env", default="dev", help="the environment, a file in config/ without .toml")
    parser.add_argument("--region", help="without it, the one of AWS_REGION or of the profile")
    parser.add_argument(
        "--outputs-file", type=Path, help="outputs as written by cdk deploy, in place of asking for them"
    )
    parser.add_argument("--json", action="store_true", help="print the findings for programs")
    parser.add_argument("--policy", action="store_true", help="print the IAM policy that the checks need")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
