"""Clients of S3 with the server's role, for what this server reads and copies itself."""

from __future__ import annotations

import functools

from mlflow_aws_server.aws import aws_client

s3_client = functools.partial(aws_client, "s3")
