"""What a deployment costs, from its templates; prices, by hand from the price list."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow_aws_server.metrics.names import TABLE

from cost.__main__ import main
from cost.estimate import Estimate
from cost.parts import METRICS_OF, Bill, quantities, runs
from cost.prices import CannotPriceError, PriceList, profile
from cost.templates import Templates
from tests import cost_figures
from tests.stacks.templates import Assembly

PRICES, TEAM = PriceList.read(), profile("team")


def estimate(assembly: Assembly, region: str | None = "us-east-1") -> Estimate:
    found = Templates.read(assembly.service.path.parent)
    return Estimate.of(found, use=TEAM, region=region, prices=PRICES)


def fixed(assembly: Assembly, part: str) -> float:
    return estimate(assembly).rows()[part][0]


def test_the_documents_say_what_the_templates_cost(dev: Assembly, prod: Assembly) -> None:
    """To the dollar, or three in a hundred; `python -m tests.cost_figures` writes them."""
    made = {name: Templates.read(each.service.path.parent) for name, each in (("dev", dev), ("prod", prod))}
    document = cost_figures.DOCUMENT.read_text()
    assert cost_figures.alike(document, cost_figures.rendered(document, cost_figures.figures(made)))
    told = cost_figures.SENTENCE.search(cost_figures.README.read_text())
    assert told is not None
    dollars = [float(each) for each in told.groups()]
    assert dollars == pytest.approx([cost_figures.estimate(each).fixed for each in made.values()], abs=10)


def test_metrics_of_our_own_are_counted_where_they_are_written() -> None:
    assert METRICS_OF["serve"] == len(TABLE)


def test_dev_stays_below_60_dollars_before_use(dev: Assembly) -> None:
    """With alarms and canary, which it has, and a backup's key."""
    found = Templates.read(dev.service.path.parent)
    backed_up = cost_figures.changed(found, cost_figures.with_also("AWS::KMS::Key"))
    with_backup = cost_figures.estimate(backed_up)
    assert with_backup.fixed == pytest.approx(estimate(dev).fixed + 1)
    types = dev.service.types()
    assert {"AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"} <= types
    assert estimate(dev).rows()["Scheduled tasks"][0] > 0
    assert 40 < with_backup.fixed <= 60


def test_the_allowance_is_never_more_than_what_it_is_for(dev: Assembly) -> None:
    assert estimate(dev).allowance == pytest.approx(10 * 0.3 + 10 * 0.1)
    assert cost_figures.estimate(Templates([], {}, None)).allowance == 0


@pytest.mark.parametrize("name", ["dev", "prod", "given", "public", "replicated"])
def test_every_resource_has_a_price_or_is_known_to_be_free(name: str, request: pytest.FixtureRequest) -> None:
    assert estimate(request.getfixturevalue(name)).fixed > 30


def test_a_resource_of_which_nobody_said_what_it_costs_is_named() -> None:
    bill = Bill([("Cache", {"Type": "AWS::ElastiCache::CacheCluster"})], TEAM)
    with pytest.raises(
        CannotPriceError, match=r"no price of AWS::ElastiCache::CacheCluster; add it to cost/"
    ):
        list(quantities(bill, PRICES))


def test_the_database_costs_its_memory_storage_copies_and_insights(dev: Assembly, prod: Assembly) -> None:
    assert fixed(dev, "Database") == pytest.approx(1 * 0.016 * 730 + 20 * 0.115)
    assert fixed(prod, "Database") == pytest.approx(2 * (8 * 0.021 * 730 + 100 * 0.115) + 2 * 0.0125 * 730)


def test_tasks_cost_their_fewest_and_on_spot_a_third(dev: Assembly, prod: Assembly) -> None:
    assert fixed(dev, "Tasks") == pytest.approx(730 * (0.5 * 0.0097 + 1 * 0.00107))
    assert fixed(prod, "Tasks") == pytest.approx(2 * 730 * (1 * 0.03238 + 2 * 0.00356))


def test_public_addresses_are_counted(prod: Assembly, public: Assembly, dev: Assembly) -> None:
    assert fixed(prod, "NAT") == pytest.approx(3 * 730 * (0.045 + 0.005))
    assert fixed(dev, "NAT") == pytest.approx(730 * (0.0042 + 0.005) + 8 * 0.08)
    assert fixed(public, "Load balancer") - fixed(prod, "Load balancer") == pytest.approx(3 * 730 * 0.005)


def test_an_aurora_cluster_costs_each_instance_and_a_second_region_its_copies(replicated: Assembly) -> None:
    assert fixed(replicated, "Database") == pytest.approx(730 * (3 * 16 * 0.0225 + 3 * 2 * 0.0125))
    assert estimate(replicated).rows()["Backups"][1] == pytest.approx(
        2 * (40 * 0.095 + 300 * 0.05) + 100 * 0.02
    )


def test_what_nobody_uses_costs_what_is_fixed(dev: Assembly) -> None:
    found = Templates.read(dev.service.path.parent)
    idle = {**dict.fromkeys(TEAM, 0.0), "minutes_of_a_scheduled_task": TEAM["minutes_of_a_scheduled_task"]}
    unused = Estimate.of(found, use=idle, region="us-east-1", prices=PRICES)
    assert unused.used == 0
    assert unused.fixed == pytest.approx(estimate(dev).fixed)


def test_prices_are_those_of_the_environment_s_region(given: Assembly) -> None:
    assert (estimate(given, None).region, estimate(given).region) == ("eu-central-1", "us-east-1")
    assert estimate(given, None).rows()["Load balancer"][0] == pytest.approx(730 * (0.027 + 2 * 0.005))
    with pytest.raises(CannotPriceError, match="no prices of ap-south-1; choose REGION=us-east-1"):
        estimate(given, "ap-south-1")


def test_alarms_cost_by_their_metrics_and_a_firewall_by_its_rules() -> None:
    stat: dict[str, Any] = {"MetricStat": {}}
    found: list[tuple[str, Any]] = [
        ("One", {"Type": "AWS::CloudWatch::Alarm", "Properties": {"MetricName": "Cpu"}}),
        (
            "Sum",
            {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {"Metrics": [stat, stat, {"Expression": "a+b"}]},
            },
        ),
        ("All", {"Type": "AWS::CloudWatch::CompositeAlarm"}),
        ("Wall", {"Type": "AWS::WAFv2::WebACL", "Properties": {"Rules": [{}, {}, {}]}}),
    ]
    usd: dict[str, float] = {}
    for each in quantities(Bill(found, TEAM), PRICES):
        usd[each.part] = usd.get(each.part, 0) + each.amount * PRICES.usd(each.price, "us-east-1") * (
            not each.by_use
        )
    assert usd == {"Metrics and alarms": pytest.approx(3 * 0.1 + 0.5), "Firewall": 5 + 3}


@pytest.mark.parametrize(
    ("schedule", "times"),
    [
        ("rate(1 hour)", 730),
        ("rate(15 minutes)", 2920),
        ("cron(0 5 * * ? *)", 365 / 12),
        ("cron(0/15 * * * ? *)", 2920),
        ("cron(0 1,13 ? * MON *)", 365 / 12 / 7 * 2),
    ],
)
def test_a_task_by_the_clock_costs_its_runs(schedule: str, times: float) -> None:
    assert runs(schedule) == pytest.approx(times, rel=0.001)


def test_every_price_has_a_page_of_aws_and_is_charged_somewhere() -> None:
    charged = {key for row in PRICES.each.values() for key in row} | {row["price"] for row in PRICES.use}
    rules = (Path(__file__).parents[2] / "cost" / "parts.py").read_text()
    assembled = ("fargate-", "database-", "aurora-", "person-", "t4g-", "between-")
    for name, row in PRICES.prices.items():
        assert row["page"].endswith("pricing") or "/pricing/" in row["page"], name
        assert name in charged or f'"{name}"' in rules or name.startswith(assembled), name
        assert not isinstance(row["usd"], list) or len(row["usd"]) == len(PRICES.regions), name


def test_make_cost_compares_two_environments_for_people_and_programs(
    dev: Assembly, prod: Assembly, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def synthesize(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if command[-1] == "env=lost":
            return subprocess.CompletedProcess(command, 1, stderr="ENV=lost has no file")
        made = (prod if command[-1] == "env=prod" else dev).service.path.parent
        shutil.copytree(made, command[command.index("--output") + 1], dirs_exist_ok=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", synthesize)
    assert main(["--env", "dev", "--against", "prod"]) == 0
    heading, columns, *_, total, _allowance = capsys.readouterr().out.splitlines()
    assert "2026-11 in us-east-1" in heading
    assert columns.split("  ")[0] == "USD a month"
    both = estimate(dev), estimate(prod)
    difference = sum(each.fixed + each.used for each in both[1:]) - (both[0].fixed + both[0].used)
    assert float(total.split()[-1]) == pytest.approx(difference, abs=0.01)
    assert main(["--env", "dev", "--region", "eu-central-1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["dev"]
    assert told["fixed"] == pytest.approx(
        sum(each["usd"] for each in told["quantities"] if not each["by_use"]), abs=0.1
    )
    for wrong, reason in (
        (["--env", "lost"], "ENV=lost has no file"),
        (["--region", "mars-1"], "no prices of mars-1"),
        (["--profile", "nobody"], "write such a file after"),
    ):
        assert main(wrong) == 2
        assert reason in capsys.readouterr().err


def test_a_profile_of_one_s_own_is_complete(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text("people = -1\n")
    with pytest.raises(CannotPriceError, match="gb_logged"):
        profile(str(own))
    own.write_text("".join(f"{key} = 1\n" for key in TEAM if key != "people") + "people = -1\n")
    with pytest.raises(CannotPriceError, match="people is not a quantity"):
        profile(str(own))
