"""The figures of docs/cost.md and README: `python -m tests.cost_figures` writes them from the templates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cost.estimate import Estimate
from cost.prices import PriceList, profile
from cost.templates import Templates

PROJECT = Path(__file__).parents[1]
DOCUMENT, README = PROJECT / "docs" / "cost.md", PROJECT / "README.md"
PRICES, TEAM = PriceList.read(), profile("team")
_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- figures end -->)", re.DOTALL)
SENTENCE = re.compile(r"About \$(\d+) a month for `dev` and \$(\d+) for `prod`")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")

Change = Callable[[dict[str, Any]], object]


def estimate(templates: Templates, region: str = "us-east-1") -> Estimate:
    return Estimate.of(templates, use=TEAM, region=region, prices=PRICES)


def set_of(kind: str, **values: Any) -> Change:
    """Other properties of every resource of a type."""

    def change(resources: dict[str, Any]) -> None:
        for each in resources.values():
            if each["Type"] == kind:
                each["Properties"].update(values)

    return change


def without(*kinds: str, keep: int = 0, ids: str = "") -> Change:
    """Fewer resources of some types, and without those whose ids begin so."""

    def change(resources: dict[str, Any]) -> None:
        for kind in kinds:
            for name in [name for name, each in resources.items() if each["Type"].startswith(kind)][keep:]:
                del resources[name]
        for name in [name for name in resources if ids and name.startswith(ids)]:
            del resources[name]

    return change


def with_also(kind: str, **properties: Any) -> Change:
    """One more resource, in one of the stacks."""

    def change(resources: dict[str, Any]) -> None:
        if any(each["Type"] == "AWS::RDS::DBSubnetGroup" for each in resources.values()):
            resources[f"Also{kind}"] = {"Type": kind, "Properties": properties}

    return change


def both(*changes: Change) -> Change:
    return lambda resources: [each(resources) for each in changes]


def canary_each(minutes: int) -> Change:
    def change(resources: dict[str, Any]) -> None:
        for each in resources.values():
            if "EcsParameters" in str(each) and "ScheduleExpression" in each.get("Properties", {}):
                each["Properties"]["ScheduleExpression"] = f"rate({minutes} minutes)"

    return change


NAT = ("AWS::EC2::NatGateway", "AWS::EC2::EIP")
OPTIONS: tuple[tuple[str, str, str, Change], ...] = (
    (
        "dev",
        "`database.multi_az = true`",
        "a standby that takes over",
        set_of("AWS::RDS::DBInstance", MultiAZ=True),
    ),
    (
        "dev",
        "`server.spot = false`",
        "no task is taken back with two minutes' notice",
        set_of("AWS::ECS::Service", CapacityProviderStrategy=[{"CapacityProvider": "FARGATE"}]),
    ),
    (
        "dev",
        '`network.nat = "gateway"`',
        "AWS runs the NAT",
        both(without("AWS::EC2::Instance"), *(with_also(each) for each in NAT)),
    ),
    (
        "dev",
        "`ingress.internet_facing = true`",
        "public addresses of the load balancer",
        set_of("AWS::ElasticLoadBalancingV2::LoadBalancer", Scheme="internet-facing"),
    ),
    ("dev", "`canary.minutes = 15`", "the canary four times an hour", canary_each(15)),
    ("dev", "`monitoring.dashboard = true`", "a dashboard", with_also("AWS::CloudWatch::Dashboard")),
    ("dev", "`[backup]`", "a vault's key; and storage, by use", with_also("AWS::KMS::Key")),
    ("dev", "`[waf]`", "a firewall; and requests, by use", with_also("AWS::WAFv2::WebACL", Rules=[{}] * 5)),
    ("prod", "`database.multi_az = false`", "no standby", set_of("AWS::RDS::DBInstance", MultiAZ=False)),
    (
        "prod",
        '`database.insights = "standard"`',
        "7 days of the free kind",
        set_of("AWS::RDS::DBInstance", DatabaseInsightsMode="standard"),
    ),
    (
        "prod",
        '`server.container_insights = "disabled"`',
        "ECS's free metrics",
        set_of("AWS::ECS::Cluster", ClusterSettings=[]),
    ),
    ("prod", "`network.nat_count = 1`", "one NAT, lost with its zone", without(*NAT, keep=1)),
    (
        "prod",
        "`server.min_tasks = 1`",
        "one task, down while it is replaced",
        set_of("AWS::ApplicationAutoScaling::ScalableTarget", MinCapacity=1),
    ),
    (
        "prod",
        "`artifacts.request_metrics = false`",
        "no alarms on S3's errors and refusals",
        set_of("AWS::S3::Bucket", MetricsConfigurations=[]),
    ),
    ("prod", "`canary.enabled = false`", "nobody tries it but people", without(ids="Canary")),
    ("prod", "no `[waf]`", "no firewall", without("AWS::WAFv2::")),
    ("prod", "no `[backup]`", "RDS's own backups only", without("AWS::Backup::", ids="Backup")),
)


def changed(templates: Templates, change: Change) -> Templates:
    stacks = json.loads(json.dumps(templates.stacks))
    for each in stacks:
        change(each)
    return Templates(stacks, templates.second_region, templates.region)


def figures(environments: Mapping[str, Templates]) -> dict[str, str]:
    """Each block of the document, by its name."""
    found = {name: estimate(each) for name, each in environments.items()}
    rows = {name: each.rows() for name, each in found.items()}
    parts = sorted({part for each in rows.values() for part in each})
    totals = [(part, [usd for each in rows.values() for usd in each.get(part, (0, 0))]) for part in parts]
    totals.append(("**Total**", [usd for each in found.values() for usd in (each.fixed, each.used)]))
    totals.append(("Free allowance", [usd for each in found.values() for usd in (-each.allowance, 0)]))
    return {
        "totals": _table(
            ["", *(word for name in environments for word in (f"{name}, unused", "use adds"))],
            [[part, *map(_usd, row)] for part, row in totals],
        ),
        "options": _table(
            ["Environment", "Setting", "a month", "What it is"],
            [
                [
                    name,
                    setting,
                    f"{estimate(changed(environments[name], change)).fixed - found[name].fixed:+.1f}",
                    what,
                ]
                for name, setting, what, change in OPTIONS
            ],
        ),
        "regions": _table(
            ["Region", *environments],
            [
                [region, *(f"${estimate(each, region).fixed:.0f}" for each in environments.values())]
                for region in PRICES.regions
            ],
        ),
        "use": _table(
            ["Part", "Price", "of", "in us-east-1"],
            [
                [
                    row["part"],
                    row["price"].replace("-", " "),
                    row["of"].replace("_", " "),
                    f"${PRICES.usd(row['price'], 'us-east-1'):g}",
                ]
                for row in PRICES.use
            ],
        ),
        "unseen": ", ".join(f"`{name}`" for name, row in PRICES.prices.items() if "seen" not in row) + ".\n",
    }


def _table(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(each)} |\n" for each in lines).replace("|  |", "| |")


def _usd(usd: float) -> str:
    return f"{'-' * (usd < 0)}${abs(usd):.1f}" if round(usd, 1) else "–"


def rendered(document: str, blocks: Mapping[str, str]) -> str:
    return _BLOCK.sub(lambda match: f"{match[1]}{blocks[match[2]]}{match[3]}", document)


def sentence(environments: Mapping[str, Templates]) -> str:
    """README's words: dollars, to the next ten."""
    dev, prod = (round(estimate(environments[each]).fixed, -1) for each in ("dev", "prod"))
    return f"About ${dev:.0f} a month for `dev` and ${prod:.0f} for `prod`"


def alike(one: str, other: str) -> bool:
    """The same words, and figures that differ by little: an alarm more does not make a document wrong."""
    figures = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=False)
    near = all(abs(float(left) - float(right)) <= max(1.0, 0.03 * float(right)) for left, right in figures)
    return near and _NUMBER.sub("", one) == _NUMBER.sub("", other)


if __name__ == "__main__":
    made = {name: Templates.synthesized(name) for name in ("dev", "prod")}
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(encoding="utf-8"), figures(made)), encoding="utf-8")
    for file in (README, PROJECT / "docs" / "proof.toml"):
        file.write_text(SENTENCE.sub(sentence(made), file.read_text(encoding="utf-8")), encoding="utf-8")
