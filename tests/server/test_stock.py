"""How MLflow's stores are opened at the start of a worker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from mlflow_aws_server import stock
from sqlalchemy.exc import OperationalError


def _opening(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[Exception]:
    left = list(errors)

    def open_stores() -> None:
        if left:
            raise left.pop(0)

    monkeypatch.setattr(stock, "_open_stores", open_stores)
    monkeypatch.setattr(stock, "_BETWEEN_ATTEMPTS_SECONDS", 0)
    return left


UNREACHABLE: list[Callable[[], Exception]] = [
    lambda: MlflowException("gone", error_code=TEMPORARILY_UNAVAILABLE),
    lambda: OperationalError("SELECT 1", {}, Exception("gone")),
]


@pytest.mark.parametrize("error", UNREACHABLE, ids=["in a session", "at the connection"])
async def test_database_out_of_reach_at_a_worker_s_start_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
) -> None:
    left = _opening(monkeypatch, error(), error())
    await stock._opened()
    assert left == []


async def test_database_that_stays_away_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    _opening(monkeypatch, UNREACHABLE[0](), UNREACHABLE[0]())
    monkeypatch.setattr(stock, "_LONGEST_OUTAGE_SECONDS", -1.0)
    with pytest.raises(MlflowException, match="gone"):
        await stock._opened()


async def test_database_that_mlflow_cannot_use_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    left = _opening(monkeypatch, MlflowException("another schema", error_code=INVALID_PARAMETER_VALUE))
    with pytest.raises(MlflowException, match="another schema"):
        await stock._opened()
    assert left == []
