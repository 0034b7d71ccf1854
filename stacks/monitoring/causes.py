"""The alarms of the table as resources, and how they act."""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sns as sns
from constructs import Construct, IDependable

from stacks.config import EnvironmentConfig
from stacks.monitoring.alarms import ALARMS, NAMESPACES, Alarm, AlarmMetric, Cause, Subject

# How long a symptom waits for its cause to ring, and stays silent after the cause has been seen to.
WAIT = 300

Dimensions = Mapping[Subject, Mapping[str, str]]


class Alarms(Construct):
    """One alarm for each row that applies; pages through one composite alarm for each cause.

    Tickets act by themselves. Where a cause has one page only, that alarm is its own composite.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-suppression.html
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        dimensions: Dimensions,
        pages: sns.ITopic,
        tickets: sns.ITopic,
        environment: EnvironmentConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        self._environment, self._dimensions = environment, dimensions
        self._prefix = cdk.Stack.of(self).stack_name
        self._pages, self._tickets = pages.topic_arn, tickets.topic_arn
        rows = [row for row in ALARMS if row.applies(environment)]
        by_cause: dict[Cause, list[Alarm]] = {}
        for row in rows:
            if row.cause is not None:
                by_cause.setdefault(row.cause, []).append(row)
        alone = {row.name for paging in by_cause.values() if len(paging) == 1 for row in paging}
        self.alarms = {row.name: self._alarm(row, acts=row.name in alone) for row in rows}
        self.composites: dict[Cause, cloudwatch.CfnCompositeAlarm] = {}
        # A cause comes before what it explains.
        for cause in sorted(by_cause, key=lambda each: each.explained_by is not None):
            if len(by_cause[cause]) > 1:
                self.composites[cause] = self._composite(cause, by_cause[cause])
        self.of_deployments = [self.alarms[row.name].ref for row in rows if row.rolls_back]

    def start_after(self, service: IDependable) -> None:
        """Create what rings without values only once the service runs, which would give them."""
        for row in ALARMS:
            if row.missing == "breaching" and row.name in self.alarms:
                self.alarms[row.name].node.add_dependency(service)

    def thresholds(self, metric: AlarmMetric) -> dict[str, float]:
        """Where the alarms on nothing but this metric ring, by their names."""
        return {
            row.name: threshold
            for row in ALARMS
            if row.name in self.alarms and [*row.metrics.values()] == [metric] and not row.expression
            # Below zero is nothing: it is silence that rings.
            if (threshold := self._threshold(row)) > 0
        }

    def _alarm(self, row: Alarm, *, acts: bool) -> cloudwatch.CfnAlarm:
        topic = {"ticket": [self._tickets], "page": [self._pages] if acts else []}[row.severity]
        return cloudwatch.CfnAlarm(
            self,
            row.name,
            alarm_name=f"{self._prefix}-{row.name}",
            alarm_description=self._description(row.name, row.meaning),
            metrics=self._queries(row),
            comparison_operator="GreaterThanThreshold" if row.above is not None else "LessThanThreshold",
            threshold=self._threshold(row),
            datapoints_to_alarm=row.lasts.datapoints,
            evaluation_periods=row.lasts.periods,
            treat_missing_data=row.missing,
            alarm_actions=topic,
            ok_actions=topic if row.severity == "page" else [],
        )

    def _threshold(self, row: Alarm) -> float:
        threshold = row.above if row.above is not None else row.below
        assert threshold is not None  # noqa: S101
        return threshold(self._environment) if callable(threshold) else threshold

    def _queries(self, row: Alarm) -> list[cloudwatch.CfnAlarm.MetricDataQueryProperty]:
        query = cloudwatch.CfnAlarm.MetricDataQueryProperty
        queries = [
            query(
                id=name,
                return_data=row.expression is None,
                metric_stat=cloudwatch.CfnAlarm.MetricStatProperty(
                    metric=self._metric(metric), period=row.lasts.seconds, stat=metric.statistic
                ),
            )
            for name, metric in row.metrics.items()
        ]
        if row.expression:
            period = None if row.metrics else row.lasts.seconds
            queries.append(query(id="value", expression=row.expression, period=period, return_data=True))
        return queries

    def _metric(self, metric: AlarmMetric) -> cloudwatch.CfnAlarm.MetricProperty:
        return cloudwatch.CfnAlarm.MetricProperty(
            namespace=NAMESPACES[metric.subject],
            metric_name=metric.name,
            dimensions=[
                cloudwatch.CfnAlarm.DimensionProperty(name=name, value=value)
                for name, value in self._dimensions[metric.subject].items()
            ],
        )

    def _composite(self, cause: Cause, rows: list[Alarm]) -> cloudwatch.CfnCompositeAlarm:
        explained_by = self.composites.get(cause.explained_by) if cause.explained_by else None
        return cloudwatch.CfnCompositeAlarm(
            self,
            cause.name,
            alarm_name=f"{self._prefix}-{cause.name}",
            alarm_description=self._description(cause.name, cause.meaning),
            alarm_rule=" OR ".join(f'ALARM("{self.alarms[row.name].ref}")' for row in rows),
            alarm_actions=[self._pages],
            ok_actions=[self._pages],
            actions_suppressor=explained_by.attr_arn if explained_by else None,
            actions_suppressor_wait_period=WAIT if explained_by else None,
            actions_suppressor_extension_period=WAIT if explained_by else None,
        )

    def _description(self, name: str, meaning: str) -> str:
        return f"{meaning} {self._environment.monitoring.runbook_url}#{name.lower()}"
