"""The schema of `[waf]`: what AWS WAF lets pass to the load balancer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stacks.section import DISTINCT, Cidr, Section


class WafConfig(Section):
    """AWS WAF before the load balancer (waf.md says what it blocks). Without this table there is none."""

    requests_per_minute: int = Field(
        default=60_000,
        ge=10,
        le=2_000_000_000,
        description="Requests per minute of one address, about; the next ones are told to wait (429). A NAT "
        "makes many clients one address.",
    )
    exempt_cidrs: Annotated[tuple[Cidr, ...], Field(strict=False, max_length=10_000), DISTINCT] = Field(
        default=(), description="Networks that no rule looks at or slows down."
    )
    blocked_cidrs: Annotated[tuple[Cidr, ...], Field(strict=False, max_length=10_000), DISTINCT] = Field(
        default=(), description="Networks that are refused."
    )
    anonymous: Literal["pass", "block"] = Field(
        default="pass",
        description="What happens to Tor, open proxies and public VPNs, by AWS's list. Cloud providers, "
        "where CI runs, pass.",
    )
    bot_control: bool = Field(
        default=False,
        description="Refuse bots that visit pages without a token, by AWS's Bot Control: 10 USD a month "
        "and 1 USD per million of such requests.",
    )
    logged: Literal["blocked", "counted"] = Field(
        default="blocked",
        description="Log `blocked` requests only, or `counted` ones too: large log-batches, while you tune.",
    )
