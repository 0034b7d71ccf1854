"""Who did it, as evidence: what the server writes about its callers, and what no caller can write.

`Provenance` stands between the gate, which knows who is calling, and MLflow, which believes every client.
"""

from mlflow_aws_server.provenance.middleware import Provenance

__all__ = ["Provenance"]
