"""What is still to come of a refused body is taken from the client, but not at the cost of others."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from mlflow_aws_server.asgi import Message, Receive, Scope, Send, refuse
from mlflow_aws_server.budgets import Heads, heads
from mlflow_aws_server.errors import BodyError

PIECE = b" " * 65536
LARGE = ("content-length", "67108864")


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    await refuse(send, BodyError(413, "too large"))


async def sent_by(
    app: Heads, pieces: int, *headers: tuple[str, str], ends: bool = True
) -> tuple[list[Message], list[int]]:
    """What the client got, and how much of its body was left when the answer began."""
    left = [pieces]
    at_answer: list[int] = []
    messages: list[Message] = []

    async def receive() -> Message:
        if not left[0]:
            await asyncio.Event().wait()
        left[0] -= 1
        return {"type": "http.request", "body": PIECE, "more_body": bool(left[0]) or not ends}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            at_answer.append(left[0])
        messages.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "path": "/",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    await app(scope, receive, send)
    return messages, at_answer


def closes(messages: list[Message]) -> bool:
    return (b"connection", b"close") in messages[0]["headers"]


@pytest.mark.parametrize("header", [LARGE, ("transfer-encoding", "chunked")])
async def test_the_rest_of_a_refused_body_is_taken_before_the_answer(header: tuple[str, str]) -> None:
    messages, at_answer = await sent_by(Heads(refusing), 20, header)
    assert at_answer == [0]
    assert messages[0]["status"] == 413
    assert not closes(messages)


async def test_all_who_send_on_have_one_pace_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_BETWEEN_PIECES_SECONDS", 0.01)
    app = Heads(refusing)
    began = time.monotonic()
    await asyncio.gather(*(sent_by(app, 10, LARGE) for _ in range(5)))
    assert time.monotonic() - began >= 5 * 10 * 0.01


async def test_who_waits_for_an_answer_in_the_middle_gets_it_and_the_connection_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "_LONGEST_PAUSE_SECONDS", 0.05)
    messages, _ = await sent_by(Heads(refusing), 3, LARGE, ends=False)
    assert messages[0]["status"] == 413
    assert closes(messages)


async def test_who_sends_without_end_gets_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_LONGEST_DISCARD_SECONDS", 0.1)
    messages, at_answer = await sent_by(Heads(refusing), 10**9, LARGE)
    assert closes(messages)
    assert 0 < at_answer[0] < 10**9


async def test_who_asks_first_whether_to_send_is_not_told_to() -> None:
    messages, at_answer = await sent_by(Heads(refusing), 3, LARGE, ("expect", "100-continue"))
    assert at_answer == [3]
    assert closes(messages)


async def test_a_small_body_is_nobodys_burden() -> None:
    messages, at_answer = await sent_by(Heads(refusing), 1, ("content-length", "65536"))
    assert at_answer == [1]
    assert not closes(messages)
