"""Corrects what CloudFormation and the CDK CLI need and MiniStack lacks: one function each, with the reason.

Like `adapters`, they replace functions of modules in this process only.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

# Types that MiniStack would try to create, and fail, or that nothing there needs.
RECORDED: Mapping[str, str] = {
    "Custom::VpcRestrictDefaultSG": "its function needs the JavaScript SDK of Lambda's own Node.js",
    "Custom::ServiceLinkedRoles": "the emulator's services act without them",
}
_AMI = re.compile(r"^/aws/service/ami-amazon-linux-latest/[\w.-]+$")


class _AnyAttribute(dict[str, str]):
    """The attributes of a resource that does not exist: each has the resource's id for a value."""

    def __init__(self, physical_id: str) -> None:
        super().__init__(Id=physical_id)

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, _: str) -> str:
        return self["Id"]


def record_other_types() -> None:
    """MiniStack refuses a template with a type that it does not know.

    Here CloudFormation keeps such a resource, with an id, in its books; it does nothing.
    """
    from ministack.services.cloudformation import changesets, engine, handlers, provisioners

    known: dict[str, Any] = provisioners._RESOURCE_HANDLERS
    validate = engine.validate_template_support

    def create(logical_id: str, _props: Any, _stack: str) -> tuple[str, dict[str, str]]:
        physical_id = f"{logical_id}-{secrets.token_hex(6)}"
        return physical_id, _AnyAttribute(physical_id)

    def update(physical_id: str, *_: Any) -> tuple[str, dict[str, str]]:
        return physical_id, _AnyAttribute(physical_id)

    record = {"create": create, "update": update, "delete": lambda *_: None}

    def validated(template: dict[str, Any], *rest: Any, **more: Any) -> Any:
        for resource in (template.get("Resources") or {}).values():
            if str(resource.get("Type", "")).startswith("AWS::"):
                known.setdefault(resource["Type"], record)
        return validate(template, *rest, **more)

    known.update(dict.fromkeys(RECORDED, record))
    for module in (engine, changesets, handlers):
        module.validate_template_support = validated


def create_single_security_group_rules() -> None:
    """MiniStack knows the rules inside a security group, and not those that are resources of their own."""
    from ministack.services import ec2
    from ministack.services.cloudformation import provisioners

    def handler(kept: str, is_egress: bool) -> dict[str, Any]:
        def create(_logical_id: str, props: dict[str, Any], _stack: str) -> tuple[str, dict[str, str]]:
            group = ec2._security_groups[props["GroupId"]]
            (rule,) = provisioners._ec2_sg_permissions([props])
            group[kept].append(rule)
            rule_id = str(ec2._sg_rule_id(props["GroupId"], is_egress, rule))
            return rule_id, {"Id": rule_id}

        def delete(rule_id: str, props: dict[str, Any]) -> None:
            group_id = props["GroupId"]
            if group := ec2._security_groups.get(group_id):
                group[kept][:] = [
                    each for each in group[kept] if ec2._sg_rule_id(group_id, is_egress, each) != rule_id
                ]

        return {"create": create, "delete": delete}

    provisioners._RESOURCE_HANDLERS["AWS::EC2::SecurityGroupIngress"] = handler("IpPermissions", False)
    provisioners._RESOURCE_HANDLERS["AWS::EC2::SecurityGroupEgress"] = handler("IpPermissionsEgress", True)


def keep_listener_attributes() -> None:
    """MiniStack leaves out the attributes of a listener that a template creates."""
    from ministack.services import alb
    from ministack.services.cloudformation import provisioners

    handler: dict[str, Any] = provisioners._RESOURCE_HANDLERS["AWS::ElasticLoadBalancingV2::Listener"]
    create = handler["create"]

    def created(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
        arn, attributes = create(logical_id, props, stack_name)
        stored = alb._listener_attrs.setdefault(arn, [])
        stored.extend(props.get("ListenerAttributes") or ())
        return arn, attributes

    handler["create"] = created


def publish_every_amazon_linux() -> None:
    """MiniStack knows the parameters of two of Amazon's images; nobody but Amazon may add one."""
    from ministack.services import ssm

    stated = ssm._public_parameter

    def public(name: str) -> Any:
        if _AMI.match(name or "") and name not in ssm._PUBLIC_AMI_PARAMETERS:
            ssm._PUBLIC_AMI_PARAMETERS[name] = "ami-0c2023a1b2c3d4e5f"
        return stated(name)

    ssm._public_parameter = public


def refuse_role_names_that_are_taken() -> None:
    """MiniStack's CloudFormation takes over a role that exists; in AWS its creation fails."""
    from ministack.services import iam
    from ministack.services.cloudformation import provisioners

    handler: dict[str, Any] = provisioners._RESOURCE_HANDLERS["AWS::IAM::Role"]
    create = handler["create"]

    def created(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
        if iam._roles.get(props.get("RoleName", "")) is not None:
            raise ValueError(f"{props['RoleName']} already exists")
        return create(logical_id, props, stack_name)

    handler["create"] = created


def refuse_to_delete_what_is_protected() -> None:
    """MiniStack deletes a stack's databases, user pools and load balancers despite their protection."""
    from ministack.services import alb, cognito, rds
    from ministack.services.cloudformation import provisioners

    known: dict[str, Any] = provisioners._RESOURCE_HANDLERS
    protected: Mapping[str, Callable[[str], bool]] = {
        "AWS::RDS::DBInstance": lambda name: bool((rds._instances.get(name) or {}).get("DeletionProtection")),
        "AWS::RDS::DBCluster": lambda name: bool((rds._clusters.get(name) or {}).get("DeletionProtection")),
        "AWS::Cognito::UserPool": lambda pool: (
            (cognito._get_pool_unscoped(pool) or {}).get("DeletionProtection") == "ACTIVE"
        ),
        "AWS::ElasticLoadBalancingV2::LoadBalancer": lambda arn: (
            {"Key": "deletion_protection.enabled", "Value": "true"} in (alb._lb_attrs.get(arn) or [])
        ),
    }

    def guarded(kind: str) -> Callable[[str, Any], None]:
        delete, is_protected = known[kind]["delete"], protected[kind]

        def guard(physical_id: str, props: Any) -> None:
            if is_protected(physical_id):
                raise ValueError(f"{physical_id} cannot be deleted while its deletion protection is on")
            delete(physical_id, props)

        return guard

    for kind in protected:
        known[kind]["delete"] = guarded(kind)


def remember_what_a_rollback_left() -> None:
    """MiniStack forgets the resources that the rollback of a creation could not delete.

    In AWS they stay in the stack, DELETE_FAILED, and go when the stack does.
    """
    from ministack.services.cloudformation import stacks

    roll_back = stacks._roll_back_operation

    async def rolled_back(
        name: str, stack_id: str, stack: dict[str, Any], operation: dict[str, Any], *rest: Any
    ) -> None:
        resources = dict(stack.get("_resources") or {})
        await roll_back(name, stack_id, stack, operation, *rest)
        if stack["StackStatus"] == "ROLLBACK_FAILED":
            stack["_template"] = operation.get("template") or {}
            stack["_resources"] = {
                logical_id: {**resources[logical_id], "ResourceStatus": "DELETE_FAILED"}
                for logical_id in stack["_rollback_failed"]
            }

    stacks._roll_back_operation = rolled_back
