"""Looks at an account before anything is made there, and changes nothing: `python -m preflight --env dev`.

Exit code 0 if a deployment may begin, 1 if it would fail, 2 if nothing could be asked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from findings.finding import COULD_NOT_RUN, as_json, counted, exit_code, show
from findings.reader import AccountReader
from preflight.credentials import CredentialsError, deployer, session_of
from preflight.look import PROBES, look
from preflight.subject import Probe, Subject
from stacks.config_file import CONFIG, ConfigurationError, load_environment

# What every probe needs; a test compares it with what they ask.
ACTIONS = (
    "acm:DescribeCertificate",
    "cloudformation:DescribeStackResources",
    "cloudformation:DescribeStacks",
    "cognito-idp:DescribeUserPoolDomain",
    "ec2:DescribeAddresses",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeNatGateways",
    "ec2:DescribeRegions",
    "ec2:DescribeSubnets",
    "ec2:DescribeTransitGateways",
    "ec2:DescribeVpcPeeringConnections",
    "ec2:DescribeVpcs",
    "elasticloadbalancing:DescribeLoadBalancers",
    "iam:GetOutboundWebIdentityFederationInfo",
    "iam:GetPolicy",
    "iam:GetRole",
    "iam:ListOpenIDConnectProviders",
    "iam:SimulatePrincipalPolicy",
    "kms:DescribeKey",
    "rds:DescribeDBInstances",
    "rds:DescribeOrderableDBInstanceOptions",
    "route53:GetHostedZone",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketVersioning",
    "secretsmanager:DescribeSecret",
    "servicequotas:GetServiceQuota",
    "ssm:GetParameter",
)


def policy() -> str:
    """The least that a caller needs, as an IAM policy."""
    statement = {"Sid": "LookOnly", "Effect": "Allow", "Action": list(ACTIONS), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=2)


def main(arguments: Sequence[str]) -> int:
    """Look, print the findings, and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.policy:
        print(policy())
        return 0
    try:
        environment = load_environment(name=options.env, path=options.config, directory=CONFIG)
        who = deployer(environment, os.environ)
    except ConfigurationError as error:
        print(f"configuration error: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    except CredentialsError as error:
        print(f"credentials: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    subject = Subject(options.env, environment, who, AccountReader(session_of(who.region).client))
    findings = look(subject, _progress())
    print(end="\r\033[K" if sys.stderr.isatty() else "", file=sys.stderr)
    if options.json:
        print(as_json(findings, environment=options.env, account=who.account, region=who.region))
    else:
        show(findings, sys.stdout)
        print(f"\n{options.env} in account {who.account}, region {who.region}: {counted(findings)}")
    return exit_code(findings)


def _progress() -> Any:
    asked: list[Probe] = []

    def say(probe: Probe) -> None:
        asked.append(probe)
        if sys.stderr.isatty():
            print(f"\r\033[K[{len(asked)}/{len(PROBES)}] {probe.title}", end="", file=sys.stderr, flush=True)

    return say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m preflight", description=__doc__)
    parser.add_argument("--env", default="dev", help="the environment, a file in config/ without .toml")
    parser.add_argument("--config", type=str, help="a file in place of config/ENV.toml")
    parser.add_argument("--json", action="store_true", help="print the findings for programs")
    parser.add_argument("--policy", action="store_true", help="print the IAM policy that the probes need")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
