"""The schema of `[events]`: who is told of what happens to models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stacks.section import DISTINCT, SecretName, Section, matching

EventType = Literal[
    "Model Registered",
    "Model Version Registered",
    "Model Stage Changed",
    "Model Alias Set",
    "Model Alias Removed",
    "Model Version Deleted",
    "Access Refused",
    "Import Finished",
    "Database Restored",
]
Types = Annotated[tuple[EventType, ...], Field(strict=False), DISTINCT]


class TopicConfig(Section):
    """A topic of Amazon SNS of yours; the policy of its key, if it has one, must admit the rule's role."""

    arn: Annotated[
        str,
        matching(
            r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[\w-]{1,256}",
            "is not the ARN of a standard topic",
            "write one such as arn:aws:sns:eu-central-1:111122223333:models",
        ),
    ] = Field(description="ARN of the topic, in the deployment's account and region.")
    types: Types = Field(default=(), description="Types of events that it gets; without any, all of them.")
    format: Literal["json", "chat"] = Field(
        default="json",
        description="`json` is the event itself; `chat` a message that Amazon Q Developer shows in chats.",
    )


class GithubDispatchConfig(Section):
    """A repository whose workflows start with an event, by `repository_dispatch`."""

    repository: Annotated[
        str,
        matching(r"[\w.-]{1,100}/[\w.-]{1,100}", "is not a repository", "write OWNER/NAME"),
    ] = Field(description="`OWNER/NAME`.")
    token_secret_name: SecretName = Field(
        description="Secret in Secrets Manager: its text is a token that may write the repository's contents."
    )
    types: Types = Field(
        default=("Model Stage Changed", "Model Alias Set"),
        description="Types of events that start its workflows.",
    )


class EventsConfig(Section):
    """Targets of events, beside the bus, which any rule of yours can read (events.md)."""

    topics: Annotated[tuple[TopicConfig, ...], Field(strict=False, max_length=20), DISTINCT] = Field(
        default=(), description=TopicConfig.__doc__
    )
    github: Annotated[tuple[GithubDispatchConfig, ...], Field(strict=False, max_length=20), DISTINCT] = Field(
        default=(), description=GithubDispatchConfig.__doc__
    )

    @property
    def has_targets(self) -> bool:
        """Whether anything is to be delivered."""
        return bool(self.topics or self.github)
