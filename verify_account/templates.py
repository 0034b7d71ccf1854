"""What the deployed stacks describe, as CloudFormation keeps it: the standard that what lives is held to.

A change by hand changes a resource and not its stack's template, which says what was reviewed and deployed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Ask = Callable[..., Any]

# Stands for what a template alone does not tell, such as an attribute that AWS chose.
UNKNOWN = "\0"
_ARNS: Mapping[str, str] = {
    "AWS::S3::Bucket": "arn:{partition}:s3:::{id}",
    "AWS::KMS::Key": "arn:{partition}:kms:{region}:{account}:key/{id}",
    "AWS::IAM::Role": "arn:{partition}:iam::{account}:role/{id}",
    "AWS::Cognito::UserPool": "arn:{partition}:cognito-idp:{region}:{account}:userpool/{id}",
    "AWS::Logs::LogGroup": "arn:{partition}:logs:{region}:{account}:log-group:{id}:*",
}
_PLACEHOLDER = re.compile(r"\$\{([^!}]+)\}")


@dataclass(frozen=True)
class Resource:
    """A resource of a stack, and what its template says of it."""

    type: str
    logical_id: str
    physical_id: str
    properties: Mapping[str, Any]


def described(ask: Ask, stacks: Sequence[str]) -> list[Resource]:
    """The resources of these stacks; the later ones may import what the earlier ones export."""
    exports: dict[str, str] = {}
    found: list[Resource] = []
    for name in stacks:
        stack = ask("cloudformation", "describe_stacks", StackName=name)["Stacks"][0]
        found += _Template(ask, name, stack["StackId"], exports).resources()
        exports |= {
            each["ExportName"]: each["OutputValue"]
            for each in stack.get("Outputs", [])
            if "ExportName" in each
        }
    return found


class _Template:
    def __init__(self, ask: Ask, name: str, stack_id: str, exports: Mapping[str, str]) -> None:
        body = ask("cloudformation", "get_template", StackName=name)["TemplateBody"]
        self._resources = (json.loads(body) if isinstance(body, str) else body)["Resources"]
        pages = ask("cloudformation", "list_stack_resources", StackName=name)["StackResourceSummaries"]
        self._ids = {each["LogicalResourceId"]: each.get("PhysicalResourceId", "") for each in pages}
        _, partition, _, region, account, _ = stack_id.split(":", 5)
        self._place = {"partition": partition, "region": region, "account": account}
        self._pseudo = {
            "AWS::Partition": partition,
            "AWS::Region": region,
            "AWS::AccountId": account,
            "AWS::StackName": name,
            "AWS::StackId": stack_id,
            "AWS::URLSuffix": "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com",
        }
        self._exports = exports

    def resources(self) -> list[Resource]:
        """Those that exist: a condition may have left one out."""
        return [
            Resource(each["Type"], name, self._ids[name], self._resolved(each.get("Properties", {})))
            for name, each in self._resources.items()
            if name in self._ids
        ]

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            if name == "Ref" or name.startswith("Fn::"):
                return self._called(name, argument)
        return {key: self._resolved(each) for key, each in value.items()}

    def _called(self, function: str, argument: Any) -> Any:
        if function == "Ref":
            return self._pseudo.get(argument) or self._ids.get(argument, UNKNOWN)
        if function == "Fn::GetAtt":
            name, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
            return self._attribute(name, attribute)
        if function == "Fn::Join":
            separator, parts = argument
            return str(separator).join(str(self._resolved(each)) for each in parts)
        if function == "Fn::Sub" and isinstance(argument, str):
            return _PLACEHOLDER.sub(lambda match: self._substituted(match[1]), argument)
        if function == "Fn::ImportValue":
            return self._exports.get(self._resolved(argument), UNKNOWN)
        return UNKNOWN

    def _substituted(self, name: str) -> str:
        resource, _, attribute = name.partition(".")
        return str(self._attribute(resource, attribute) if attribute else self._called("Ref", name))

    def _attribute(self, name: str, attribute: str) -> str:
        physical = self._ids.get(name, "")
        kind = self._resources.get(name, {}).get("Type", "")
        if attribute == "Arn" and kind in _ARNS:
            return str(_ARNS[kind]).format(id=physical, **self._place)
        if attribute == "GroupId" or (attribute.endswith("Arn") and physical.startswith("arn:")):
            return str(physical)
        return UNKNOWN


def agrees(wanted: Any, live: Any) -> bool:
    """Whether what lives has everything that is wanted; it may say more, such as AWS's defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(agrees(each, live.get(key)) for key, each in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(any(agrees(each, one) for one in live) for each in wanted)
            and all(any(agrees(each, one) for each in wanted) for one in live)
        )
    return bool(re.fullmatch(".*".join(map(re.escape, text(wanted).split(UNKNOWN))), text(live), re.DOTALL))


def text(value: Any) -> str:
    """A value as a template or an answer writes it: `true` may be a word in either."""
    return str(value).lower() if isinstance(value, bool) else str(value)
