"""What the load balancer counts, as CloudWatch has it from AWS."""

from __future__ import annotations

from typing import Any

from local.edge.meter import Meter
from local.edge.target_group import Target, TargetGroup

GROUP = "arn:aws:elasticloadbalancing:r:1:targetgroup/server/2"
BALANCER = "arn:aws:elasticloadbalancing:r:1:loadbalancer/app/mlflow/1"


def taken(meter: Meter, **states: str) -> dict[tuple[str, int], dict[float, int]]:
    group = TargetGroup("/health", 1, 1, 1, 1, frozenset({200}))
    group.targets = {name: Target(name, name, state) for name, state in states.items()}
    data: list[dict[str, Any]] = meter.taken(BALANCER, {GROUP: group}, 1.0)
    dimensions = {"LoadBalancer": "app/mlflow/1", "TargetGroup": "targetgroup/server/2"}
    for each in data:
        named = {pair["Name"]: pair["Value"] for pair in each["Dimensions"]}
        assert named.items() <= dimensions.items()
    return {
        (each["MetricName"], len(each["Dimensions"])): dict(zip(each["Values"], each["Counts"], strict=True))
        for each in data
    }


def test_requests_and_responses_count_for_the_balancer_and_for_the_group() -> None:
    meter = Meter()
    for status, seconds in ((200, 0.1234), (200, 0.12341), (503, 2.0)):
        meter.sent(GROUP)
        meter.responded(GROUP, status, seconds)
    data = taken(meter)
    for dimensions in (1, 2):
        assert data["RequestCount", dimensions] == {1: 3}
        assert data["HTTPCode_Target_2XX_Count", dimensions] == {1: 2}
        assert data["HTTPCode_Target_5XX_Count", dimensions] == {1: 1}
        assert data["TargetResponseTime", dimensions] == {0.123: 2, 2.0: 1}


def test_what_did_not_happen_is_not_reported_and_nothing_is_reported_twice() -> None:
    meter = Meter()
    meter.answered(503)
    meter.answered(401)
    data = taken(meter)
    assert {name for name, _ in data if "ELB" in name} == {
        "HTTPCode_ELB_5XX_Count", "HTTPCode_ELB_503_Count", "HTTPCode_ELB_4XX_Count",
    }  # fmt: skip
    assert "RequestCount" not in {name for name, _ in data}
    assert set(taken(meter)) == {("HealthyHostCount", 2), ("UnHealthyHostCount", 2)}


def test_hosts_that_are_not_yet_healthy_are_unhealthy() -> None:
    data = taken(Meter(), a="healthy", b="unhealthy", c="initial")
    assert data["HealthyHostCount", 2] == {1: 1}
    assert data["UnHealthyHostCount", 2] == {2: 1}
