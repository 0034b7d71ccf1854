"""The dashboard shows every alarm, and metrics that exist, in a grid that CloudWatch can draw."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stacks.monitoring.alarms import ALARMS, OWN
from tests.stacks.conftest import ROOT
from tests.stacks.monitoring.test_alarms import COMPOSITE, metric_alarms, name_of
from tests.stacks.templates import Assembly, Template

# As AWS documents them: what the load balancer, ECS, RDS and S3 publish without a fee of ours.
KNOWN = {row_metric.name for row in ALARMS for row_metric in row.metrics.values()} | {
    "ReadLatency",
    "BucketSizeBytes",
}


def widgets(template: Template) -> list[Mapping[str, Any]]:
    """The widgets, with the logical id of a resource for what is known at deployment only."""
    body = template.one("AWS::CloudWatch::Dashboard")["DashboardBody"]
    text = "".join(part if isinstance(part, str) else _id(part) for part in body["Fn::Join"][1])
    found: list[Mapping[str, Any]] = json.loads(text)["widgets"]
    return found


def _id(part: Mapping[str, Any]) -> str:
    (value,) = part.values()
    return str(value[0] if isinstance(value, list) else value)


def graphs(template: Template) -> Iterator[Mapping[str, Any]]:
    return (each["properties"] for each in widgets(template) if each["type"] == "metric")


def test_the_first_widget_is_the_state_of_every_alarm(prod: Assembly) -> None:
    first = widgets(prod.service)[0]
    shown = {name_of(prod.service.resources[each]["Properties"]) for each in first["properties"]["alarms"]}
    composites = {name_of(each) for each in prod.service.all(COMPOSITE)}
    assert first["type"] == "alarm"
    assert shown == composites | set(metric_alarms(prod.service))


def test_every_graph_shows_metrics_that_somebody_publishes(prod: Assembly) -> None:
    own = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
    for graph in graphs(prod.service):
        for namespace, name, *dimensions, line in graph["metrics"]:
            assert name in (own if namespace == OWN else KNOWN)
            assert len(dimensions) % 2 == 0
            assert line["stat"]


def test_a_graph_shows_where_the_alarms_on_its_metrics_ring(prod: Assembly) -> None:
    lines = {
        line["label"]: line["value"]
        for graph in graphs(prod.service)
        for line in graph.get("annotations", {"horizontal": []})["horizontal"]
    }
    alarms = metric_alarms(prod.service)
    assert {"SlowAnswers", "TaskCpu", "DatabaseConnections", "DatabaseStorage"} <= set(lines)
    assert lines == {name: alarms[name]["Threshold"] for name in lines}


def test_no_widget_covers_another_one_or_leaves_the_grid(prod: Assembly) -> None:
    taken: set[tuple[int, int]] = set()
    for each in widgets(prod.service):
        cells = {
            (x, y)
            for x in range(each["x"], each["x"] + each["width"])
            for y in range(each["y"], each["y"] + each["height"])
        }
        assert not taken & cells
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_dev_has_none_which_would_cost_three_dollars(dev: Assembly) -> None:
    assert not dev.service.all("AWS::CloudWatch::Dashboard")
