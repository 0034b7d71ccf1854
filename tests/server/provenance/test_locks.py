"""Locks of models."""

from __future__ import annotations

import pytest
from mlflow_aws_server.database.connect import AsyncConnection
from mlflow_aws_server.errors import UnavailableError
from mlflow_aws_server.provenance.locks import ModelLocks


async def test_database_that_is_gone_leaves_clients_their_patience() -> None:
    async def nobody_listens() -> AsyncConnection:
        raise ConnectionRefusedError

    with pytest.raises(UnavailableError) as refused:
        async with ModelLocks(nobody_listens).hold("model"):
            pytest.fail("nothing is locked")
    # MLflow's client repeats seven times: told to come back after a second, for seven seconds.
    assert (refused.value.status, refused.value.retry_after) == (503, None)
