"""What AWS tells by an event, once, and no metric shows: tickets, with a section in docs/runbook.md."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_events as events
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.foundation.stack import MlflowFoundation
from stacks.monitoring.topics import Topics


@dataclass(frozen=True)
class Notice:
    """Events that a pattern picks, and where in an event its own words are."""

    name: str
    meaning: str
    pattern: Mapping[str, Any]
    words: str


def notices(
    *, foundation: MlflowFoundation, service: ecs.FargateService, environment: EnvironmentConfig
) -> Iterator[Notice]:
    """Yield what this deployment is told of.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_service_deployment_events.html
    https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_Events.Messages.html
    https://docs.aws.amazon.com/aws-backup/latest/devguide/eventbridge.html
    """
    database, bucket = foundation.database.arn, foundation.artifacts.bucket.bucket_arn
    yield Notice(
        "DeploymentFailed",
        "A release did not become healthy, or made alarms ring; ECS took it back.",
        {
            "source": ["aws.ecs"],
            "detail-type": ["ECS Deployment State Change"],
            "resources": [service.service_arn],
            "detail": {"eventName": ["SERVICE_DEPLOYMENT_FAILED"]},
        },
        "$.detail.reason",
    )
    yield Notice(
        "DatabaseEvent",
        "RDS tells of a failover, a failure, or storage that is short.",
        {
            "source": ["aws.rds"],
            "resources": [database],
            "detail": {"EventCategories": ["failover", "failure", "low storage"]},
        },
        "$.detail.Message",
    )
    if environment.backup:
        yield Notice(
            "BackupFailed",
            "AWS Backup did not make a backup, or its copy.",
            {
                "source": ["aws.backup"],
                "detail-type": ["Backup Job State Change", "Copy Job State Change"],
                "detail": {
                    "resourceArn": [database, bucket],
                    "state": ["FAILED", "ABORTED", "EXPIRED"],
                },
            },
            "$.detail.statusMessage",
        )


class Notices(Construct):
    """A rule for each notice, to the topic of tickets. Rules for events of AWS cost nothing."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        topics: Topics,
        foundation: MlflowFoundation,
        service: ecs.FargateService,
        environment: EnvironmentConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        name = cdk.Stack.of(self).stack_name
        for each in notices(foundation=foundation, service=service, environment=environment):
            section = f"{environment.monitoring.runbook_url}#{each.name.lower()}"
            events.CfnRule(
                self,
                each.name,
                name=f"{name}-{each.name}",
                description=f"{each.meaning} {section}",
                event_pattern=each.pattern,
                targets=[
                    events.CfnRule.TargetProperty(
                        id="Tickets",
                        arn=topics.tickets.topic_arn,
                        input_transformer=events.CfnRule.InputTransformerProperty(
                            input_paths_map={"time": "$.time", "words": each.words},
                            input_template=f'"{name}, <time>: {each.meaning} <words> {section}"',
                        ),
                    )
                ],
            )
        topics.grant_publish(
            "events.amazonaws.com", resource="rule", separator=cdk.ArnFormat.SLASH_RESOURCE_NAME
        )
