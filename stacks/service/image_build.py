"""The server's image, built inside the account."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

from stacks.acknowledge import acknowledge, acknowledge_resource
from stacks.config import ServerConfig
from stacks.custom_resource import CustomResourceRunner
from stacks.operational_log import OperationalLog

HANDLER = Path(__file__).parent / "image_handler" / "index.py"
# The type of machine that has the image's processor, and the image of AWS that has Docker for it.
MACHINES = {
    "arm64": ("ARM_CONTAINER", codebuild.LinuxArmBuildImage.AMAZON_LINUX_2023_STANDARD_3_0),
    "x86_64": ("LINUX_CONTAINER", codebuild.LinuxBuildImage.AMAZON_LINUX_2023_5),
}
LATEST_IMAGES = 20
# The values come as environment variables; `docker build` takes a build argument without a value from there.
BUILD = {
    "version": "0.2",
    "phases": {
        "pre_build": {
            "commands": [
                'aws s3 cp --no-progress "$SOURCE" source.zip',
                "unzip -q source.zip -d source",
                "aws ecr get-login-password"
                ' | docker login --username AWS --password-stdin "${REPOSITORY%%/*}"',
            ]
        },
        "build": {
            "commands": [
                'docker build $BUILD_ARGUMENTS --tag "$REPOSITORY:$TAG" source',
                'docker push --quiet "$REPOSITORY:$TAG"',
            ]
        },
    },
}


class ImageBuild(Construct):
    """`server/`, built by CodeBuild on the image's own processor whenever it changes, and kept in a registry.

    The registry scans what is pushed and never changes what a tag means. A build that fails fails the
    deployment, which quotes the build's log.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        source: s3_assets.Asset,
        arguments: Mapping[str, str],
        log_key: kms.IKey,
        config: ServerConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        self.repository = ecr.Repository(
            self,
            "Repository",
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            encryption=ecr.RepositoryEncryption.KMS,
            lifecycle_rules=[ecr.LifecycleRule(max_image_count=LATEST_IMAGES)],
            removal_policy=cdk.RemovalPolicy.DESTROY,
            empty_on_delete=True,
        )
        self._log = OperationalLog(self, "Log", key=log_key, days=config.log_days)
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("codebuild.amazonaws.com"))
        self._allow(source)
        described = "\n".join([source.asset_hash, config.architecture, *map("=".join, arguments.items())])
        tag = hashlib.sha256(described.encode()).hexdigest()[:32]
        project = self._project(source, tag=tag, arguments=arguments, architecture=config.architecture)
        runner = CustomResourceRunner(
            self,
            "Runner",
            id_prefix="Runner",
            handler=HANDLER,
            description="Has the image of MLflow on AWS built for CloudFormation",
            timeout=cdk.Duration.minutes(15),
            allow=[
                iam.PolicyStatement(actions=actions, resources=[resource])
                for actions, resource in (
                    (
                        ["codebuild:StartBuild", "codebuild:BatchGetBuilds", "codebuild:StopBuild"],
                        project.attr_arn,
                    ),
                    (["ecr:DescribeImages"], self.repository.repository_arn),
                    (["logs:GetLogEvents"], self._log.log_group_arn),
                )
            ],
            log_key=log_key,
            log_days=config.log_days,
        )
        built = runner.resource(
            "Built",
            resource_type="Custom::MlflowImage",
            properties={
                "Project": project.ref,
                "Repository": self.repository.repository_name,
                "Tag": tag,
            },
        )
        self.uri = self.repository.repository_uri_for_digest(built.get_att_string("Digest"))

    def _allow(self, source: s3_assets.Asset) -> None:
        read_source = iam.PolicyStatement(
            actions=["s3:GetObject"], resources=[source.bucket.arn_for_objects(source.s3_object_key)]
        )
        write_log = iam.PolicyStatement(
            actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[self._log.log_group_arn]
        )
        for statement in (read_source, write_log):
            self.role.add_to_policy(statement)
        self.repository.grant_pull_push(self.role)
        acknowledge_resource(
            self.role,
            "*",
            because="ecr:GetAuthorizationToken has no resource; the registry's repository is named in full",
        )

    def _project(
        self, source: s3_assets.Asset, *, tag: str, arguments: Mapping[str, str], architecture: str
    ) -> codebuild.CfnProject:
        machine, image = MACHINES[architecture]
        variables = {
            "SOURCE": source.s3_object_url,
            "REPOSITORY": self.repository.repository_uri,
            "TAG": tag,
            "BUILD_ARGUMENTS": " ".join(f"--build-arg {name}" for name in arguments),
            **arguments,
        }
        # The L2 construct would let every project write to its default log group, by a wildcard.
        project = codebuild.CfnProject(
            self,
            "Project",
            description="Builds the image of MLflow on AWS",
            service_role=self.role.role_arn,
            artifacts=codebuild.CfnProject.ArtifactsProperty(type="NO_ARTIFACTS"),
            source=codebuild.CfnProject.SourceProperty(
                type="NO_SOURCE", build_spec=json.dumps(BUILD, indent=2)
            ),
            environment=codebuild.CfnProject.EnvironmentProperty(
                type=machine,
                image=image.image_id,
                compute_type="BUILD_GENERAL1_SMALL",
                privileged_mode=True,
                environment_variables=[
                    codebuild.CfnProject.EnvironmentVariableProperty(name=name, value=value)
                    for name, value in variables.items()
                ],
            ),
            logs_config=codebuild.CfnProject.LogsConfigProperty(
                cloud_watch_logs=codebuild.CfnProject.CloudWatchLogsConfigProperty(
                    status="ENABLED", group_name=self._log.log_group_name
                )
            ),
            queued_timeout_in_minutes=5,
            timeout_in_minutes=15,
        )
        # A build that starts before its policy is attached is refused access.
        project.node.add_dependency(self.role)
        acknowledge(project, "AwsSolutions-CB3", because="Docker builds images in privileged containers only")
        acknowledge(
            project,
            "AwsSolutions-CB4",
            because="the key is for a build's artifacts and cache, and this one has neither",
        )
        return project
