"""The image that the server and the migration run."""

import re
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from constructs import Construct

from stacks.config import ServerConfig

SERVER = Path(__file__).parents[2] / "server"
ECR_IMAGE = re.compile(
    r"^(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?"
    r"/(?P<repository>[^:@]+)[:@](?P<tag_or_digest>.+)$"
)
PLATFORMS = {"arm64": ecr_assets.Platform.LINUX_ARM64, "x86_64": ecr_assets.Platform.LINUX_AMD64}


class ServerImage(Construct):
    """One image: the configured one, or one built from `server/`."""

    def __init__(self, scope: Construct, construct_id: str, *, config: ServerConfig) -> None:
        super().__init__(scope, construct_id)
        self.container_image = self._given(config.image_uri) if config.image_uri else self._built(config)

    def _given(self, uri: str) -> ecs.ContainerImage:
        match = ECR_IMAGE.match(uri)
        if match is None:
            return ecs.ContainerImage.from_registry(uri)
        repository = ecr.Repository.from_repository_attributes(
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
        return ecs.ContainerImage.from_ecr_repository(repository, match["tag_or_digest"])

    def _built(self, config: ServerConfig) -> ecs.ContainerImage:
        asset = ecr_assets.DockerImageAsset(
            self,
            "Image",
            directory=str(SERVER),
            platform=PLATFORMS[config.architecture],
            build_args={"BASE_IMAGE": config.base_image} if config.base_image else None,
            exclude=["**/__pycache__", "**/*.pyc", "**/*.egg-info"],
        )
        return ecs.ContainerImage.from_docker_image_asset(asset)
