"""Whether what an experiment's runs and models write stays under the artifact root."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.database.pool import ConnectionPool
from mlflow_aws_server.provenance import documents
from mlflow_aws_server.provenance.places import ArtifactPlaces

_LOCATION = "SELECT artifact_location FROM experiments WHERE experiment_id = $1"
_LARGEST_ID = 2**31 - 1
_REMEMBERED = 4096


class ExperimentPlaces:
    """Looks once for each experiment: MLflow never changes an experiment's artifact location."""

    def __init__(self, places: ArtifactPlaces, questions: ConnectionPool) -> None:
        self._places = places
        self._questions = questions
        self._inside: OrderedDict[int, None] = OrderedDict()

    async def check(self, document: Mapping[str, Any]) -> None:
        """Check the experiment in which a request makes a run or a logged model.

        Raises:
            ProvenanceError: it was created with another place, before this server refused that.
        """
        try:
            # MLflow reads it in the same way, and takes none as the default experiment.
            experiment = int(documents.field(document, "experiment_id", str) or 0)
        except ValueError:
            return
        if experiment in self._inside or not 0 <= experiment <= _LARGEST_ID:
            return

        async def ask(connection: AsyncConnection) -> str | None:
            location: str | None = await connection.fetchval(_LOCATION, experiment)
            return location

        location = await self._questions.run(ask)
        if location is None:
            return
        if not self._places.holds(location):
            raise self._places.refusal(
                f"artifact_location of the experiment {experiment}",
                location,
                "What is in it stays readable; create a new experiment, without a location, for what is new.",
            )
        while len(self._inside) >= _REMEMBERED:
            self._inside.popitem(last=False)
        self._inside[experiment] = None
