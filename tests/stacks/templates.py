"""A synthesized template, asked in the words of CloudFormation."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk

Properties = Mapping[str, Any]


@dataclass(frozen=True)
class Template:
    path: Path
    body: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Template":
        return cls(path, json.loads(path.read_text()))

    @property
    def resources(self) -> Mapping[str, Any]:
        resources: Mapping[str, Any] = self.body["Resources"]
        return resources

    @property
    def outputs(self) -> Mapping[str, Any]:
        outputs: Mapping[str, Any] = self.body["Outputs"]
        return outputs

    @property
    def text(self) -> str:
        return json.dumps(self.body)

    def types(self) -> set[str]:
        return {resource["Type"] for resource in self.resources.values()}

    def all(self, type_name: str, *, id_starts: str = "") -> list[Properties]:
        return [
            resource.get("Properties", {})
            for logical_id, resource in self.resources.items()
            if resource["Type"] == type_name and logical_id.startswith(id_starts)
        ]

    def one(self, type_name: str, *, id_starts: str = "") -> Properties:
        found = self.all(type_name, id_starts=id_starts)
        assert len(found) == 1, f"{len(found)} resources of {type_name} {id_starts}*"
        return found[0]

    def statements(self, *, id_starts: str) -> list[Properties]:
        """The statements of a role's policy."""
        return list(self.one("AWS::IAM::Policy", id_starts=id_starts)["PolicyDocument"]["Statement"])

    def needs(self, logical_id: str) -> set[str]:
        """What CloudFormation creates before this resource."""
        found: set[str] = set()
        waiting = [logical_id]
        while waiting:
            new = set(_named(self.resources[waiting.pop()])) & set(self.resources) - found
            found |= new
            waiting += new
        return found

    def allowed(self) -> Iterator[tuple[str, str, Any]]:
        """Every (logical id, action, resource) that any policy of the template allows."""
        for logical_id, resource in self.resources.items():
            if not resource["Type"].startswith("AWS::IAM::"):
                continue
            properties = resource.get("Properties", {})
            documents = [properties.get("PolicyDocument", {})]
            documents += [each["PolicyDocument"] for each in properties.get("Policies", [])]
            for statement in (each for document in documents for each in document.get("Statement", [])):
                if statement["Effect"] == "Allow":
                    for action in as_list(statement["Action"]):
                        for target in as_list(statement["Resource"]):
                            yield logical_id, action, target


def _named(value: Any) -> Iterator[str]:
    """The ids that a resource depends on or refers to."""
    if isinstance(value, list):
        for each in value:
            yield from _named(each)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if key == "DependsOn":
                yield from as_list(each)
            elif key == "Ref":
                yield each
            elif key == "Fn::GetAtt":
                yield as_list(each)[0]
            else:
                yield from _named(each)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Assembly:
    """The stacks of one environment, and what the security rules say about them."""

    foundation: Template
    service: Template
    # None unless the environment has a second region.
    recovery: Template | None
    findings: tuple[str, ...]
    # Accepted findings: the rule's id and our reason.
    acknowledged: Mapping[str, str]
    warnings: tuple[str, ...]
    manifest: Mapping[str, Any]
    # For rules that only some tests ask for.
    app: cdk.App

    @property
    def templates(self) -> list[Template]:
        """Of every stack."""
        return [self.foundation, self.service, *([self.recovery] if self.recovery else [])]

    def build_arguments(self) -> Mapping[str, str]:
        """What the image is built with, where the deployment builds it here."""
        assets = json.loads(self.service.path.with_suffix("").with_suffix(".assets.json").read_text())
        images = assets.get("dockerImages", {}).values()
        return {
            key: value for each in images for key, value in each["source"].get("dockerBuildArgs", {}).items()
        }
