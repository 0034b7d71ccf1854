"""The image that the server and the migration run."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3_assets as s3_assets
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import region_info
from constructs import Construct

from stacks.config import ServerConfig
from stacks.service.image_build import ImageBuild

SERVER = Path(__file__).parents[2] / "server"
ECR_IMAGE = re.compile(
    r"^(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?"
    r"/(?P<repository>[^:@]+)[:@](?P<tag_or_digest>.+)$"
)
PLATFORMS = {"arm64": ecr_assets.Platform.LINUX_ARM64, "x86_64": ecr_assets.Platform.LINUX_AMD64}


class ServerImage(Construct):
    """One image: the configured one, or one built from `server/`, here or in the account."""

    def __init__(
        self, scope: Construct, construct_id: str, *, log_key: kms.IKey, config: ServerConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self._repository: ecr.IRepository | None = None
        if config.image_uri:
            self.container_image = self._given(config.image_uri, secret_arn=config.registry_secret_arn)
        elif config.build == "codebuild":
            self.container_image = self._built_in_the_account(config, log_key=log_key)
        else:
            self.container_image = self._built_here(config)

    def grant_pull(self, role: iam.IRole) -> None:
        """Let a task's execution role pull the image, if its container's definition does not."""
        if self._repository is not None:
            self._repository.grant_pull(role)

    def _given(self, uri: str, *, secret_arn: str | None) -> ecs.ContainerImage:
        match = ECR_IMAGE.match(uri)
        if match is None:
            secret = secret_arn and secretsmanager.Secret.from_secret_complete_arn(
                self, "Credentials", secret_arn
            )
            return ecs.ContainerImage.from_registry(uri, credentials=secret or None)
        return ecs.ContainerImage.from_ecr_repository(self._named(match), match["tag_or_digest"])

    def _named(self, match: re.Match[str]) -> ecr.IRepository:
        return ecr.Repository.from_repository_attributes(
            self,
            "Repository",
            repository_name=match["repository"],
            repository_arn=cdk.Stack.of(self).format_arn(
                service="ecr",
                region=match["region"],
                account=match["account"],
                resource="repository",
                resource_name=match["repository"],
            ),
        )

    def _built_here(self, config: ServerConfig) -> ecs.ContainerImage:
        asset = ecr_assets.DockerImageAsset(
            self,
            "Image",
            directory=str(SERVER),
            platform=PLATFORMS[config.architecture],
            build_args=self._build_arguments(config),
        )
        return ecs.ContainerImage.from_docker_image_asset(asset)

    def _built_in_the_account(self, config: ServerConfig, *, log_key: kms.IKey) -> ecs.ContainerImage:
        ignored = (SERVER / ".dockerignore").read_text(encoding="utf-8").splitlines()
        source = s3_assets.Asset(
            self,
            "Source",
            path=str(SERVER),
            exclude=[*ignored, "!Dockerfile"],
            ignore_mode=cdk.IgnoreMode.DOCKER,
        )
        arguments = self._build_arguments(config)
        build = ImageBuild(self, "Build", source=source, arguments=arguments, log_key=log_key, config=config)
        base = ECR_IMAGE.match(config.base_image or "")
        if base is not None:
            self._named(base).grant_pull(build.role)
        self._repository = build.repository
        return ecs.ContainerImage.from_registry(build.uri)

    def _build_arguments(self, config: ServerConfig) -> Mapping[str, str]:
        base = {"BASE_IMAGE": config.base_image} if config.base_image else {}
        return {"RDS_CA": self._authorities(), **base}

    def _authorities(self) -> str:
        """Return the partition: the image takes its file of RDS's authorities, if the region is in it."""
        region = cdk.Stack.of(self).region
        if cdk.Token.is_unresolved(region):
            return "aws"
        partition = region_info.RegionInfo.get(region).partition or "aws"
        file = SERVER / "rds-ca" / f"{partition}.pem"
        if not file.exists() or not _has_authority(file.read_text(encoding="ascii"), region):
            cdk.Annotations.of(self).add_error(
                f"server/rds-ca/{file.name} has no certificate authority of RDS in {region}, and the server "
                f"would refuse its database: run `python server/rds-ca/bundle.py {partition}` and commit "
                "what it writes, or give an image in server.image_uri"
            )
        return partition


def _has_authority(bundle: str, region: str) -> bool:
    certificates = re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", bundle, re.DOTALL)
    # A certificate carries its subject's name as plain text.
    return any(f"Amazon RDS {region} ".encode() in base64.b64decode(each) for each in certificates)
