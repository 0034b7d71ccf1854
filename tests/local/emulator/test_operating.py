"""A template with one resource of each type that operating needs: made where the emulator can, else kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from local.deployment import deploy
from tests.local.test_deployment import assembly, supported

if TYPE_CHECKING:
    from pathlib import Path

    from local.deployment import Stack
    from tests.local.conftest import Account


def ref(name: str) -> dict[str, str]:
    return {"Ref": name}


def arn(name: str) -> dict[str, list[str]]:
    return {"Fn::GetAtt": [name, "Arn"]}


_STATEMENT = {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}
_POLICY = {"Version": "2012-10-17", "Statement": [_STATEMENT]}
_THRESHOLD = {"ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 1, "Threshold": 1}
_ROLE = "arn:aws:iam::000000000000:role/any"
_METRICS = [
    {"Id": "free", "ReturnData": False, "MetricStat": {
        "Metric": {"Namespace": "AWS/RDS", "MetricName": "FreeStorage"}, "Stat": "Minimum", "Period": 60}},
    {"Id": "gib", "Expression": "free / 1073741824"},
]  # fmt: skip
_VISIBLE = {"SampledRequestsEnabled": True, "CloudWatchMetricsEnabled": True, "MetricName": "all"}
_RESOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "Plain": ("AWS::CloudWatch::Alarm", {**_THRESHOLD, "Namespace": "AWS/RDS", "MetricName": "ReadLatency"}),
    "Math": ("AWS::CloudWatch::Alarm", {**_THRESHOLD, "Metrics": _METRICS}),
    "Composite": ("AWS::CloudWatch::CompositeAlarm", {
        "AlarmRule": {"Fn::Sub": "ALARM(${Plain}) OR ALARM(${Math})"}, "AlarmActions": [ref("Topic")]}),
    "Dashboard": ("AWS::CloudWatch::Dashboard", {"DashboardBody": '{"widgets":[]}'}),
    "Topic": ("AWS::SNS::Topic", {"KmsMasterKeyId": "alias/any"}),
    "TopicPolicy": ("AWS::SNS::TopicPolicy", {"Topics": [ref("Topic")], "PolicyDocument": _POLICY}),
    "Mail": ("AWS::SNS::Subscription", {
        "TopicArn": ref("Topic"), "Protocol": "email", "Endpoint": "on-call@example.com"}),
    "Queue": ("AWS::SQS::Queue", {}),
    "QueuePolicy": ("AWS::SQS::QueuePolicy", {"Queues": [ref("Queue")], "PolicyDocument": _POLICY}),
    "Bus": ("AWS::Events::EventBus", {"Name": "operating"}),
    "BusPolicy": ("AWS::Events::EventBusPolicy", {
        "EventBusName": ref("Bus"), "StatementId": "any", "Statement": _STATEMENT}),
    "Archive": ("AWS::Events::Archive", {"SourceArn": arn("Bus"), "EventPattern": {"source": ["any"]}}),
    "Connection": ("AWS::Events::Connection", {"AuthorizationType": "API_KEY", "AuthParameters": {
        "ApiKeyAuthParameters": {"ApiKeyName": "Authorization", "ApiKeyValue": "none"}}}),
    "Destination": ("AWS::Events::ApiDestination", {
        "ConnectionArn": arn("Connection"), "HttpMethod": "POST",
        "InvocationEndpoint": "https://api.github.com/repos/o/r/dispatches"}),
    "Rule": ("AWS::Events::Rule", {
        "EventBusName": ref("Bus"), "EventPattern": {"source": ["any"]},
        "Targets": [{"Id": "api", "Arn": arn("Destination"), "RoleArn": _ROLE},
                    {"Id": "queue", "Arn": arn("Queue")}]}),
    "Addresses": ("AWS::WAFv2::IPSet", {
        "Scope": "REGIONAL", "IPAddressVersion": "IPV4", "Addresses": ["192.0.2.0/24"]}),
    "Firewall": ("AWS::WAFv2::WebACL", {
        "Scope": "REGIONAL", "DefaultAction": {"Allow": {}}, "VisibilityConfig": _VISIBLE, "Rules": [{
            "Name": "listed", "Priority": 0, "Action": {"Block": {}}, "VisibilityConfig": _VISIBLE,
            "Statement": {"IPSetReferenceStatement": {"Arn": arn("Addresses")}}}]}),
    "Association": ("AWS::WAFv2::WebACLAssociation", {
        "WebACLArn": arn("Firewall"), "ResourceArn": "arn:aws:elasticloadbalancing:::loadbalancer/app/a/1"}),
    "FirewallLog": ("AWS::WAFv2::LoggingConfiguration", {
        "ResourceArn": arn("Firewall"), "LogDestinationConfigs": [arn("Group")]}),
    "Group": ("AWS::Logs::LogGroup", {"LogGroupName": "aws-waf-logs-operating"}),
    "Filter": ("AWS::Logs::MetricFilter", {
        "LogGroupName": ref("Group"), "FilterPattern": "ERROR", "MetricTransformations": [
            {"MetricName": "Errors", "MetricNamespace": "MLflowOnAws", "MetricValue": "1"}]}),
    "Saved": ("AWS::Logs::QueryDefinition", {"Name": "errors", "QueryString": "fields @message"}),
    "Catalog": ("AWS::Glue::Database", {
        "CatalogId": "000000000000", "DatabaseInput": {"Name": "logs_of_operating"}}),
    "Table": ("AWS::Glue::Table", {
        "CatalogId": "000000000000", "DatabaseName": ref("Catalog"), "TableInput": {
            "Name": "requests", "Parameters": {"projection.enabled": "true"},
            "PartitionKeys": [{"Name": "day", "Type": "string"}]}}),
    "WorkGroup": ("AWS::Athena::WorkGroup", {"Name": "operating"}),
    "Named": ("AWS::Athena::NamedQuery", {
        "Database": ref("Catalog"), "QueryString": "SELECT 1", "WorkGroup": ref("WorkGroup")}),
    "Budget": ("AWS::Budgets::Budget", {"Budget": {
        "BudgetType": "COST", "TimeUnit": "MONTHLY", "BudgetLimit": {"Amount": 60, "Unit": "USD"}}}),
    "Monitor": ("AWS::CE::AnomalyMonitor", {"MonitorName": "operating", "MonitorType": "DIMENSIONAL"}),
    "Anomalies": ("AWS::CE::AnomalySubscription", {
        "SubscriptionName": "operating", "Frequency": "IMMEDIATE", "MonitorArnList": [ref("Monitor")],
        "Subscribers": [{"Type": "SNS", "Address": ref("Topic")}]}),
    "Slack": ("AWS::Chatbot::SlackChannelConfiguration", {
        "ConfigurationName": "slack", "IamRoleArn": _ROLE, "SlackChannelId": "C1", "SlackWorkspaceId": "T1"}),
    "Teams": ("AWS::Chatbot::MicrosoftTeamsChannelConfiguration", {
        "ConfigurationName": "teams", "IamRoleArn": _ROLE, "TeamId": "1", "TeamsChannelId": "1",
        "TeamsTenantId": "1"}),
    "Secret": ("AWS::SecretsManager::Secret", {
        "GenerateSecretString": {"PasswordLength": 43, "ExcludePunctuation": True}}),
    "Schedule": ("AWS::Scheduler::Schedule", {
        "ScheduleExpression": "rate(1 hour)", "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {"Arn": arn("Queue"), "RoleArn": _ROLE}}),
    "Canary": ("AWS::Synthetics::Canary", {"Name": "sign-in", "RuntimeVersion": "syn-nodejs-puppeteer-10.0"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def stack(account: Account, assets: str, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    template = {
        "Resources": {name: {"Type": kind, "Properties": each} for name, (kind, each) in _RESOURCES.items()}
    }
    directory: Path = assembly(tmp_path_factory.mktemp("operating"), Operating=template)
    return deploy(account.aws, directory, "Operating", supported=supported(account), bucket=assets)


def test_each_type_is_deployed_and_the_ones_that_are_only_recorded_are_told(stack: Stack) -> None:
    assert set(stack.resources) == set(_RESOURCES)
    assert stack.only_recorded == [
        "AWS::Budgets::Budget",
        "AWS::CE::AnomalyMonitor",
        "AWS::CE::AnomalySubscription",
        "AWS::Chatbot::MicrosoftTeamsChannelConfiguration",
        "AWS::Chatbot::SlackChannelConfiguration",
        "AWS::Events::EventBusPolicy",
        "AWS::Logs::QueryDefinition",
        "AWS::Synthetics::Canary",
        "AWS::WAFv2::LoggingConfiguration",
    ]


def test_an_alarm_keeps_its_metric_math_and_composites_follow_states_that_are_set(
    account: Account, stack: Stack
) -> None:
    cloudwatch = account.aws.client("cloudwatch")
    physical = {name: each for name, (_kind, each) in stack.resources.items()}

    def state() -> str:
        described = cloudwatch.describe_alarms(AlarmTypes=["CompositeAlarm"])
        (composite,) = described["CompositeAlarms"]
        assert composite["AlarmActions"] == [physical["Topic"]]
        return str(composite["StateValue"])

    (math,) = cloudwatch.describe_alarms(AlarmNames=[physical["Math"]])["MetricAlarms"]
    assert math["Metrics"] == _METRICS
    assert "MetricName" not in math
    assert state() == "OK"
    cloudwatch.set_alarm_state(AlarmName=physical["Math"], StateValue="ALARM", StateReason="tested")
    assert state() == "ALARM"


def test_a_generated_secret_is_named_by_its_arn_and_made_as_asked(account: Account, stack: Stack) -> None:
    _kind, name = stack.resources["Secret"]
    assert name.startswith("arn:aws:secretsmanager:")
    value = account.aws.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"]
    assert len(value) == 43
    assert value.isalnum()


def test_an_association_is_known_to_the_firewall(account: Account, stack: Stack) -> None:
    resources = account.aws.client("wafv2").list_resources_for_web_acl(
        WebACLArn=stack.resources["Association"][1].split("|")[0]
    )
    assert resources["ResourceArns"] == [_RESOURCES["Association"][1]["ResourceArn"]]


def test_the_stack_goes_with_all_that_was_made(account: Account, stack: Stack) -> None:
    cloudformation = account.aws.client("cloudformation")
    cloudformation.delete_stack(StackName=stack.name)
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=stack.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    kinds = ["CompositeAlarm", "MetricAlarm"]
    described = account.aws.client("cloudwatch").describe_alarms(AlarmTypes=kinds)
    assert (described["MetricAlarms"], described["CompositeAlarms"]) == ([], [])
    assert account.aws.client("events").list_api_destinations()["ApiDestinations"] == []
    assert account.aws.client("wafv2").list_ip_sets(Scope="REGIONAL")["IPSets"] == []
