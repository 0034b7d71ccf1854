"""Downloads of artifacts, and the URLs under which S3 itself serves them for some minutes."""

from mlflow_aws_server.artifacts.middleware import Artifacts

__all__ = ["Artifacts"]
