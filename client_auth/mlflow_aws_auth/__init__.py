"""Sign in to MLflow on AWS with the IAM role you have.

`connect("https://mlflow.example.com")` in a notebook, or `MLFLOW_TRACKING_AUTH=aws` for any MLflow program.
"""

from mlflow_aws_auth.connection import Connection, connect
from mlflow_aws_auth.errors import AwsAuthError

__all__ = ["AwsAuthError", "Connection", "connect"]
