"""Beyond its share a principal gets 429, which MLflow's clients wait for; others notice nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow_aws_server import shares
from mlflow_aws_server.identity import Gate
from mlflow_aws_server.shares import Shares

from tests.clients.installation import OLDEST, client
from tests.server.fastpath.test_public_client import over_http
from tests.server.identity.conftest import World, arn

_LOG = """
import mlflow
for step in range(3):
    mlflow.MlflowClient().log_metric("0" * 32, "loss", 1.0, step=step)
"""


@pytest.fixture
def slow_pace(world: World, monkeypatch: pytest.MonkeyPatch) -> Shares:
    """The gate lets each principal have ten requests per second, and lets none wait for more than one."""
    monkeypatch.setattr(shares, "LONGEST_DELAY_SECONDS", 1.0)
    mine = Shares(in_flight=16, per_minute=600)
    world.gate = Gate(world.behind, world.settings, fetch=world._fetch, shares=mine)
    return mine


def _use_up(mine: Shares) -> None:
    """The contributor has had its requests, and as many as may wait."""
    for _ in range(2):
        mine.refused(arn("contributor"))


async def test_beyond_a_share_is_an_error_of_mlflows_shape_that_says_when_to_come_again(
    world: World, slow_pace: Shares, lines: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    _use_up(slow_pace)
    with caplog.at_level(logging.WARNING, logger="mlflow_aws_server.shares"):
        answers = [
            await world.call("POST", "/api/2.0/mlflow/runs/log-metric", token=world.token()) for _ in range(3)
        ]
    assert {(each.status, each.headers["retry-after"]) for each in answers} == {(429, "2")}
    assert answers[0].json["error_code"] == "RESOURCE_EXHAUSTED"
    assert "server.requests_per_minute = 600" in answers[0].json["message"]
    assert arn("contributor") in answers[0].json["message"]
    # Not a line for each: a loop would fill the log.
    assert not lines
    assert len(caplog.records) == 1
    assert not world.behind.reached


async def test_others_and_health_are_answered_meanwhile(world: World, slow_pace: Shares) -> None:
    _use_up(slow_pace)
    whoami = "/api/2.0/mlflow-aws/whoami"
    assert (await world.call("GET", whoami, token=world.token())).status == 429
    assert (await world.call("GET", whoami, token=world.token("viewer"))).status == 200
    assert (await world.call("GET", whoami, token=world.partner_token())).status == 200
    assert (await world.call("GET", "/health")).status == 200
    assert (await world.call("GET", token=world.token("viewer"))).status == 200


async def test_a_loop_of_what_is_not_permitted_uses_up_the_share(world: World, slow_pace: Shares) -> None:
    token = world.token("viewer")
    statuses = [
        (await world.call("POST", "/api/2.0/mlflow/runs/create", token=token)).status for _ in range(3)
    ]
    assert statuses == [403, 403, 429]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["this environment's", OLDEST])
def test_mlflows_client_waits_and_loses_nothing(
    version: str, world: World, slow_pace: Shares, tmp_path: Path
) -> None:
    began: list[float] = []

    def clock() -> float:
        """Stands still until somebody was refused."""
        if slow_pace._refused and not began:
            began.append(time.monotonic())
        return 1000 + (time.monotonic() - began[0] if began else 0)

    slow_pace._clock = clock
    _use_up(slow_pace)
    with over_http(world.gate) as url:
        done = subprocess.run(
            [sys.executable if version != OLDEST else str(client(version)), "-c", _LOG],
            env={**os.environ, "MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_TOKEN": world.token()},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert sum(scope["type"] == "http" for scope in world.behind.reached) == 3
    assert began
