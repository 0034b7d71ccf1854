"""Sealing: a registered version is copied to where only this server writes, and served from there.

S3 copies; the server carries no model bytes. `places` and `manifest` say what a sealed copy is, `copying`
makes it, `versions` keeps its state in MLflow's own columns, `listener` begins it with the version's row, and
`Sealing` sees it through.
"""

from mlflow_aws_server.sealing.manifest import Seal
from mlflow_aws_server.sealing.sealing import Sealing, Seals

__all__ = ["Seal", "Sealing", "Seals"]
