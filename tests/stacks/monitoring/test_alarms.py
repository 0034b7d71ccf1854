"""Each alarm rings when it must, and one cause pages once."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from stacks.monitoring.alarms import ALARMS
from tests.stacks.conftest import CHAT, ROOT, TOPIC
from tests.stacks.monitoring.cloudwatch import actions, holds, state
from tests.stacks.monitoring.patterns import NOTHING, PATTERNS
from tests.stacks.templates import Assembly, Template, as_list

ENVIRONMENTS = ["dev", "prod", "replicated"]
ALARM, COMPOSITE = "AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"
ROWS = {row.name: row for row in ALARMS}


def metric_alarms(template: Template) -> dict[str, Mapping[str, Any]]:
    """The metric alarms, by the name of their row."""
    return {name_of(each): each for each in template.all(ALARM)}


def name_of(alarm: Mapping[str, Any]) -> str:
    return str(alarm["AlarmName"]).rsplit("-", 1)[-1]


def composites(template: Template) -> dict[str, Mapping[str, Any]]:
    return {name_of(each): each for each in template.all(COMPOSITE)}


def rule(template: Template, composite: Mapping[str, Any]) -> str:
    """The rule, with the names of rows in it."""
    text = composite["AlarmRule"]["Fn::Join"][1]
    names = {
        logical: name_of(each["Properties"])
        for logical, each in template.resources.items()
        if each["Type"] == ALARM
    }
    return "".join(names[part["Ref"]] if isinstance(part, dict) else part for part in text)


def rules_of(template: Template) -> dict[str, Mapping[str, Any]]:
    """The rules of notices, by name."""
    rules = template.all("AWS::Events::Rule", id_starts="MonitoringNotices")
    return {str(each["Name"]).rsplit("-", 1)[-1]: each for each in rules}


def topic_of(template: Template, actions: list[Any]) -> str | None:
    """`Pages` or `Tickets`, or None where an alarm does not act by itself."""
    found = [re.sub(r"MonitoringTopics([A-Z][a-z]+).*", r"\1", each["Ref"]) for each in actions]
    assert len(found) < 2
    return found[0] if found else None


@pytest.fixture(params=ENVIRONMENTS)
def service(request: pytest.FixtureRequest) -> Template:
    assembly: Assembly = request.getfixturevalue(request.param)
    return assembly.service


def test_every_row_is_an_alarm_of_some_environment_and_has_its_pattern(
    dev: Assembly, prod: Assembly, replicated: Assembly
) -> None:
    made = {name for each in (dev, prod, replicated) for name in metric_alarms(each.service)}
    assert made == set(ROWS)
    assert set(PATTERNS) == set(ROWS), "a row needs a pattern that makes it ring, and one that does not"


def test_every_alarm_rings_for_its_pattern_and_not_for_the_other(service: Template) -> None:
    for name, alarm in metric_alarms(service).items():
        assert state(alarm, PATTERNS[name].rings) == "ALARM", name
        silent = PATTERNS[name].silent
        for minute in range(alarm["EvaluationPeriods"], max(map(len, silent.values())) + 1):
            until_then = {metric: values[:minute] for metric, values in silent.items()}
            assert state(alarm, until_then) == "OK", f"{name} rings in period {minute}"


def test_without_any_value_rings_only_what_is_about_silence(service: Template) -> None:
    for name, alarm in metric_alarms(service).items():
        nothing = dict.fromkeys(PATTERNS[name].rings, NOTHING)
        assert state(alarm, nothing) == ("ALARM" if ROWS[name].missing == "breaching" else "OK"), name


def test_everything_that_pages_does_so_through_one_alarm_and_nothing_else_does(service: Template) -> None:
    rules = [rule(service, each) for each in composites(service).values()]
    assert all(topic_of(service, each["AlarmActions"]) == "Pages" for each in composites(service).values())
    for name, alarm in metric_alarms(service).items():
        own = topic_of(service, alarm["AlarmActions"])
        assert (ROWS[name].severity == "page") == (ROWS[name].cause is not None), name
        through = sum(f'ALARM("{name}")' in each for each in rules)
        if ROWS[name].severity == "ticket":
            assert (own, through) == ("Tickets", 0), name
        else:
            assert (own == "Pages") + through == 1, name


def test_a_database_that_fails_pages_once_whatever_it_takes_down(service: Template) -> None:
    minutes = 60
    foundation, served = composites(service)["Foundation"], composites(service)["Service"]
    # The database stops at minute 0; alarms of the service ring before and after the database's own.
    database = [minute >= 7 for minute in range(minutes)]
    symptoms = [minute >= 4 for minute in range(minutes)]
    assert holds(rule(service, foundation), states("DatabaseSilent"))
    assert holds(rule(service, served), states("TargetErrors"))
    assert not holds(rule(service, served), states("DatabaseSilent"))
    suppressor = served["ActionsSuppressor"]["Fn::GetAtt"][0]
    assert name_of(service.resources[suppressor]["Properties"]) == "Foundation"
    assert actions(foundation, database) + actions(served, symptoms, database) == 1
    assert actions(served, symptoms, [False] * minutes) == 1


def states(ringing: str) -> dict[str, str]:
    return {name: "ALARM" if name == ringing else "OK" for name in ROWS}


def test_alarms_roll_a_release_back_and_do_not_wait_for_the_service_they_guard(service: Template) -> None:
    deployment = service.one("AWS::ECS::Service")["DeploymentConfiguration"]["Alarms"]
    named = [each["Ref"] for each in deployment["AlarmNames"]]
    assert (deployment["Enable"], deployment["Rollback"]) == (True, True)
    assert {name_of(service.resources[each]["Properties"]) for each in named} == {
        row.name for row in ALARMS if row.rolls_back
    }
    (ecs_service,) = (key for key, each in service.resources.items() if each["Type"] == "AWS::ECS::Service")
    for each in named:
        assert ecs_service not in service.needs(each)
        # Before the first deployment there is no value: that must not take the first release back.
        assert service.resources[each]["Properties"]["TreatMissingData"] == "notBreaching"


def test_what_rings_without_values_is_made_once_the_service_runs(service: Template) -> None:
    (ecs_service,) = (key for key, each in service.resources.items() if each["Type"] == "AWS::ECS::Service")
    for resource in service.resources.values():
        if resource["Type"] == ALARM and resource["Properties"]["TreatMissingData"] == "breaching":
            assert ecs_service in as_list(resource["DependsOn"])


def test_every_alarm_has_a_section_of_the_runbook_and_every_section_an_alarm(
    dev: Assembly, prod: Assembly, replicated: Assembly
) -> None:
    document = (ROOT / "docs" / "runbook.md").read_text()
    sections = re.split(r"^### ", document, flags=re.MULTILINE)[1:]
    named = {each.partition("\n")[0]: each for each in sections}
    made = {
        name
        for each in (dev, prod, replicated)
        for name in (*metric_alarms(each.service), *composites(each.service), *rules_of(each.service))
    }
    assert set(named) == made
    for name, text in named.items():
        assert all(part in text for part in ("**Means**", "**Look**", "**Do**")), name
    assert list(named) == [*dict.fromkeys(named)]


def test_every_description_leads_to_its_section(service: Template) -> None:
    alarms = {**metric_alarms(service), **composites(service)}
    for name, alarm in alarms.items():
        assert alarm["AlarmDescription"].endswith(f" docs/runbook.md#{name.lower()}")


def test_only_services_of_aws_publish_for_this_deployment(service: Template) -> None:
    statements = {
        json.dumps(policy["Topics"]): policy["PolicyDocument"]["Statement"]
        for policy in service.all("AWS::SNS::TopicPolicy")
    }
    assert len(statements) == len(service.all("AWS::SNS::Topic")) == 2
    for each in statements.values():
        allowed = [statement for statement in each if statement["Effect"] == "Allow"]
        assert {statement["Principal"].get("Service") for statement in allowed} <= PUBLISHERS
        assert all(statement["Action"] == "sns:Publish" for statement in allowed)
        assert all("aws:SourceArn" in json.dumps(statement["Condition"]) for statement in allowed)
        denied = [statement["Condition"] for statement in each if statement["Effect"] == "Deny"]
        assert {"Bool": {"aws:PrincipalIsAWSService": "false"}} in denied
        assert {"Bool": {"aws:SecureTransport": "false"}} in denied
    publish = {target for _, action, target in service.allowed() if action.startswith("sns:")}
    assert publish <= {TOPIC, CHAT}, "a rule of events may, on the operator's own topics"


PUBLISHERS = {"cloudwatch.amazonaws.com", "events.amazonaws.com"}


def test_topics_are_encrypted_with_a_key_that_their_publishers_may_use(either: Assembly) -> None:
    for topic in either.service.all("AWS::SNS::Topic"):
        assert "LogKey" in json.dumps(topic["KmsMasterKeyId"])
    key = either.foundation.one("AWS::KMS::Key", id_starts="LogKey")
    (statement,) = (each for each in key["KeyPolicy"]["Statement"] if "sns" in json.dumps(each))
    assert set(statement["Principal"]["Service"]) >= PUBLISHERS
    assert set(statement["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey*"}
    assert list(statement["Condition"]) == ["ArnLike"]
