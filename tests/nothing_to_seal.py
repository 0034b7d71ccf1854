"""Sealing, where versions have no files."""

from __future__ import annotations

from mlflow_aws_server.sealing import Seal


class NothingToSeal:
    """Stands in for `Sealing`: every version stays what MLflow made it."""

    async def created(self, name: str, version: str) -> bool:
        """Nothing changed."""
        return False

    async def ensure(self, name: str, version: str) -> Seal | None:
        """Nothing has a seal."""
        return None
