"""Only the server tells events, and only to the deployment's own bus."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from stacks.events_config import EventsConfig
from tests.stacks.conftest import CHAT, TOPIC
from tests.stacks.templates import Assembly, Properties, as_list


def test_only_the_server_puts_events_and_on_this_bus_only(either: Assembly) -> None:
    (bus,) = [
        each
        for each, resource in either.service.resources.items()
        if resource["Type"] == "AWS::Events::EventBus"
    ]
    allowed = {
        (who, str(target))
        for template in either.templates
        for who, action, target in template.allowed()
        if action.startswith("events:Put")
    }
    ((policy, target),) = allowed
    assert bus in target
    (role,) = as_list(either.service.resources[policy]["Properties"]["Roles"])
    assert "ServerRole" in str(role)
    assert bus in str(either.service.outputs["EventBusName"])


def rules(assembly: Assembly) -> dict[str, Properties]:
    """The rules of the bus, by what their targets name."""
    found: dict[str, Properties] = {}
    for each in assembly.service.all("AWS::Events::Rule", id_starts="Events"):
        (target,) = each["Targets"]
        name = target["Arn"] if isinstance(target["Arn"], str) else "github"
        found[name] = {**each, **target}
    return found


def input_of(rule: Properties) -> Any:
    """What a target gets; what EventBridge fills in stands as a string."""
    return json.loads(re.sub(r":(<[\w-]+>)", r':"\1"', rule["InputTransformer"]["InputTemplate"]))


def test_a_topic_gets_events_as_they_are_and_chat_gets_sentences(replicated: Assembly) -> None:
    every, chat = rules(replicated)[TOPIC], rules(replicated)[CHAT]
    assert every["EventPattern"] == {"source": ["mlflow-on-aws"]}
    assert "InputTransformer" not in every
    assert chat["EventPattern"]["detail-type"] == ["Model Alias Set"]
    message = input_of(chat)
    assert message["source"] == "custom"
    assert message["content"]["title"] == "<detail-type>: <detail-model>"


def test_a_repository_s_workflows_start_with_the_event_and_no_template_holds_its_token(
    replicated: Assembly,
) -> None:
    rule = rules(replicated)["github"]
    assert rule["EventPattern"]["detail-type"] == ["Model Stage Changed", "Model Alias Set"]
    assert input_of(rule) == {
        "event_type": "<detail-type>",
        "client_payload": {"event": "<detail>"},
    }
    destination = replicated.service.one("AWS::Events::ApiDestination")
    assert destination["InvocationEndpoint"] == "https://api.github.com/repos/example/models/dispatches"
    parameters = replicated.service.one("AWS::Events::Connection")["AuthParameters"]
    assert parameters["ApiKeyAuthParameters"] == {
        "ApiKeyName": "Authorization",
        "ApiKeyValue": "Bearer {{resolve:secretsmanager:mlflow/github:SecretString:::}}",
    }


def test_what_no_target_takes_is_kept_encrypted_for_two_weeks(replicated: Assembly) -> None:
    queue = replicated.service.one("AWS::SQS::Queue", id_starts="Events")
    assert (queue["MessageRetentionPeriod"], queue["SqsManagedSseEnabled"]) == (14 * 86400, True)
    assert len(rules(replicated)) == 3
    assert all("DeadLetterConfig" in each for each in rules(replicated).values())


def test_each_rule_s_role_reaches_its_own_target_only(replicated: Assembly) -> None:
    allowed = {
        (action, str(target))
        for who, action, target in replicated.service.allowed()
        if action in {"sns:Publish", "events:InvokeApiDestination"}
    }
    assert {target for action, target in allowed if action == "sns:Publish"} >= {TOPIC, CHAT}
    assert len([each for each in allowed if each[0] == "events:InvokeApiDestination"]) == 1
    assert not [each for each in allowed if "*" in each[1]]


def test_findings_of_the_targets_are_settled(replicated: Assembly) -> None:
    assert replicated.findings == ()


def test_without_targets_there_is_a_bus_and_nothing_else(dev: Assembly) -> None:
    assert rules(dev) == {}
    assert dev.service.all("AWS::SQS::Queue", id_starts="Events") == []


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"topics": [{"arn": "models"}]}, "is not the ARN of a standard topic"),
        ({"topics": [{"arn": f"{TOPIC}.fifo"}]}, "is not the ARN of a standard topic"),
        ({"topics": [{"arn": TOPIC, "types": ["Model Loved"]}]}, "Model Registered"),
        ({"github": [{"repository": "models", "token_secret_name": "t"}]}, "write OWNER/NAME"),
        ({"github": [{"repository": "a/b", "token_secret_name": "a secret"}]}, "is not a secret's name"),
    ],
)
def test_what_is_no_target_is_refused(table: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        EventsConfig.model_validate(table)
