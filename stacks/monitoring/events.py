"""What happened to models, for whoever wants to act on it."""

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stacks.acknowledge import acknowledge
from stacks.events_config import EventsConfig, GithubDispatchConfig, TopicConfig

SOURCE = "mlflow-on-aws"


class Events(Construct):
    """A bus of EventBridge that only the server puts events on, and its targets: docs/events.md.

    EventBridge tries to reach a target for a day; what it gives up is kept for two weeks in a queue.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, server_role: iam.IRole, config: EventsConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self._bus = events.EventBus(self, "Bus", description="Events of MLflow on AWS: docs/events.md")
        self.bus_arn = self._bus.event_bus_arn
        self.undelivered_queue: str | None = None
        iam.Policy(
            self,
            "Policy",
            roles=[server_role],
            statements=[iam.PolicyStatement(actions=["events:PutEvents"], resources=[self.bus_arn])],
        )
        stack = cdk.Stack.of(self)
        cdk.CfnOutput(stack, "EventBusName", value=self._bus.event_bus_name)
        if not config.has_targets:
            return
        self._undelivered = sqs.Queue(
            self,
            "Undelivered",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        self.undelivered_queue = self._undelivered.queue_name
        acknowledge(self._undelivered, "AwsSolutions-SQS3", because="it is the dead-letter queue of others")
        cdk.CfnOutput(stack, "UndeliveredEvents", value=self._undelivered.queue_url)
        for topic in config.topics:
            self._rule(f"Topic {topic.arn} {topic.format}", topic.types, self._topic(topic))
        for github in config.github:
            self._rule(f"Github {github.repository}", github.types, self._github(github))

    def _rule(self, name: str, types: tuple[str, ...], target: events.IRuleTarget) -> None:
        events.Rule(
            self,
            name,
            event_bus=self._bus,
            event_pattern=events.EventPattern(source=[SOURCE], detail_type=list(types) or None),
            targets=[target],
        )

    def _topic(self, config: TopicConfig) -> events.IRuleTarget:
        field = events.EventField.from_path
        # https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html
        message = {
            "version": "1.0",
            "source": "custom",
            "id": field("$.detail.id"),
            "content": {
                "title": f"{events.EventField.detail_type}: {field('$.detail.model')}",
                "description": f"version {field('$.detail.version')}, by {field('$.detail.principal')}",
            },
        }
        return targets.SnsTopic(
            sns.Topic.from_topic_arn(self, config.arn, config.arn),
            # The topic's own policy stays the operator's.
            authorize_using_role=True,
            message=events.RuleTargetInput.from_object(message) if config.format == "chat" else None,
            dead_letter_queue=self._undelivered,
        )

    def _github(self, config: GithubDispatchConfig) -> events.IRuleTarget:
        # CloudFormation resolves the reference; the template has no token.
        token = cdk.SecretValue.secrets_manager(config.token_secret_name).unsafe_unwrap()
        connection = events.Connection(
            self,
            f"Connection {config.repository}",
            authorization=events.Authorization.api_key(
                "Authorization", cdk.SecretValue.unsafe_plain_text(f"Bearer {token}")
            ),
            header_parameters={
                "Accept": events.HttpParameter.from_string("application/vnd.github+json"),
                "X-GitHub-Api-Version": events.HttpParameter.from_string("2022-11-28"),
            },
        )
        destination = events.ApiDestination(
            self,
            f"Destination {config.repository}",
            connection=connection,
            endpoint=f"https://api.github.com/repos/{config.repository}/dispatches",
            http_method=events.HttpMethod.POST,
            rate_limit_per_second=1,
        )
        # https://docs.github.com/en/rest/repos/repos#create-a-repository-dispatch-event: at most ten fields.
        return targets.ApiDestination(
            destination,
            event=events.RuleTargetInput.from_object(
                {
                    "event_type": events.EventField.detail_type,
                    "client_payload": {"event": events.EventField.from_path("$.detail")},
                }
            ),
            dead_letter_queue=self._undelivered,
        )
