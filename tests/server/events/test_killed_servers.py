"""Events of real servers, killed where it hurts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.conftest import request
from tests.server.events.conftest import Bus
from tests.server.sealing.harness import API, Registry, is_ready

pytestmark = pytest.mark.slow

_ALIAS = "registered-models/alias"
_PATIENCE_SECONDS = 150


def _until(bus: Bus, holds: Callable[[list[dict[str, Any]]], bool], kind: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds(found := bus.details(kind)):
        assert time.monotonic() < deadline, bus.entries
        time.sleep(0.1)
    return found


def test_a_promotion_is_told_exactly_once_though_its_server_is_killed_before_the_event(
    own: Registry, buses: Callable[..., Bus]
) -> None:
    hole, bus = buses(hangs=True), buses()
    own.start(**hole.environ)
    model = own.new_model()
    own.register(model, own.new_source())
    own.until(is_ready, model)
    own.post(_ALIAS, {"name": model, "version": "1", "alias": "champion"}, role="approver")
    assert hole.asked.wait(60)
    own.kill()
    own.start(**bus.environ)
    status, _ = request(own._ports[-1], "GET", f"{API}registered-models/get?name={model}", role=None)
    assert status == 401
    (alias,) = _until(bus, bool, "Model Alias Set")
    approver = "arn:aws:iam::123456789012:role/mlflow-approver"
    assert (alias["principal"], alias["model"], alias["version"]) == (approver, model, "1")
    assert alias["seal"] == own.seal(model)["sha256"]
    admin = approver.replace("approver", "admin")
    (registered,) = bus.details("Model Registered")
    (version,) = bus.details("Model Version Registered")
    assert [(each["principal"], each["model"]) for each in (registered, version)] == [(admin, model)] * 2
    # A server that ends in order tells first of whom it refused.
    own._servers[-1].terminate()
    own._servers[-1].wait(60)
    own.start(**bus.environ)
    (refused,) = _until(bus, bool, "Access Refused")
    assert (refused["principal"], refused["count"]) == (None, 1)
    assert len({each["id"] for each in bus.details()}) == len(bus.entries) == 4
