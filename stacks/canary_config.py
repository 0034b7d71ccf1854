"""The schema of `[canary]`: whether the deployment tries itself, and how often."""

from __future__ import annotations

from pydantic import Field

from stacks.section import Section


class CanaryConfig(Section):
    """A task that does what a data scientist does, from time to time, and says by metrics what works."""

    enabled: bool = Field(
        default=True,
        description="Run it. Where `ingress.internet_facing` is on, `ingress.allowed_cidrs` must admit the "
        "address of the NAT, from which it comes.",
    )
    minutes: int = Field(
        default=60,
        ge=15,
        le=60,
        description="Minutes between two runs; what the registry promises is tried once an hour.",
    )
