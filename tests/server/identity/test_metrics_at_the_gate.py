"""What the gate tells metrics, and whom it lets read them."""

from __future__ import annotations

import pytest
from mlflow_aws_server.metrics import Measured
from mlflow_aws_server.metrics.recorder import Call, Recorder

from tests.server.identity.conftest import World


@pytest.mark.parametrize("prefix", ["/api", "/ajax-api"])
@pytest.mark.parametrize(
    ("role", "status"),
    [("viewer", 403), ("contributor", 403), ("approver", 403), ("auditor", 200), ("admin", 200), (None, 401)],
)
async def test_only_administrators_and_auditors_are_told(
    world: World, role: str | None, status: int, prefix: str
) -> None:
    world.gate._exposition = lambda: b"mlflow_aws_requests_total 1"
    token = world.token(role) if role else None
    answer = await world.call(path=f"{prefix}/2.0/mlflow-aws/metrics", token=token)
    assert answer.status == status
    assert (b"mlflow_aws_requests_total" in answer.body) == (status == 200)
    assert answer.headers["cache-control"] == "no-store"
    if status == 200:
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert world.behind.reached == []


async def test_the_gate_says_who_calls_and_which_route(world: World) -> None:
    recorder = Recorder()
    measured = Measured(world.gate, deployment=None, recorder=recorder)
    world.gate, gate = measured, world.gate  # type: ignore[assignment]
    await world.call(path="/api/2.0/mlflow/logged-models/m-1", token=world.token("viewer"))
    await world.call(path="/api/2.0/mlflow/no-such-route", token=world.token("viewer"))
    await world.call(path="/api/2.0/mlflow/logged-models/m-1", token=None)
    assert recorder.minute.calls == {
        Call("GET", "/api/2.0/mlflow/logged-models/<id>", "iam", "viewer", 200, False): 1,
        Call("", "", "iam", "viewer", 404, False): 1,
        Call("", "", "", "", 401, False): 1,
    }
    assert gate.keys_age() < 60
