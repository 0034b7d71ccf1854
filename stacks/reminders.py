"""What a deployer most likely has not done yet: warnings at synthesis, not errors."""

from __future__ import annotations

import re
from collections.abc import Iterator

import aws_cdk as cdk

from stacks.config import EnvironmentConfig
from stacks.section import texts

# Names, numbers and networks that are reserved for documentation; the files in config/ come with them.
PLACEHOLDER = re.compile(
    r"(^|[.@/])example\.(com|net|org)\b|\bZ0+EXAMPLE\b|\b(111122223333|123456789012)\b"
    r"|^(192\.0\.2|198\.51\.100|203\.0\.113)\."
)


def remind(stack: cdk.Stack, environment: EnvironmentConfig) -> None:
    """Warn of everything that is left to do in the environment's file."""
    for name, text in reminders(environment):
        cdk.Annotations.of(stack).add_warning_v2(f"mlflow-on-aws:{name}", text)


def reminders(environment: EnvironmentConfig) -> Iterator[tuple[str, str]]:
    """Yield what is left to do, as the name of the warning and its text."""
    if left := [key for key, value in texts(environment.model_dump()) if PLACEHOLDER.search(value)]:
        yield "placeholders", f"placeholders are left: {', '.join(left)}; write your own before you deploy"
    if not environment.identity.admits_anybody:
        yield (
            "nobody-has-a-role",
            "nobody has a role, so everybody is refused, your own smoke run too; name your IAM role or your "
            "e-mail address in [identity.roles.admin]",
        )
    if not environment.monitoring.tells_somebody:
        yield (
            "nobody-is-told",
            "nobody is told of an alarm; set emails, pager_secret_name, slack or teams in [monitoring]",
        )
    if not (environment.ingress.internet_facing or environment.network.is_joined):
        yield (
            "nobody-reaches-it",
            "nobody reaches an internal load balancer in a new VPC; set ingress.internet_facing = true, or "
            "join the VPC to your network (network.transit_gateway_id or network.peering_connection_id)",
        )
