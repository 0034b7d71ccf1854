"""Who is told: two encrypted topics, and whoever listens to them."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_chatbot as chatbot
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.monitoring_config import MonitoringConfig


class Topics(Construct):
    """Pages and tickets, encrypted, published by this deployment's alarms and rules and by nobody else.

    Also a principal whose own policy would let it publish is refused: a page is true. By e-mail and in chat
    come both, at the pager pages only.
    https://docs.aws.amazon.com/sns/latest/dg/sns-access-policy-use-cases.html
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, key: kms.IKey, config: MonitoringConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self.pages = self._topic("Pages", key)
        self.tickets = self._topic("Tickets", key)
        both = [self.pages, self.tickets]
        for topic in both:
            for address in config.emails:
                topic.add_subscription(subscriptions.EmailSubscription(address))
        if config.pager_secret_name:
            # The URL holds the pager's key: CloudFormation resolves the reference, the template has none.
            url = cdk.SecretValue.secrets_manager(config.pager_secret_name).unsafe_unwrap()
            sns.Subscription(
                self,
                "Pager",
                topic=self.pages,
                protocol=sns.SubscriptionProtocol.HTTPS,
                endpoint=url,
            )
        if config.slack:
            chatbot.CfnSlackChannelConfiguration(
                self,
                "Slack",
                slack_workspace_id=config.slack.workspace_id,
                slack_channel_id=config.slack.channel_id,
                **self._channel("Slack"),
            )
        if config.teams:
            chatbot.CfnMicrosoftTeamsChannelConfiguration(
                self,
                "Teams",
                teams_tenant_id=config.teams.tenant_id,
                team_id=config.teams.team_id,
                teams_channel_id=config.teams.channel_id,
                **self._channel("Teams"),
            )

    def grant_publish(self, service: str, *, resource: str, separator: cdk.ArnFormat) -> None:
        """Let a service of AWS publish for resources of this kind with a name of this stack."""
        stack = cdk.Stack.of(self)
        ours = stack.format_arn(
            service=service.partition(".")[0],
            resource=resource,
            resource_name=f"{stack.stack_name}-*",
            arn_format=separator,
        )
        for topic in (self.pages, self.tickets):
            topic.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=[iam.ServicePrincipal(service)],
                    actions=["sns:Publish"],
                    resources=[topic.topic_arn],
                    conditions={"ArnLike": {"aws:SourceArn": ours}},
                )
            )

    def _topic(self, name: str, key: kms.IKey) -> sns.Topic:
        topic = sns.Topic(self, name, master_key=key, enforce_ssl=True)
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="OnlyServicesOfAws",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"Bool": {"aws:PrincipalIsAWSService": "false"}},
            )
        )
        return topic

    def _channel(self, name: str) -> dict[str, Any]:
        """What both kinds of channels take: their members are shown alarms, and may do nothing from there."""
        role = iam.Role(self, f"{name}Role", assumed_by=iam.ServicePrincipal("chatbot.amazonaws.com"))
        nothing = cdk.Stack.of(self).format_arn(
            service="iam", region="", account="aws", resource="policy", resource_name="AWSDenyAll"
        )
        return {
            "configuration_name": f"{cdk.Stack.of(self).stack_name}-{name}",
            "iam_role_arn": role.role_arn,
            "guardrail_policies": [nothing],
            "sns_topic_arns": [self.pages.topic_arn, self.tickets.topic_arn],
        }
