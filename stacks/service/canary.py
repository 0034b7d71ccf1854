"""The deployment tries itself."""

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

from stacks.acknowledge import acknowledge_resource
from stacks.canary_config import CanaryConfig
from stacks.config import ServerConfig
from stacks.foundation.artifact_store import CANARY_MODELS
from stacks.foundation.clients import tokens_for_mlflow_only
from stacks.service.schedule import run_on_schedule
from stacks.service.server_task import ImageTask, TaskResources

CLIENT = Path(__file__).parents[2] / "client_smoke"
# MLflow's client and pandas, in less than a minute of this CPU.
_SIZE = (256, 1024)
# The smoke client comes as Lambda's code does, from the CDK's bucket: a change of it is no new server.
_LOADER = """\
import os, runpy, shutil, sys, tempfile
import boto3
place = tempfile.mkdtemp()
code = os.path.join(place, "code.zip")
s3 = boto3.client("s3", region_name=os.environ["AWS_REGION"])
s3.download_file(os.environ["CODE_BUCKET"], os.environ["CODE_KEY"], code)
shutil.unpack_archive(code, os.path.join(place, "client_smoke"))
sys.path.insert(0, place)
runpy.run_module(sys.argv[1], run_name="__main__")
"""


class Canary(Construct):
    """A task that runs the smoke client's steps as a role of its own, and logs metrics of what works.

    The role logs and registers, and promotes and deletes models whose names begin with `smoke-canary-`, and
    no others. In S3 it reaches its own experiment, and the sealed copies of those models. It does not
    reach the database.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        resources: TaskResources,
        url: str,
        server: ServerConfig,
        config: CanaryConfig,
    ) -> None:
        super().__init__(scope, construct_id)
        stack, artifacts = cdk.Stack.of(self), resources.artifacts
        code = s3_assets.Asset(self, "Code", path=str(CLIENT), exclude=["**/__pycache__", "*.pyc"])
        self.task = ImageTask(
            self,
            "Task",
            resources=resources,
            name="canary",
            entry_point=["python", "-c", _LOADER],
            command="client_smoke.canary",
            log_stream_prefix="canary",
            environment={
                "CODE_BUCKET": code.s3_bucket_name,
                "CODE_KEY": code.s3_object_key,
                "MLFLOW_AWS_PUBLIC_URL": url,
                "MLFLOW_AWS_TOKEN_AUDIENCE": url,
                "MLFLOW_AWS_CANARY_ARTIFACTS": artifacts.canary_root,
                "MLFLOW_AWS_CANARY_MINUTES": str(config.minutes),
                "MLFLOW_AWS_DEPLOYMENT": stack.stack_name,
            },
            config=server,
            size=_SIZE,
        )
        self.role = self.task.role
        self._allow(code, resources, audience=url)
        run_on_schedule(
            self,
            "Schedule",
            task=self.task,
            cluster=resources.cluster,
            schedule=events.Schedule.rate(cdk.Duration.minutes(config.minutes)),
            command=["client_smoke.canary"],
            description="Tries what MLflow on AWS promises",
        )

    @property
    def mlflow_role(self) -> dict[str, object]:
        """What the server is told about it: its one member, and what it may do."""
        return {
            "permissions": ["read", "write"],
            "own_models": CANARY_MODELS,
            "iam_roles": [self.role.role_arn],
            "groups": [],
        }

    def reach(self, load_balancer: ec2.IConnectable) -> None:
        """Let it connect, as clients do from the configured networks."""
        load_balancer.connections.allow_from(
            self.task.security_group, ec2.Port.tcp(443), "HTTPS of the canary"
        )

    def _allow(self, code: s3_assets.Asset, resources: TaskResources, *, audience: str) -> None:
        read = code.bucket.arn_for_objects(code.s3_object_key)
        self.role.add_to_policy(iam.PolicyStatement(actions=["s3:GetObject"], resources=[read]))
        resources.artifacts.grant_canary(self.role)
        self.role.add_to_policy(tokens_for_mlflow_only(audience))
        acknowledge_resource(
            self.role,
            "*",
            because="sts:GetWebIdentityToken has no resource; the condition names the audience",
        )
