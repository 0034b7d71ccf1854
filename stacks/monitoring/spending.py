"""What a month may cost, and spending that leaves its pattern."""

import json

import aws_cdk as cdk
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_ce as ce
from constructs import Construct

from stacks.cost_config import TAG, CostConfig, deployment_of


class Spending(Construct):
    """E-mails about the cost of everything that carries the deployment's tag, in every stack.

    AWS knows costs by a tag only after somebody has activated it: docs/cost.md.
    """

    def __init__(self, scope: Construct, construct_id: str, *, config: CostConfig) -> None:
        super().__init__(scope, construct_id)
        deployment = deployment_of(cdk.Stack.of(self).stack_name)
        budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=config.monthly_budget_usd, unit="USD"),
                # https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_budgets_Budget.html
                cost_filters={"TagKeyValue": [f"user:{TAG}${deployment}"]},
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        notification_type=kind, comparison_operator="GREATER_THAN", threshold=percent
                    ),
                    subscribers=[
                        budgets.CfnBudget.SubscriberProperty(subscription_type="EMAIL", address=each)
                        for each in config.emails
                    ],
                )
                for kind, percent in (("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100))
            ],
        )
        if config.anomaly_usd is None:
            return
        monitor = ce.CfnAnomalyMonitor(
            self,
            "Monitor",
            monitor_name=deployment,
            monitor_type="CUSTOM",
            monitor_specification=json.dumps({"Tags": {"Key": TAG, "Values": [deployment]}}),
        )
        least = {
            "Key": "ANOMALY_TOTAL_IMPACT_ABSOLUTE",
            "MatchOptions": ["GREATER_THAN_OR_EQUAL"],
            "Values": [str(config.anomaly_usd)],
        }
        ce.CfnAnomalySubscription(
            self,
            "Anomalies",
            subscription_name=deployment,
            frequency="DAILY",
            monitor_arn_list=[monitor.attr_monitor_arn],
            threshold_expression=json.dumps({"Dimensions": least}),
            subscribers=[
                ce.CfnAnomalySubscription.SubscriberProperty(type="EMAIL", address=each)
                for each in config.emails
            ],
        )
