"""What the resources of a template are billed as: quantities of the price list."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cost.prices import CannotPriceError, PriceList
from stacks.config import instance_memory_gib

_MONTH_HOURS = 730
_DAYS = _MONTH_HOURS / 24
# S3's request metrics that a bucket of artifacts has points of; each is billed as a custom metric.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/metrics-dimensions.html
_REQUEST_METRICS = 13
# ECS's metrics of a cluster with one service, and of each task with its containers: an estimate.
_INSIGHTS_METRICS, _INSIGHTS_METRICS_OF_A_TASK = 60, 40
# Of our own, which tasks write into their logs, by the task's command; a test counts those of the server.
# CloudWatch bills a metric for the hours in which it has values: a migration's cost nothing to speak of.
METRICS_OF = {"serve": 21, "client_smoke.canary": 2}


@dataclass(frozen=True)
class Quantity:
    """So much of one price, as part of a sum that people recognize."""

    part: str
    price: str
    amount: float
    by_use: bool = False


@dataclass(frozen=True)
class Bill:
    """The resources of the templates of one region, by their logical ids, and what a month uses."""

    resources: Sequence[tuple[str, Mapping[str, Any]]]
    use: Mapping[str, float]

    def of(self, type_name: str) -> list[Mapping[str, Any]]:
        """Return the properties of each resource of a type."""
        return [each.get("Properties", {}) for _, each in self.resources if each["Type"] == type_name]

    def referred(self, reference: Mapping[str, str]) -> Mapping[str, Any]:
        """Return the properties of the resource that a property names."""
        return next(each["Properties"] for name, each in self.resources if name == reference["Ref"])


def quantities(bill: Bill, prices: PriceList) -> Iterator[Quantity]:
    """Yield what a bill has: what its resources cost unused, then what depends on use.

    Raises:
        CannotPriceError: it has a type of resource of which nobody has said what it costs.
    """
    types = {each["Type"] for _, each in bill.resources}
    own = {each for each in types if each.startswith("Custom::")}
    if unknown := types - RULES.keys() - prices.each.keys() - prices.free - own:
        raise CannotPriceError(f"no price of {', '.join(sorted(unknown))}; add it to cost/prices.toml")
    for type_name, row in prices.each.items():
        count = len(bill.of(type_name))
        yield from (
            Quantity(row["part"], price, count * row[price]) for price in row.keys() - {"part"} if count
        )
    for type_name, rule in RULES.items():
        for properties in bill.of(type_name):
            yield from rule(properties, bill)
    for row in prices.use:
        if row["type"] in types:
            yield Quantity(row["part"], row["price"], bill.use[row["of"]], by_use=True)


def _task(part: str, definition: Mapping[str, Any], hours: float, *, spot: bool) -> Iterator[Quantity]:
    kind = "arm" if definition["RuntimePlatform"]["CpuArchitecture"] == "ARM64" else "x86"
    suffix = "-spot" if spot else ""
    yield Quantity(part, f"fargate-{kind}-vcpu-hour{suffix}", int(definition["Cpu"]) / 1024 * hours)
    yield Quantity(part, f"fargate-{kind}-gb-hour{suffix}", int(definition["Memory"]) / 1024 * hours)


def _service(service: Mapping[str, Any], bill: Bill) -> Iterator[Quantity]:
    """A service costs its fewest tasks; more of them come with load."""
    spot = any("SPOT" in each["CapacityProvider"] for each in service["CapacityProviderStrategy"])
    tasks = _tasks(bill)
    yield from _task("Tasks", bill.referred(service["TaskDefinition"]), tasks * _MONTH_HOURS, spot=spot)


def _tasks(bill: Bill) -> int:
    return sum(each["MinCapacity"] for each in bill.of("AWS::ApplicationAutoScaling::ScalableTarget"))


def _scheduled(scheduled: Mapping[str, Any], bill: Bill) -> Iterator[Quantity]:
    """A task that runs by the clock, such as the canary; Fargate bills a minute at least."""
    for target in scheduled.get("Targets", []):
        if run := target.get("EcsParameters"):
            hours = runs(scheduled["ScheduleExpression"]) * bill.use["minutes_of_a_scheduled_task"] / 60
            yield from _task("Scheduled tasks", bill.referred(run["TaskDefinitionArn"]), hours, spot=False)


def runs(schedule: str) -> float:
    """How often a month a schedule of EventBridge fires: `rate(…)`, or `cron(…)` by minute, hour and weekday.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html
    """
    if rate := re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", schedule):
        return _MONTH_HOURS * {"minute": 60, "hour": 1, "day": 1 / 24}[rate[2]] / int(rate[1])
    minute, hour, *_, weekday, _year = schedule.removeprefix("cron(").removesuffix(")").split()
    days = _DAYS if weekday in "?*" else _DAYS / 7 * _times(weekday, 7)
    return _times(minute, 60) * _times(hour, 24) * days


def _times(field: str, most: int) -> int:
    if "/" in field:
        return most // int(field.split("/")[1])
    return most if field in "*?" else len(field.split(","))


def _database(database: Mapping[str, Any], bill: Bill) -> Iterator[Quantity]:
    """An instance: one of a cluster, or one of its own with its storage, twice if it has a standby."""
    name, cluster = database["DBInstanceClass"].removeprefix("db."), bill.of("AWS::RDS::DBCluster")
    share = "-optimized" if any(each.get("StorageType") == "aurora-iopt1" for each in cluster) else ""
    if name == "serverless":
        least = cluster[0]["ServerlessV2ScalingConfiguration"]["MinCapacity"]
        yield Quantity("Database", f"aurora-acu-hour{share}", least * _MONTH_HOURS)
        return
    memory, copies = instance_memory_gib(name), 2 if database.get("MultiAZ") else 1
    price = f"aurora-gib-hour{share}" if cluster else f"database-{name[0]}-gib-hour"
    yield Quantity("Database", price, copies * memory * _MONTH_HOURS)
    if not cluster:
        yield Quantity("Database", "database-gb", copies * int(database["AllocatedStorage"]))
        if database.get("ManageMasterUserPassword"):
            yield Quantity("Keys and secrets", "secret", 1)
    if "advanced" in (each.get("DatabaseInsightsMode") for each in (database, *cluster)):
        vcpus = memory // {"t": 4, "m": 4, "r": 8}[name[0]] if "x" in name else 2
        yield Quantity("Database", "database-insights-vcpu-hour", vcpus * _MONTH_HOURS)


def _cluster(cluster: Mapping[str, Any], bill: Bill) -> Iterator[Quantity]:
    kept = "aurora-gb-optimized" if cluster.get("StorageType") == "aurora-iopt1" else "aurora-gb"
    yield Quantity("Database", kept, bill.use["gb_of_database"], by_use=True)
    if cluster.get("StorageType") != "aurora-iopt1":
        yield Quantity("Database", "aurora-million-io", bill.use["million_ios"], by_use=True)
    if cluster.get("ManageMasterUserPassword"):
        yield Quantity("Keys and secrets", "secret", 1)


def _load_balancer(balancer: Mapping[str, Any], _: Bill) -> Iterator[Quantity]:
    yield Quantity("Load balancer", "load-balancer-hour", _MONTH_HOURS)
    if balancer["Scheme"] == "internet-facing":
        yield Quantity("Load balancer", "public-ipv4-hour", len(balancer["Subnets"]) * _MONTH_HOURS)


def _nat_instance(instance: Mapping[str, Any], _: Bill) -> Iterator[Quantity]:
    yield Quantity("NAT", f"{instance['InstanceType'].replace('.', '-')}-hour", _MONTH_HOURS)
    yield Quantity("NAT", "public-ipv4-hour", _MONTH_HOURS)
    yield Quantity("NAT", "disk-gb", 8)  # the size of Amazon Linux's image


def _endpoint(endpoint: Mapping[str, Any], _: Bill) -> Iterator[Quantity]:
    if endpoint.get("VpcEndpointType", "Gateway") == "Interface":
        yield Quantity("Endpoints", "endpoint-hour", len(endpoint["SubnetIds"]) * _MONTH_HOURS)


def _alarm(alarm: Mapping[str, Any], _: Bill) -> Iterator[Quantity]:
    """An alarm costs by the metrics that it reads: https://aws.amazon.com/cloudwatch/pricing/."""
    read = [each for each in alarm.get("Metrics", [{"MetricStat": alarm}]) if "MetricStat" in each]
    yield Quantity("Metrics and alarms", "alarm-metric", len(read))


def _written_metrics(task: Mapping[str, Any], _: Bill) -> Iterator[Quantity]:
    for container in task["ContainerDefinitions"]:
        yield Quantity("Metrics and alarms", "metric", METRICS_OF.get(container["Command"][0], 0))


def _insights(cluster: Mapping[str, Any], bill: Bill) -> Iterator[Quantity]:
    if {"Name": "containerInsights", "Value": "enhanced"} in cluster["ClusterSettings"]:
        metrics = _INSIGHTS_METRICS + _tasks(bill) * _INSIGHTS_METRICS_OF_A_TASK
        yield Quantity("Metrics and alarms", "insights-metric", metrics)


def _bucket(bucket: Mapping[str, Any], _: Bill) -> Iterator[Quantity]:
    watched = len(bucket.get("MetricsConfigurations", []))
    yield Quantity("Metrics and alarms", "metric", watched * _REQUEST_METRICS)


def _firewall(firewall: Mapping[str, Any], _: Bill) -> Iterator[Quantity]:
    yield Quantity("Firewall", "firewall", 1)
    yield Quantity("Firewall", "firewall-rule", len(firewall["Rules"]))
    yield Quantity(
        "Firewall", "firewall-bot-control", str(firewall).count("'AWSManagedRulesBotControlRuleSet'")
    )


def _people(pool: Mapping[str, Any], bill: Bill) -> Iterator[Quantity]:
    yield Quantity("Sign-in", f"person-{pool['UserPoolTier'].lower()}", bill.use["people"], by_use=True)


RULES: Mapping[str, Callable[[Mapping[str, Any], Bill], Iterator[Quantity]]] = {
    "AWS::CloudWatch::Alarm": _alarm,
    "AWS::Cognito::UserPool": _people,
    "AWS::EC2::Instance": _nat_instance,
    "AWS::EC2::VPCEndpoint": _endpoint,
    "AWS::ECS::Cluster": _insights,
    "AWS::ECS::Service": _service,
    "AWS::ECS::TaskDefinition": _written_metrics,
    "AWS::ElasticLoadBalancingV2::LoadBalancer": _load_balancer,
    "AWS::Events::Rule": _scheduled,
    "AWS::RDS::DBCluster": _cluster,
    "AWS::RDS::DBInstance": _database,
    "AWS::S3::Bucket": _bucket,
    "AWS::WAFv2::WebACL": _firewall,
}
