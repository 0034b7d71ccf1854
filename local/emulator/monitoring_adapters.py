"""What operating needs of AWS and MiniStack's CloudFormation lacks: alarms, events, budgets, firewalls.

Like `adapters`, they replace functions of modules in this process only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Properties = Mapping[str, Any]


@dataclass(frozen=True)
class _Type:
    """How MiniStack's own operations make a type that its CloudFormation does not know."""

    create: Callable[[dict[str, Any]], Any]
    delete: Callable[[str, Properties], Any]
    # The physical id (`Ref`) and the attributes, from the properties and the operation's answer.
    identity: Callable[[dict[str, Any], Properties], tuple[str, dict[str, str]]]
    # What names it, if the template does not.
    name: str = ""
    # Creating it again changes it.
    is_put: bool = False


def make_types_of_operations() -> None:
    """CloudFormation makes what MiniStack's services know; `record_other_types` keeps the rest."""
    from ministack.core.responses import get_account_id, get_region
    from ministack.services import athena, cloudwatch, eventbridge, waf
    from ministack.services.cloudformation import provisioners

    def named(kind: str) -> Callable[[dict[str, Any], Properties], tuple[str, dict[str, str]]]:
        def identified(asked: dict[str, Any], _answer: Properties) -> tuple[str, dict[str, str]]:
            arn = f"arn:aws:events:{get_region()}:{get_account_id()}:{kind}/{asked['Name']}"
            return asked["Name"], {"Arn": arn, "ArnForPolicy": arn}

        return identified

    def composite(asked: dict[str, Any], _answer: Properties) -> tuple[str, dict[str, str]]:
        return asked["AlarmName"], {"Arn": cloudwatch._composite_alarms[asked["AlarmName"]]["AlarmArn"]}

    def archive(asked: dict[str, Any], answer: Properties) -> tuple[str, dict[str, str]]:
        return asked["ArchiveName"], {"ArchiveName": asked["ArchiveName"], "Arn": answer["ArchiveArn"]}

    def ip_set(asked: dict[str, Any], answer: Properties) -> tuple[str, dict[str, str]]:
        made = answer["Summary"]
        return f"{made['Name']}|{made['Id']}|{asked['Scope']}", {"Id": made["Id"], "Arn": made["ARN"]}

    types = {
        "AWS::CloudWatch::CompositeAlarm": _Type(
            lambda asked: cloudwatch._put_composite_alarm({}, asked, False, True),
            lambda name, _: cloudwatch._delete_alarms({}, {"AlarmNames": [name]}, False, True),
            composite,
            name="AlarmName",
            is_put=True,
        ),
        "AWS::Events::Connection": _Type(
            eventbridge._create_connection,
            lambda name, _: eventbridge._delete_connection({"Name": name}),
            named("connection"),
            name="Name",
        ),
        "AWS::Events::ApiDestination": _Type(
            eventbridge._create_api_destination,
            lambda name, _: eventbridge._delete_api_destination({"Name": name}),
            named("api-destination"),
            name="Name",
        ),
        "AWS::Events::Archive": _Type(
            lambda asked: eventbridge._create_archive(
                {
                    **asked,
                    "EventSourceArn": asked["SourceArn"],
                    "EventPattern": json.dumps(asked.get("EventPattern", {})),
                }
            ),
            lambda name, _: eventbridge._delete_archive({"ArchiveName": name}),
            archive,
            name="ArchiveName",
        ),
        "AWS::WAFv2::IPSet": _Type(
            waf._create_ip_set,
            lambda ref, props: waf._delete_ip_set({"Id": ref.split("|")[1], "Scope": props["Scope"]}),
            ip_set,
            name="Name",
        ),
        "AWS::WAFv2::WebACLAssociation": _Type(
            waf._associate_web_acl,
            lambda _, props: waf._disassociate_web_acl({"ResourceArn": props["ResourceArn"]}),
            lambda asked, _: (f"{asked['WebACLArn']}|{asked['ResourceArn']}", {}),
            is_put=True,
        ),
        "AWS::Athena::NamedQuery": _Type(
            athena._create_named_query,
            lambda query, _: athena._delete_named_query({"NamedQueryId": query}),
            lambda _, answer: (answer["NamedQueryId"], {"NamedQueryId": answer["NamedQueryId"]}),
        ),
    }
    provisioners._RESOURCE_HANDLERS.update(
        {name: _handler(name, each, provisioners._physical_name) for name, each in types.items()}
    )


def _handler(type_name: str, made: _Type, name_of: Callable[..., str]) -> dict[str, Any]:
    def create(logical_id: str, props: Properties, stack: str) -> tuple[str, dict[str, str]]:
        asked = dict(props)
        if made.name:
            asked.setdefault(made.name, name_of(stack, logical_id, max_len=64))
        status, _headers, body = made.create(asked)
        if status >= 400:
            raise ValueError(f"{type_name}: {body!r}")
        return made.identity(asked, json.loads(body) if body else {})

    def update(
        physical_id: str, old: Properties, props: Properties, stack: str, logical_id: str
    ) -> tuple[str, dict[str, str]]:
        if not made.is_put:
            made.delete(physical_id, old)
        return create(logical_id, props, stack)

    return {"create": create, "update": update, "update_with_logical_id": True, "delete": made.delete}


def keep_metric_math() -> None:
    """An alarm on an expression is refused, and MiniStack judges others by every metric of a name.

    Here an alarm is kept as it is written, and its state changes only by SetAlarmState.
    """
    from ministack.services import cloudwatch
    from ministack.services.cloudformation import provisioners

    record = provisioners._cw_metric_alarm_record

    def recorded(name: str, props: dict[str, Any]) -> dict[str, Any]:
        queries = props.get("Metrics")
        if not queries:
            kept: dict[str, Any] = record(name, props)
            return kept
        kept = record(name, {**props, "Metrics": None, "MetricName": "-", "Namespace": "-"})
        own = ("MetricName", "Namespace", "Statistic", "ExtendedStatistic", "Period", "Dimensions", "Unit")
        return {**{key: value for key, value in kept.items() if key not in own}, "Metrics": queries}

    provisioners._cw_metric_alarm_record = recorded
    cloudwatch._evaluate_alarm = lambda _alarm: None


def name_target_groups_fully() -> None:
    """TargetGroupFullName, the dimension of its metrics, begins with `targetgroup/`; not so in MiniStack.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-elasticloadbalancingv2-targetgroup.html
    """
    from ministack.services import alb

    alb._target_group_full_name_from_arn = lambda arn: arn.rpartition(":")[2]


def name_secrets_by_their_arn() -> None:
    """`Ref` of a secret is its ARN in AWS, and its name in MiniStack, which ignores how to generate it, too.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-secretsmanager-secret.html
    """
    from ministack.services import secretsmanager
    from ministack.services.cloudformation import provisioners

    def generated(wanted: Properties) -> str:
        _status, _headers, body = secretsmanager._get_random_password(wanted)
        password = str(json.loads(body)["RandomPassword"])
        if "SecretStringTemplate" not in wanted:
            return password
        return json.dumps(
            {**json.loads(wanted["SecretStringTemplate"]), wanted["GenerateStringKey"]: password}
        )

    def secret_string(props: Properties) -> str:
        wanted = props.get("GenerateSecretString")
        return generated(wanted) if wanted else str(props.get("SecretString", ""))

    def name_of(arn: str) -> str:
        return next((name for name, each in secretsmanager._secrets.items() if each["ARN"] == arn), arn)

    handler = provisioners._RESOURCE_HANDLERS["AWS::SecretsManager::Secret"]
    create, update, delete = handler["create"], handler["update"], handler["delete"]

    def created(*asked: Any) -> tuple[str, dict[str, str]]:
        _name, attributes = create(*asked)
        return attributes["Arn"], attributes

    def updated(physical_id: str, *asked: Any) -> tuple[str, dict[str, str]]:
        _name, attributes = update(name_of(physical_id), *asked)
        return attributes["Arn"], attributes

    provisioners._sm_secret_string = secret_string
    handler.update(
        create=created, update=updated, delete=lambda physical_id, props: delete(name_of(physical_id), props)
    )
