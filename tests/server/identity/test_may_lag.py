"""Whose reads may be some moments old: people's, but for those of who has just changed something."""

from __future__ import annotations

import pytest
from mlflow_aws_server.asgi import MAY_LAG
from mlflow_aws_server.identity import Gate

from tests.server.identity.conftest import World

SEARCH = ("POST", "/ajax-api/2.0/mlflow/runs/search")
CHANGE = ("POST", "/ajax-api/2.0/mlflow/runs/set-tag")


@pytest.fixture
def lagging(world: World) -> World:
    """A gate of a server that has a reader."""
    world.gate = Gate(world.behind, world.settings, fetch=world._fetch, may_lag=True)
    return world


def may_lag(world: World) -> object:
    return world.behind.reached[-1][MAY_LAG]


async def test_a_person_s_reads_may_lag_and_a_program_s_never(lagging: World) -> None:
    await lagging.call(*SEARCH, person=lagging.user_token("admin"))
    assert may_lag(lagging) is True
    await lagging.call(*SEARCH, token=lagging.token("admin"))
    assert may_lag(lagging) is False


async def test_a_person_who_has_changed_something_reads_it_for_some_seconds(lagging: World) -> None:
    person = lagging.user_token()
    answer = await lagging.call(*CHANGE, person=person)
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    # The browser forgets it by itself; no other site can make it send or read it.
    assert attributes == ["Max-Age=10", "Path=/", "Secure", "HttpOnly", "SameSite=Strict"]
    cookies = f"AWSELBAuthSessionCookie-0=x; {cookie}"
    await lagging.call(*SEARCH, person=person, headers=[("Cookie", cookies)])
    assert may_lag(lagging) is False
    assert b"cookie" not in dict(lagging.behind.reached[-1]["headers"])


async def test_neither_reads_nor_refused_changes_nor_programs_get_the_cookie(lagging: World) -> None:
    answers = [
        await lagging.call(*SEARCH, person=lagging.user_token()),
        await lagging.call(*CHANGE, person=lagging.user_token("viewer")),
        await lagging.call(*CHANGE, token=lagging.token()),
    ]
    lagging.behind.status = 404
    answers.append(await lagging.call(*CHANGE, person=lagging.user_token()))
    assert [answer.status for answer in answers] == [200, 403, 200, 404]
    assert not [answer for answer in answers if "set-cookie" in answer.headers]


async def test_without_a_reader_nothing_lags_and_there_is_no_cookie(world: World) -> None:
    answer = await world.call(*CHANGE, person=world.user_token())
    assert "set-cookie" not in answer.headers
    assert may_lag(world) is False
