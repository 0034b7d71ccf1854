"""What the load balancer counts, in the words of CloudWatch's PutMetricData.

Names, dimensions and when a metric is reported:
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from local.edge.target_group import TargetGroup

NAMESPACE = "AWS/ApplicationELB"
_OWN_ERRORS = frozenset({500, 502, 503, 504})


class Meter:
    """Counts until it is `taken`; what did not happen is not reported."""

    def __init__(self) -> None:
        # By target group; the balancer's own under "".
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._seconds: dict[str, Counter[float]] = defaultdict(Counter)

    def sent(self, group: str) -> None:
        """A target was chosen for a request."""
        self._counts[group]["RequestCount"] += 1

    def responded(self, group: str, status: int, seconds: float) -> None:
        """The target's response began so long after the request."""
        self._counts[group][f"HTTPCode_Target_{status // 100}XX_Count"] += 1
        # Three digits are enough to tell, and few enough to count.
        self._seconds[group][float(f"{seconds:.3g}")] += 1

    def unreachable(self, group: str) -> None:
        """The target took no connection."""
        self._counts[group]["TargetConnectionErrorCount"] += 1

    def answered(self, status: int) -> None:
        """The balancer gave a response of its own."""
        self._counts[""][f"HTTPCode_ELB_{status // 100}XX_Count"] += 1
        if status in _OWN_ERRORS:
            self._counts[""][f"HTTPCode_ELB_{status}_Count"] += 1

    def taken(self, load_balancer: str, groups: Mapping[str, TargetGroup], at: float) -> list[dict[str, Any]]:
        """The data since the last time, by ARN of the balancer and its target groups."""
        balancer = {"LoadBalancer": load_balancer.partition("loadbalancer/")[2]}
        data = [
            _datum(name, dimensions, at, {1.0: count})
            for group, counts in self._counts.items()
            for name, count in counts.items()
            for dimensions in _both(balancer, group)
        ]
        data += [
            _datum("TargetResponseTime", dimensions, at, seconds, unit="Seconds")
            for group, seconds in self._seconds.items()
            for dimensions in _both(balancer, group)
        ]
        for arn, group_now in groups.items():
            states = Counter(each.state == "healthy" for each in group_now.targets.values())
            for name, is_healthy in (("HealthyHostCount", True), ("UnHealthyHostCount", False)):
                data.append(_datum(name, _of(balancer, arn), at, {float(states[is_healthy]): 1}))
        self._counts.clear()
        self._seconds.clear()
        return data


def _both(balancer: Mapping[str, str], group: str) -> Iterator[Mapping[str, str]]:
    yield balancer
    if group:
        yield _of(balancer, group)


def _of(balancer: Mapping[str, str], group: str) -> dict[str, str]:
    return {**balancer, "TargetGroup": group.rpartition(":")[2]}


def _datum(
    name: str,
    dimensions: Mapping[str, str],
    at: float,
    values: Mapping[float, int],
    *,
    unit: str = "Count",
) -> dict[str, Any]:
    return {
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
        "Timestamp": at,
        "Unit": unit,
        "Values": list(values),
        "Counts": list(values.values()),
    }
