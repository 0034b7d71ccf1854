"""What happened to models, for whoever wants to act on it."""

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from constructs import Construct


class Events(Construct):
    """A bus of EventBridge that only the server puts events on: docs/events.md."""

    def __init__(self, scope: Construct, construct_id: str, *, server_role: iam.IRole) -> None:
        super().__init__(scope, construct_id)
        bus = events.EventBus(self, "Bus", description="Events of MLflow on AWS: docs/events.md")
        self.bus_arn = bus.event_bus_arn
        iam.Policy(
            self,
            "Policy",
            roles=[server_role],
            statements=[iam.PolicyStatement(actions=["events:PutEvents"], resources=[bus.event_bus_arn])],
        )
        cdk.CfnOutput(cdk.Stack.of(self), "EventBusName", value=bus.event_bus_name)
