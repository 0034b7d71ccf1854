"""Scalable targets of ECS services keep what they are told, and bring the service inside of their range."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from tests.local.conftest import Account

SUSPENDED = {"DynamicScalingInSuspended": True, "DynamicScalingOutSuspended": True}


def test_a_scalable_target_keeps_what_it_is_told_and_holds_its_service(account: Account) -> None:
    ecs, scaling = account.aws.client("ecs"), account.aws.client("application-autoscaling")
    ecs.create_cluster(clusterName="scaled")
    ecs.create_service(cluster="scaled", serviceName="idle", taskDefinition="absent", desiredCount=0)
    target = {
        "ServiceNamespace": "ecs",
        "ResourceId": "service/scaled/idle",
        "ScalableDimension": "ecs:service:DesiredCount",
    }
    with pytest.raises(ClientError, match="ValidationException"):
        scaling.register_scalable_target(**target, SuspendedState=SUSPENDED)
    absent = {**target, "ResourceId": "service/scaled/absent"}
    with pytest.raises(ClientError, match="service doesn't exist"):
        scaling.register_scalable_target(**absent, MinCapacity=2, MaxCapacity=3)
    scaling.register_scalable_target(**target, MinCapacity=2, MaxCapacity=3)
    (service,) = ecs.describe_services(cluster="scaled", services=["idle"])["services"]
    assert service["desiredCount"] == 2
    scaling.register_scalable_target(**target, SuspendedState=SUSPENDED)
    (found,) = scaling.describe_scalable_targets(ServiceNamespace="ecs")["ScalableTargets"]
    assert (found["MinCapacity"], found["MaxCapacity"], found["SuspendedState"]) == (2, 3, SUSPENDED)
    with pytest.raises(ClientError, match="AccessDenied"):
        account.role([]).client("application-autoscaling").register_scalable_target(**target, MinCapacity=1)
    ecs.delete_service(cluster="scaled", service="idle", force=True)
    ecs.delete_cluster(cluster="scaled")
