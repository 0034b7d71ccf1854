"""Who did it, as evidence: tags that the server writes about its callers and that no caller can write.

`Provenance` stands between the gate, which knows the caller, and MLflow, which believes every client.
"""

from mlflow_aws_server.provenance.middleware import Provenance
from mlflow_aws_server.provenance.places import ArtifactPlaces
from mlflow_aws_server.provenance.stored_places import StoredPlaces

__all__ = ["ArtifactPlaces", "Provenance", "StoredPlaces"]
