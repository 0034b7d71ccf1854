"""The image is given, or built in the account, or built here; tasks name it so that it cannot change."""

import json
from collections.abc import Callable
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms

from stacks.config import EnvironmentConfig, ServerConfig
from stacks.service.server_image import ServerImage
from tests.stacks.conftest import IMAGE, merged, read_config
from tests.stacks.templates import Assembly, Properties

PRIVATE = "registry.example.com/mlflow@sha256:" + "0" * 64
SECRET = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:registry-a1B2c3"


def project(assembly: Assembly) -> Properties:
    return assembly.service.one("AWS::CodeBuild::Project")


def variables(assembly: Assembly) -> dict[str, Any]:
    return {each["Name"]: each["Value"] for each in project(assembly)["Environment"]["EnvironmentVariables"]}


def images(assembly: Assembly) -> list[Any]:
    return [
        container["Image"]
        for task in assembly.service.all("AWS::ECS::TaskDefinition")
        for container in task["ContainerDefinitions"]
    ]


def assets(assembly: Assembly) -> dict[str, Any]:
    template = assembly.service.path
    listed = template.with_name(template.name.replace(".template.json", ".assets.json")).read_text()
    found: dict[str, Any] = json.loads(listed)
    return found


def synthesized(region: str, **server: Any) -> cdk.assertions.Annotations:
    """What synthesis says about the image of a stack in `region`."""
    stack = cdk.Stack(cdk.App(), "Stack", env=cdk.Environment(account="111122223333", region=region))
    config = ServerConfig.model_validate(merged(read_config("dev")["server"], server))
    ServerImage(stack, "Image", log_key=kms.Key(stack, "Key"), config=config)
    return cdk.assertions.Annotations.from_stack(stack)


def test_a_deployment_needs_no_docker(either: Assembly) -> None:
    assert assets(either)["dockerImages"] == {}


def test_it_is_built_on_the_processor_that_it_runs_on(build: Callable[..., Assembly], dev: Assembly) -> None:
    assert project(dev)["Environment"]["Type"] == "ARM_CONTAINER"
    assert "aarch64" in project(dev)["Environment"]["Image"]
    intel = build("dev", {"server": {"architecture": "x86_64"}})
    assert project(intel)["Environment"]["Type"] == "LINUX_CONTAINER"
    assert "x86_64" in project(intel)["Environment"]["Image"]
    assert variables(intel)["TAG"] != variables(dev)["TAG"]


def test_its_tasks_name_it_by_the_digest_that_was_built(either: Assembly) -> None:
    server, *others = images(either)
    assert len(others) >= 2
    assert all(each == server for each in others)
    assert "@" in json.dumps(server)
    ((logical_id, attribute),) = [
        each["Fn::GetAtt"] for each in server["Fn::Join"][1] if "Digest" in json.dumps(each)
    ]
    assert either.service.resources[logical_id]["Type"] == "Custom::MlflowImage"
    assert attribute == "Digest"


def tasks(assembly: Assembly) -> set[str]:
    """What runs it: the server, the migration, and operations."""
    return {
        logical_id.split("Task", 1)[0]
        for logical_id, resource in assembly.service.resources.items()
        if resource["Type"] == "AWS::ECS::TaskDefinition"
    }


def test_all_tasks_may_pull_it(either: Assembly) -> None:
    pulling = {
        logical_id
        for logical_id, action, _ in either.service.allowed()
        if action == "ecr:BatchGetImage" and "ExecutionRole" in logical_id
    }
    assert {each.split("Task", 1)[0] for each in pulling} == tasks(either) >= {"Server", "Migration"}


def test_the_registry_scans_and_never_moves_a_tag(either: Assembly) -> None:
    repository = either.service.one("AWS::ECR::Repository")
    assert repository["ImageTagMutability"] == "IMMUTABLE"
    assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
    assert repository["EncryptionConfiguration"] == {"EncryptionType": "KMS"}
    assert '"countNumber":20' in repository["LifecyclePolicy"]["LifecyclePolicyText"]
    assert repository["EmptyOnDelete"] is True


def test_it_is_built_again_only_when_what_it_is_made_of_changes(
    build: Callable[..., Assembly], dev: Assembly
) -> None:
    other_size = build("dev", {"server": {"memory_mib": 2048}})
    assert variables(other_size)["TAG"] == variables(dev)["TAG"]
    other_base = build("dev", {"server": {"base_image": "example.com/python:3.13"}})
    assert variables(other_base)["TAG"] != variables(dev)["TAG"]
    (waiting,) = dev.service.all("Custom::MlflowImage")
    assert waiting["Tag"] == variables(dev)["TAG"]


def test_the_build_may_read_its_source_and_push_its_image_and_nothing_else(either: Assembly) -> None:
    allowed = {
        (action, json.dumps(target))
        for logical_id, action, target in either.service.allowed()
        if logical_id.startswith("ImageBuildRole")
    }
    assert {action for action, _ in allowed} == {
        "s3:GetObject",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "ecr:GetAuthorizationToken",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:CompleteLayerUpload",
        "ecr:GetDownloadUrlForLayer",
        "ecr:InitiateLayerUpload",
        "ecr:PutImage",
        "ecr:UploadLayerPart",
    }
    assert {action for action, target in allowed if '"*"' in target} == {"ecr:GetAuthorizationToken"}
    assert all(".zip" in target for action, target in allowed if action == "s3:GetObject")


def test_every_variable_of_the_build_is_used_and_has_no_secret(dev: Assembly) -> None:
    specification = json.dumps(json.loads(project(dev)["Source"]["BuildSpec"]))
    assert variables(dev)["BUILD_ARGUMENTS"] == "--build-arg RDS_CA"
    assert set(variables(dev)) - {"RDS_CA"} == {
        name for name in ("SOURCE", "REPOSITORY", "TAG", "BUILD_ARGUMENTS") if f"${name}" in specification
        or f"${{{name}" in specification
    }  # fmt: skip
    types = {each.get("Type", "PLAINTEXT") for each in project(dev)["Environment"]["EnvironmentVariables"]}
    assert types == {"PLAINTEXT"}


def test_a_base_image_of_this_registry_may_be_pulled(build: Callable[..., Assembly]) -> None:
    assembly = build("dev", {"server": {"base_image": IMAGE}})
    assert variables(assembly)["BASE_IMAGE"] == IMAGE
    assert variables(assembly)["BUILD_ARGUMENTS"] == "--build-arg RDS_CA --build-arg BASE_IMAGE"
    pulled = [
        json.dumps(target)
        for logical_id, action, target in assembly.service.allowed()
        if action == "ecr:BatchGetImage" and logical_id.startswith("ImageBuildRole")
    ]
    assert any(":eu-central-1:111122223333:repository/mlflow" in each for each in pulled)


def test_a_local_build_is_an_asset_of_the_stack(build: Callable[..., Assembly]) -> None:
    assembly = build("dev", {"server": {"build": "local"}})
    assert "AWS::CodeBuild::Project" not in assembly.service.types()
    assert all("container-assets" in json.dumps(image) for image in images(assembly))
    (asset,) = assets(assembly)["dockerImages"].values()
    assert asset["source"]["platform"] == "linux/arm64"
    assert asset["source"]["dockerBuildArgs"] == {"RDS_CA": "aws"}
    assert assembly.findings == ()


def test_a_given_image_is_run_and_only_its_repository_may_be_pulled(given: Assembly) -> None:
    for image in images(given):
        text = image if isinstance(image, str) else "".join(map(str, image["Fn::Join"][1]))
        assert text.endswith("mlflow@sha256:" + "0" * 64)
    pulls = {
        str(resource)
        for logical_id, action, resource in given.service.allowed()
        if action == "ecr:BatchGetImage"
    }
    assert pulls == {f"arn:aws:ecr:eu-central-1:111122223333:repository/{IMAGE.split('/')[1].split('@')[0]}"}
    assert not {"AWS::CodeBuild::Project", "AWS::ECR::Repository"} & given.service.types()


def test_a_private_registry_is_entered_with_the_secret_of_the_file(build: Callable[..., Assembly]) -> None:
    assembly = build("dev", {"server": {"image_uri": PRIVATE, "registry_secret_arn": SECRET}})
    containers = [
        container
        for task in assembly.service.all("AWS::ECS::TaskDefinition")
        for container in task["ContainerDefinitions"]
    ]
    assert len(containers) == len(tasks(assembly)) + 1
    assert all(each["RepositoryCredentials"] == {"CredentialsParameter": SECRET} for each in containers)
    readers = {
        logical_id
        for logical_id, action, target in assembly.service.allowed()
        if action == "secretsmanager:GetSecretValue" and target == SECRET
    }
    assert {each.split("Task", 1)[0] for each in readers} == tasks(assembly)
    assert assembly.findings == ()


def test_credentials_without_a_registry_are_refused() -> None:
    with pytest.raises(ValueError, match="image_uri names none"):
        EnvironmentConfig.model_validate(
            merged(read_config("dev"), {"server": {"registry_secret_arn": SECRET}})
        )


@pytest.mark.parametrize("build_in", ["codebuild", "local"])
@pytest.mark.parametrize(
    ("region", "partition"),
    [("mx-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")],
)
def test_a_region_whose_databases_the_image_would_not_trust_is_refused(
    build_in: str, region: str, partition: str
) -> None:
    (message,) = synthesized(region, build=build_in).find_error("*", cdk.assertions.Match.any_value())
    assert f"no certificate authority of RDS in {region}" in str(message.entry.data)
    assert f"`python server/rds-ca/bundle.py {partition}`" in str(message.entry.data)


def test_a_given_image_brings_its_own_authorities() -> None:
    assert synthesized("cn-north-1", image_uri=IMAGE).find_error("*", cdk.assertions.Match.any_value()) == []


def test_a_region_of_the_bundle_is_accepted() -> None:
    assert synthesized("eu-central-1").find_error("*", cdk.assertions.Match.any_value()) == []
