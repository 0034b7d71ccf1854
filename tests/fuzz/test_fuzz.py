"""A few requests to every route, the same each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mlflow_aws_server.identity.access import ROUTES

if TYPE_CHECKING:
    from tests.fuzz.runner import Fuzz

_SEED = 12


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_made_up_request_breaks_the_server_or_a_rule(fuzz: Fuzz) -> None:
    fuzz.round(_SEED, examples=2)
    fuzz.end()
    assert not fuzz.findings, "\n".join(fuzz.findings)
    missed = {f"{route.method} {route.path}" for route in ROUTES if route.method != "*"} - {*fuzz.counts}
    assert not missed
