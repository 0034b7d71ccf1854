"""Deploys a synthesized cloud assembly through the CloudFormation API, as `cdk deploy` would."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.parts.aws import Aws
from local.recorded import only_recorded

_BOOTSTRAP = "/cdk-bootstrap/hnb659fds/version"
_BOOTSTRAP_VERSION = "30"
_POLL_SECONDS = 0.2
_STACK_TIMEOUT_SECONDS = 300.0


class DeploymentError(RuntimeError):
    """A stack did not reach its state; the message quotes the first failure."""


@dataclass(frozen=True)
class Stack:
    """A deployed stack."""

    name: str
    outputs: Mapping[str, str]
    resources: Mapping[str, tuple[str, str]]
    only_recorded: Sequence[str]

    def of_type(self, kind: str) -> list[str]:
        """Physical ids of the resources of one type."""
        return [physical for type_, physical in self.resources.values() if type_ == kind]


def bootstrap(aws: Aws) -> str:
    """Create the part of `cdk bootstrap` that deploying needs; returns the assets bucket."""
    bucket = f"cdk-hnb659fds-assets-{aws.account_id}-{aws.region}"
    aws.client("s3").create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": aws.region}
    )
    aws.client("ssm").put_parameter(Name=_BOOTSTRAP, Value=_BOOTSTRAP_VERSION, Type="String", Overwrite=True)
    return bucket


def stack_names(assembly: Path) -> list[str]:
    """Names of the stacks of an assembly, each after those it depends on."""
    manifest = json.loads((assembly / "manifest.json").read_text())["artifacts"]
    stacks = {name: each for name, each in manifest.items() if each["type"] == "aws:cloudformation:stack"}
    ordered: list[str] = []

    def visit(name: str) -> None:
        for needed in stacks[name].get("dependencies", []):
            if needed in stacks and needed not in ordered:
                visit(needed)
        if name not in ordered:
            ordered.append(name)

    for name in stacks:
        visit(name)
    return ordered


def deploy(aws: Aws, assembly: Path, name: str, *, supported: Collection[str], bucket: str) -> Stack:
    """Publish the stack's files, create the stack, and wait for it.

    Raises:
        DeploymentError: it failed; the message says which resource, and why.
    """
    template = (assembly / f"{name}.template.json").read_text()
    s3 = aws.client("s3")
    _publish(assembly, name, lambda key, body: s3.put_object(Bucket=bucket, Key=key, Body=body))
    # CloudFormation takes a template of more than 51,200 bytes only from S3.
    s3.put_object(Bucket=bucket, Key=f"local/{name}.json", Body=template.encode())
    cloudformation = aws.client("cloudformation")
    cloudformation.create_stack(
        StackName=name,
        TemplateURL=f"{aws.endpoint}/{bucket}/local/{name}.json",
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
        OnFailure="DO_NOTHING",
    )
    described = _wait(cloudformation, name)
    if described["StackStatus"] != "CREATE_COMPLETE":
        raise DeploymentError(f"{name}: {described['StackStatus']}: {_first_failure(cloudformation, name)}")
    return read(aws, name, only_recorded=only_recorded(json.loads(template), supported))


def read(aws: Aws, name: str, *, only_recorded: Sequence[str] = ()) -> Stack:
    """The stack as it is deployed, by whomever."""
    cloudformation = aws.client("cloudformation")
    described = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
    return Stack(
        name=name,
        outputs={each["OutputKey"]: each["OutputValue"] for each in described.get("Outputs", [])},
        resources={
            each["LogicalResourceId"]: (each["ResourceType"], each["PhysicalResourceId"])
            for page in pages
            for each in page["StackResourceSummaries"]
        },
        only_recorded=only_recorded,
    )


def _publish(assembly: Path, name: str, put: Callable[[str, bytes], object]) -> None:
    manifest = assembly / f"{name}.assets.json"
    files = json.loads(manifest.read_text()).get("files", {}) if manifest.exists() else {}
    for file in files.values():
        source = assembly / file["source"]["path"]
        body = _zip(source) if file["source"]["packaging"] == "zip" else source.read_bytes()
        for destination in file["destinations"].values():
            put(destination["objectKey"], body)


def _zip(directory: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(each for each in directory.rglob("*") if each.is_file()):
            archive.write(file, file.relative_to(directory))
    return buffer.getvalue()


def _wait(cloudformation: Any, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + _STACK_TIMEOUT_SECONDS
    while True:
        described: dict[str, Any] = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        if not described["StackStatus"].endswith("_IN_PROGRESS"):
            return described
        if time.monotonic() > deadline:
            raise DeploymentError(
                f"{name}: still {described['StackStatus']} after {_STACK_TIMEOUT_SECONDS:.0f} seconds"
            )
        time.sleep(_POLL_SECONDS)


def _first_failure(cloudformation: Any, name: str) -> str:
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    for event in reversed(events):
        if event["ResourceStatus"].endswith("_FAILED"):
            return f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason given')}"
    return "no resource reports a failure"
