"""Application Auto Scaling, which MiniStack lacks: scalable targets of ECS services, and nothing that scales.

Like `adapters`, they replace functions of modules in this process only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_NAME = "application-autoscaling"
# What names a target; in a template each begins with a capital.
_KEY = ("ResourceId", "ScalableDimension", "ServiceNamespace")
_KEPT = ("MinCapacity", "MaxCapacity", "SuspendedState")


def register_scalable_targets() -> None:
    """Targets from templates and from the API, which changes only what it is told.

    Either brings the service's tasks inside of the range, as AWS does
    (https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html).
    """
    from ministack import app
    from ministack.core import iam_actions, router
    from ministack.core.responses import error_response_json, get_region, json_response
    from ministack.services import ecs
    from ministack.services.cloudformation import provisioners

    targets: dict[tuple[str, ...], dict[str, Any]] = {}

    def key_of(asked: Mapping[str, Any]) -> tuple[str, ...]:
        return (get_region(), *(str(asked[name]) for name in _KEY))

    def register(asked: Mapping[str, Any]) -> None:
        target = {**targets.get(key_of(asked), {}), **{name: asked[name] for name in _KEPT if name in asked}}
        if not {"MinCapacity", "MaxCapacity"} <= set(target):
            raise ValueError("a new scalable target needs a minimum and a maximum capacity")
        _, cluster, service = str(asked["ResourceId"]).split("/")
        found = ecs._services.get(f"{cluster}/{service}")
        if found is None:
            raise ValueError(f"ECS service doesn't exist: {asked['ResourceId']}")
        targets[key_of(asked)] = target
        wanted = max(int(target["MinCapacity"]), min(found["desiredCount"], int(target["MaxCapacity"])))
        if wanted != found["desiredCount"]:
            ecs._update_service({"cluster": cluster, "service": service, "desiredCount": wanted})

    async def handled(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:  # noqa: ARG001
        asked = json.loads(body)
        action = str(headers.get("x-amz-target", "")).rsplit(".", 1)[-1]
        if action == "RegisterScalableTarget":
            try:
                register(asked)
            except ValueError as error:
                return error_response_json("ValidationException", str(error), 400)
            return json_response({})
        if action == "DescribeScalableTargets":
            wanted = asked.get("ResourceIds")
            return json_response(
                {
                    "ScalableTargets": [
                        {**dict(zip(_KEY, key[1:], strict=True)), **target}
                        for key, target in targets.items()
                        if key[0] == get_region() and (not wanted or key[1] in wanted)
                    ]
                }
            )
        return error_response_json("InvalidAction", f"{action} is not emulated", 400)

    def created(_logical_id: str, props: dict[str, Any], _stack: str) -> tuple[str, dict[str, str]]:
        register(props)
        name = "|".join(str(props[each]) for each in _KEY)
        return name, {"Id": name}

    def updated(physical_id: str, _old: Any, props: dict[str, Any], *_: Any) -> tuple[str, dict[str, str]]:
        register(props)
        return physical_id, {"Id": physical_id}

    router.SERVICE_PATTERNS[_NAME] = {"target_prefixes": ["AnyScaleFrontendService"]}
    iam_actions.SERVICE_TO_IAM_NAMESPACE[_NAME] = _NAME
    app.SERVICE_HANDLERS[_NAME] = handled
    provisioners._RESOURCE_HANDLERS["AWS::ApplicationAutoScaling::ScalableTarget"] = {
        "create": created,
        "update": updated,
        "delete": lambda _physical_id, props: targets.pop(key_of(props), None),
    }
