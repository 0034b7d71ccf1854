"""Steps of a deployment that CloudFormation has no resource type for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stacks.operational_log import OperationalLog


class CustomResourceRunner(lambda_.Function):
    """A function that CloudFormation calls: one file of Python, an encrypted log, and a role of its own.

    The role may do what `allow` says and write that log. Role and log stand beside the function in `scope`,
    under the ids `Role` and `Log` after `id_prefix`.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        handler: Path,
        description: str,
        timeout: cdk.Duration,
        allow: Sequence[iam.PolicyStatement],
        log_key: kms.IKey,
        log_days: int,
        id_prefix: str = "",
    ) -> None:
        log = OperationalLog(scope, f"{id_prefix}Log", key=log_key, days=log_days)
        self.execution_role = iam.Role(
            scope, f"{id_prefix}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")
        )
        write_log = iam.PolicyStatement(
            actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[log.log_group_arn]
        )
        for statement in (*allow, write_log):
            self.execution_role.add_to_policy(statement)
        super().__init__(
            scope,
            construct_id,
            description=description,
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            handler="index.handler",
            code=lambda_.Code.from_inline(handler.read_text(encoding="utf-8")),
            timeout=timeout,
            memory_size=256,
            log_group=log,
            role=self.execution_role,
        )
        self._scope, self._timeout = scope, timeout

    def resource(
        self, construct_id: str, *, resource_type: str, properties: Mapping[str, Any] | None = None
    ) -> cdk.CustomResource:
        """Return the custom resource, which this function creates, changes and deletes within its timeout."""
        return cdk.CustomResource(
            self._scope,
            construct_id,
            resource_type=resource_type,
            service_token=self.function_arn,
            service_timeout=self._timeout,
            properties=properties,
        )
