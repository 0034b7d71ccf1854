"""The schema of `[monitoring]`: who is told, and when the platform counts as slow."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stacks.identity_config import EmailAddress
from stacks.section import DISTINCT, SecretName, Section, matching


class SlackConfig(Section):
    """A channel in Slack. Its workspace is admitted once, by hand, in Amazon Q Developer's console."""

    workspace_id: Annotated[
        str, matching(r"T[A-Z0-9]{1,20}", "is not a workspace's id", "write one such as T0123ABCD")
    ] = Field(description="Id of the workspace, as the console of Amazon Q Developer shows it.")
    channel_id: Annotated[
        str, matching(r"[CG][A-Z0-9]{1,20}", "is not a channel's id", "write one such as C0123ABCDEF")
    ] = Field(description="Id of the channel, the end of its link.")


class TeamsConfig(Section):
    """A channel in Microsoft Teams. Its tenant is admitted once, by hand, as for Slack."""

    tenant_id: Annotated[
        str, matching(r"[0-9a-f-]{36}", "is not a tenant's id", "write the UUID of your Entra tenant")
    ] = Field(description="Id of the tenant, a UUID.")
    team_id: Annotated[
        str, matching(r"[0-9a-f-]{36}", "is not a team's id", "write the UUID in the team's link")
    ] = Field(description="Id of the team, a UUID.")
    channel_id: Annotated[
        str,
        matching(r"[\w%.:@-]{1,256}", "is not a channel's id", "write one such as 19%3Aabc%40thread.tacv2"),
    ] = Field(description="Id of the channel, as it stands in its link.")


class MonitoringConfig(Section):
    """Who is told of alarms. Pages must be seen to now, tickets on a working day: docs/runbook.md."""

    emails: Annotated[tuple[EmailAddress, ...], Field(strict=False), DISTINCT] = Field(
        default=(), description="Who gets pages and tickets by e-mail, once they have confirmed it."
    )
    pager_secret_name: SecretName | None = Field(
        default=None,
        description="Secret in Secrets Manager whose text is the HTTPS URL that your pager takes pages of "
        "Amazon SNS at.",
    )
    slack: SlackConfig | None = Field(default=None, description=SlackConfig.__doc__)
    teams: TeamsConfig | None = Field(default=None, description=TeamsConfig.__doc__)
    runbook_url: Annotated[
        str,
        matching(
            r"https://\S{1,200}|docs/runbook\.md",
            "is not the address of a runbook",
            "write one that begins with https://",
        ),
    ] = Field(
        default="docs/runbook.md",
        description="Where your people find docs/runbook.md, for the links in notifications.",
    )
    dashboard: bool = Field(
        default=True, description="A dashboard of CloudWatch: $3 a month beyond an account's first three."
    )
    slow_seconds: float = Field(
        default=2.0,
        ge=0.1,
        le=60,
        allow_inf_nan=False,
        description="The platform is slow when one request in a hundred takes longer than this.",
    )

    @property
    def tells_somebody(self) -> bool:
        """Whether anybody gets an alarm."""
        return bool(self.emails or self.pager_secret_name or self.slack or self.teams)
