"""What whoever is on call looks at first: is anybody hurt, by what, and since when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from stacks.monitoring.alarms import NAMESPACES, AlarmMetric
from stacks.monitoring.causes import Alarms, Dimensions

# CloudWatch's grid has 24 columns: three graphs in a row.
WIDTH, HEIGHT = 8, 6


@dataclass(frozen=True)
class Graph:
    """One graph: its title says the unit, its lines are labels and metrics."""

    title: str
    lines: Mapping[str, AlarmMetric]
    seconds: int = 60


def _server(statistic: str, **names: str) -> Mapping[str, AlarmMetric]:
    return {label.replace("_", " "): AlarmMetric("server", name, statistic) for label, name in names.items()}


# In the order of the questions: is anybody hurt, do the tasks hold, and what they stand on?
ROWS: Mapping[str, Sequence[Graph]] = {
    "Who is served": (
        Graph(
            "Requests a minute",
            {
                "answered": AlarmMetric("targets", "RequestCount", "Sum"),
                **_server("Sum", told_to_come_back="Throttled", refused="Refused"),
            },
        ),
        Graph(
            "Errors a minute",
            {
                "by the server": AlarmMetric("targets", "HTTPCode_Target_5XX_Count", "Sum"),
                "by the load balancer": AlarmMetric("balancer", "HTTPCode_ELB_5XX_Count", "Sum"),
                "by clients": AlarmMetric("targets", "HTTPCode_Target_4XX_Count", "Sum"),
            },
        ),
        Graph(
            "Latency in seconds",
            {
                "half": AlarmMetric("targets", "TargetResponseTime", "p50"),
                "95 of 100": AlarmMetric("targets", "TargetResponseTime", "p95"),
                "99 of 100": AlarmMetric("targets", "TargetResponseTime", "p99"),
            },
        ),
    ),
    "Tasks": (
        Graph("Healthy tasks", {"healthy": AlarmMetric("targets", "HealthyHostCount", "Minimum")}),
        Graph(
            "CPU and memory in percent",
            {
                "CPU": AlarmMetric("service", "CPUUtilization", "Average"),
                "memory": AlarmMetric("service", "MemoryUtilization", "Maximum"),
            },
        ),
        Graph(
            "Age of the youngest process, and of the issuer's keys, in seconds",
            {**_server("Minimum", process="Uptime"), **_server("Maximum", keys="KeysAge")},
        ),
    ),
    "Database": (
        Graph("Connections", {"open": AlarmMetric("database", "DatabaseConnections", "Maximum")}),
        Graph("CPU in percent", {"CPU": AlarmMetric("database", "CPUUtilization", "Average")}),
        Graph("Longest wait for a connection, in milliseconds", _server("Maximum", wait="DatabaseWait")),
        Graph(
            "Latency of storage in seconds",
            {
                "read": AlarmMetric("database", "ReadLatency", "Average"),
                "write": AlarmMetric("database", "WriteLatency", "Average"),
            },
        ),
        Graph("Free memory in bytes", {"free": AlarmMetric("database", "FreeableMemory", "Average")}),
        Graph(
            "Free storage in bytes",
            {
                "storage": AlarmMetric("database", "FreeStorageSpace", "Minimum"),
                "Aurora's local one": AlarmMetric("database", "FreeLocalStorage", "Minimum"),
            },
            300,
        ),
    ),
    "Artifacts and evidence": (
        Graph(
            "S3: requests a minute",
            {
                "all": AlarmMetric("bucket", "AllRequests", "Sum"),
                "refused or wrong": AlarmMetric("bucket", "4xxErrors", "Sum"),
                "failed": AlarmMetric("bucket", "5xxErrors", "Sum"),
            },
        ),
        Graph("Versions to seal", _server("Maximum", waiting="SealingBacklog", cannot_be="SealingFailed")),
        Graph(
            "The bucket's size in bytes", {"size": AlarmMetric("size", "BucketSizeBytes", "Average")}, 86400
        ),
    ),
}


class Dashboard(Construct):
    """The state of every alarm, then graphs, each with the thresholds of the alarms on its metrics."""

    def __init__(
        self, scope: Construct, construct_id: str, *, alarms: Alarms, dimensions: Dimensions, runbook_url: str
    ) -> None:
        super().__init__(scope, construct_id)
        stack = cdk.Stack.of(self)
        self._region, self._dimensions, self._alarms = stack.region, dimensions, alarms
        composites = [each.attr_arn for each in alarms.composites.values()]
        widgets = [
            {
                "type": "alarm",
                **_place(0, 0, 24, 5),
                "properties": {
                    "title": f"Alarms; what to do: {runbook_url}",
                    "alarms": composites + [each.attr_arn for each in alarms.alarms.values()],
                    "sortBy": "stateUpdatedTimestamp",
                },
            }
        ]
        top = 5
        for heading, graphs in ROWS.items():
            widgets.append(
                {"type": "text", **_place(0, top, 24, 1), "properties": {"markdown": f"## {heading}"}}
            )
            top += 1
            for number, graph in enumerate(graphs):
                row, column = divmod(number, 24 // WIDTH)
                place = _place(column * WIDTH, top + row * HEIGHT, WIDTH, HEIGHT)
                widgets.append({"type": "metric", **place, "properties": self._graph(graph)})
            top += HEIGHT * -(-len(graphs) * WIDTH // 24)
        cloudwatch.CfnDashboard(
            self,
            "Dashboard",
            dashboard_name=stack.stack_name,
            dashboard_body=stack.to_json_string({"start": "-PT3H", "widgets": widgets}),
        )

    def _graph(self, graph: Graph) -> dict[str, Any]:
        lines = [
            {"label": name, "value": threshold}
            for metric in graph.lines.values()
            for name, threshold in self._alarms.thresholds(metric).items()
        ]
        return {
            "title": graph.title,
            "region": self._region,
            "view": "timeSeries",
            "period": graph.seconds,
            "yAxis": {"left": {"min": 0, "showUnits": False}},
            **({"annotations": {"horizontal": lines}} if lines else {}),
            "metrics": [
                [
                    NAMESPACES[metric.subject],
                    metric.name,
                    *(part for pair in self._dimensions[metric.subject].items() for part in pair),
                    {"label": label, "stat": metric.statistic},
                ]
                for label, metric in graph.lines.items()
            ],
        }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "width": width, "height": height}
