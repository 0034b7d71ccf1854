"""A budget and a look-out for anomalies, over what carries the deployment's tag."""

import json

from tests.stacks.templates import Assembly

OURS = {"mlflow-on-aws": "MlflowOnAws-prod"}


def test_every_stack_carries_the_deployment_s_tag(prod: Assembly, replicated: Assembly) -> None:
    """CloudFormation puts a stack's tags on each of its resources that takes any.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-resource-tags.html
    """
    for assembly, count in ((prod, 2), (replicated, 3)):
        found = [
            each["properties"].get("tags", {})
            for each in assembly.manifest["artifacts"].values()
            if each["type"] == "aws:cloudformation:stack"
        ]
        assert len(found) == count
        assert all(OURS.items() <= each.items() for each in found)


def test_what_aws_makes_from_a_resource_carries_its_tags(either: Assembly) -> None:
    """CloudFormation does not see tasks, snapshots and an instance's disk: these copy the tags themselves."""
    service = either.service.one("AWS::ECS::Service")
    assert (service["PropagateTags"], service["EnableECSManagedTags"]) == ("SERVICE", True)
    assert either.foundation.one("AWS::RDS::DBInstance")["CopyTagsToSnapshot"] is True
    for instance in either.foundation.all("AWS::EC2::Instance"):
        assert instance["PropagateTagsToVolumeOnCreation"] is True


def test_the_budget_counts_what_carries_the_tag_and_tells_before_it_is_spent(replicated: Assembly) -> None:
    found = replicated.service.one("AWS::Budgets::Budget")
    assert found["Budget"]["CostFilters"] == {"TagKeyValue": ["user:mlflow-on-aws$MlflowOnAws-prod"]}
    assert found["Budget"]["BudgetLimit"] == {"Amount": 900, "Unit": "USD"}
    told = [each["Notification"] for each in found["NotificationsWithSubscribers"]]
    assert [(each["NotificationType"], each["Threshold"]) for each in told] == [
        ("ACTUAL", 80),
        ("ACTUAL", 100),
        ("FORECASTED", 100),
    ]


def test_anomalies_are_those_of_the_tag_and_of_the_least_sum(replicated: Assembly) -> None:
    monitor = replicated.service.one("AWS::CE::AnomalyMonitor")
    tags = json.loads(monitor["MonitorSpecification"])["Tags"]
    assert tags == {"Key": "mlflow-on-aws", "Values": ["MlflowOnAws-prod"]}
    told = replicated.service.one("AWS::CE::AnomalySubscription")
    assert json.loads(told["ThresholdExpression"])["Dimensions"]["Values"] == ["50"]
    assert (told["Frequency"], told["Subscribers"]) == (
        "DAILY",
        [{"Address": "finance@example.com", "Type": "EMAIL"}],
    )


def test_without_the_table_there_is_none(prod: Assembly) -> None:
    types = prod.service.types()
    assert {each for each in types if each.startswith(("AWS::Budgets::", "AWS::CE::"))} == set()
