"""The schema of `[cost]`: what a month may cost, and who is told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stacks.identity_config import EmailAddress
from stacks.section import DISTINCT, Section

# What every resource is tagged with; its value is the name that the environment's stacks share.
TAG = "mlflow-on-aws"


class CostConfig(Section):
    """A budget, and a look-out for anomalies, of what carries the deployment's tag. Both are free.

    AWS sends the e-mails itself, to those who watch money: they are others than those who watch the platform.
    """

    emails: Annotated[
        tuple[EmailAddress, ...], Field(strict=False, min_length=1, max_length=10), DISTINCT
    ] = Field(description="Who is told; ten addresses at most.")
    monthly_budget_usd: int = Field(
        ge=1, description="An e-mail at 80 % and at all of it, and when the month is forecast to end above."
    )
    anomaly_usd: int | None = Field(
        default=None,
        ge=1,
        description="A daily e-mail on spending that leaves its pattern by this much; without it, none.",
    )


def deployment_tags(stack_name: str, tags: dict[str, str]) -> dict[str, str]:
    """Return the tags of every resource of a stack: the file's, and one that all its stacks share."""
    return {**tags, TAG: deployment_of(stack_name)}


def deployment_of(stack_name: str) -> str:
    """Return what all stacks of an environment are called, such as `MlflowOnAws-dev`."""
    return stack_name.rpartition("-")[0]
