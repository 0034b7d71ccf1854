"""The audit log: one line for each request that changes something or is refused, and never a secret."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow_aws_server.identity import AuditLog
from mlflow_aws_server.identity.access import route_of
from mlflow_aws_server.identity.audit import (
    _NAMES,
    LARGEST_BODY,
    OBJECT,
    AuditRecord,
)
from mlflow_aws_server.identity.errors import PermissionDeniedError
from mlflow_aws_server.identity.roles import Lane, Principal, Role
from mlflow_aws_server.logs import LARGEST_LINE

from tests.server.identity.conftest import World, arn

_API = "/api/2.0/mlflow"


async def test_change_leaves_one_line_that_says_who_did_what(
    world: World, lines: list[dict[str, Any]]
) -> None:
    await world.call(
        "POST",
        f"{_API}/model-versions/transition-stage",
        token=world.token("approver"),
        headers=[("X-Amzn-Trace-Id", "Root=1-67891233-abcdef012345678912345678")],
        body=b'{"name": "credit", "version": "3", "stage": "Production", "archive_existing_versions": true}',
    )
    (line,) = lines
    assert line.pop("ms") >= 0
    assert line.pop("time").endswith("+00:00")
    assert len(line.pop("process")) == 16
    assert line == {
        "audit": "changed",
        "number": 1,
        "principal": arn("approver"),
        "lane": "iam",
        "role": "approver",
        "method": "POST",
        "route": f"{_API}/model-versions/transition-stage",
        "object": {"name": "credit", "version": "3", "stage": "Production"},
        "status": 200,
        "request_id": "Root=1-67891233-abcdef012345678912345678",
    }


async def test_person_is_named_by_her_user_name(world: World, lines: list[dict[str, Any]]) -> None:
    await world.call("POST", "/ajax-api/2.0/mlflow/runs/create", person=world.user_token())
    assert (lines[0]["principal"], lines[0]["lane"]) == ("cognito:someone", "cognito")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/runs/get"), ("POST", "/runs/search"), ("POST", "/experiments/search"), ("HEAD", "/runs/get")],
)
async def test_reading_leaves_no_line(
    world: World, lines: list[dict[str, Any]], method: str, path: str
) -> None:
    assert (await world.call(method, _API + path, token=world.token())).status == 200
    assert not lines


async def test_refusal_leaves_one_line_with_its_reason(world: World, lines: list[dict[str, Any]]) -> None:
    await world.call("POST", f"{_API}/registered-models/alias", token=world.token("viewer"))
    (line,) = lines
    assert (line["audit"], line["status"], line["reason"]) == ("refused", 403, "role")
    assert (line["principal"], line["role"]) == (arn("viewer"), "viewer")
    assert line["route"] == f"{_API}/registered-models/alias"


@pytest.mark.parametrize(
    ("path", "answer", "made"),
    [
        ("/runs/create", {"run": {"info": {"run_id": "r1", "experiment_id": "7"}}},
         {"run_id": "r1", "experiment_id": "7"}),
        ("/experiments/create", {"experiment_id": "7"}, {"experiment_id": "7"}),
        ("/model-versions/create", {"model_version": {"name": "credit", "version": "4", "run_id": "r1"}},
         {"name": "credit", "version": "4", "run_id": "r1"}),
        ("/logged-models", {"model": {"info": {"model_id": "m-1", "experiment_id": "7"}}},
         {"model_id": "m-1", "experiment_id": "7"}),
    ],
)  # fmt: skip
async def test_what_was_made_is_named_by_the_answer(
    world: World, lines: list[dict[str, Any]], path: str, answer: dict[str, Any], made: dict[str, str]
) -> None:
    world.behind.answer = json.dumps(answer).encode()
    await world.call("POST", _API + path, token=world.token(), body=b'{"unrelated": 1}')
    assert lines[0]["object"] == made


async def test_object_may_be_named_in_the_path_or_the_query(
    world: World, lines: list[dict[str, Any]]
) -> None:
    await world.call("DELETE", f"{_API}/logged-models/m-1", token=world.token())
    await world.call(
        "DELETE",
        f"{_API}/registered-models/alias",
        token=world.token("approver"),
        query=b"name=credit&alias=champion",
    )
    assert [line["object"] for line in lines] == [{"id": "m-1"}, {"name": "credit", "alias": "champion"}]


async def test_only_names_at_the_top_of_a_body_are_told(world: World, lines: list[dict[str, Any]]) -> None:
    body = {
        "tags": [{"key": "k", "run_id": "nested"}],
        "run_id": "r1",
        "params": [{"key": "password", "value": "s3"}],
    }
    await world.call("POST", f"{_API}/runs/log-batch", token=world.token(), body=json.dumps(body).encode())
    assert lines[0]["object"] == {"run_id": "r1"}
    assert "s3" not in json.dumps(lines[0])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"\xff", b'"run_id"', b'{"run_id": {"a": 1}, "name": null}']
)
async def test_body_that_says_nothing_leaves_a_line_all_the_same(
    world: World, lines: list[dict[str, Any]], body: bytes
) -> None:
    assert (await world.call("POST", f"{_API}/runs/set-tag", token=world.token(), body=body)).status == 200
    assert lines[0]["object"] == {}


async def test_large_body_is_not_kept(world: World, lines: list[dict[str, Any]]) -> None:
    body = json.dumps({"run_id": "r1", "filling": "x" * LARGEST_BODY}).encode()
    assert (await world.call("POST", f"{_API}/runs/log-batch", token=world.token(), body=body)).status == 200
    assert lines[0]["object"] == {}


async def test_an_inner_application_may_name_the_object(world: World, lines: list[dict[str, Any]]) -> None:
    async def behind(scope: Any, receive: Any, send: Any) -> None:
        scope[OBJECT]["run_id"] = "r9"
        await world.behind(scope, receive, send)

    world.gate._app = behind
    await world.call("POST", f"{_API}/runs/log-batch", token=world.token(), body=b'{"run_id": "r1"}')
    assert lines[0]["object"] == {"run_id": "r9"}


async def test_long_names_are_cut(world: World, lines: list[dict[str, Any]]) -> None:
    body = json.dumps({"name": "n" * 10_000}).encode()
    await world.call("POST", f"{_API}/registered-models/create", token=world.token(), body=body)
    assert lines[0]["object"] == {"name": "n" * 200}


# What needs most bytes in UTF-8 and most in JSON, and what is no character at all.
_CHARACTERS = st.sampled_from(("n", "\x01", '"', "\\", "é", "\u2028", "\U0001f600", "\ud800"))


@st.composite
def _long(draw: st.DrawFn, *characters: str, most: int) -> str:
    unit = "".join(draw(st.lists(st.sampled_from(characters) if characters else _CHARACTERS, min_size=1)))
    return (unit * most)[: draw(st.integers(0, most))]


@given(
    who=_long("a", "/", '"', "\\", most=576).map("arn:aws-us-gov:iam::123456789012:role/a".__add__)
    | _long("a", '"', "é", "\U0001f600", most=128).map("cognito:".__add__),
    names=st.dictionaries(st.sampled_from(_NAMES), _long(most=300)),
    found=st.dictionaries(st.sampled_from(_NAMES), _long(most=100_000)),
    query=st.dictionaries(st.sampled_from(_NAMES), _long("n", "é", "\x01", most=300)),
    path=_long(most=4000).map("/".__add__)
    | _long("n", "é", "\x01", '"', most=4000).map(f"{_API}/logged-models/".__add__),
    method=st.sampled_from(("POST", "DELETE", "X" * 10_000)),
    trace=_long("a", most=256),
    status=st.sampled_from((200, 403, 500)),
    refused=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_no_line_is_longer_than_what_a_pipe_writes_at_once(
    who: str,
    names: dict[str, str],
    found: dict[str, str],
    query: dict[str, str],
    path: str,
    method: str,
    trace: str,
    status: int,
    refused: bool,
) -> None:
    role = Role(name="r" * 64, permissions=frozenset())
    principal = Principal(name=who, roles=(role,), lane=Lane.IAM)
    scope = {
        "method": method,
        "path": path,
        "query_string": urlencode(query).encode(),
        "headers": [(b"x-amzn-trace-id", trace.encode())],
    }
    route = route_of("DELETE", f"{_API}/logged-models/m-1") if path.startswith(_API) else None
    written: list[bytes] = []
    record = AuditRecord(AuditLog(written.append), scope, principal=principal, route=route)
    record.status = status
    record.body = bytearray(json.dumps(names).encode())
    record.found.update(found)
    refusal = PermissionDeniedError("role", "no", principal=who) if refused else None
    with pytest.raises(StopIteration):
        # Nothing to wait for: an event loop for each example would take longer than the rest.
        record.write(refusal).send(None)
    [text] = written
    assert len(text) <= LARGEST_LINE == 4096
    assert text.isascii()
    assert text.decode().rstrip("\n").isprintable()
    line = json.loads(text)
    assert (line["principal"], line["role"], line["status"]) == (who, role.name, status)
    assert line["route"] == (route.path if route else None)
    assert line["audit"] == (
        "refused" if refused or status == 403 else "changed" if status == 200 else "failed"
    )
    assert line["request_id"] == (trace or None)


async def test_names_are_shortened_only_as_far_as_the_line_needs() -> None:
    written: list[bytes] = []
    for names in (1, len(_NAMES)):
        scope = {"method": "POST", "path": "/", "headers": []}
        record = AuditRecord(AuditLog(written.append), scope, principal=None, route=None)
        record.body = bytearray(json.dumps(dict.fromkeys(_NAMES[:names], "\x01" * 300)).encode())
        await record.write()
    one, all_of_them = (json.loads(text)["object"] for text in written)
    assert [len(value) for value in one.values()] == [200]
    assert {len(value) for value in all_of_them.values()} == {20}
    assert set(all_of_them) == set(_NAMES)


async def test_no_token_is_written_wherever_it_is_sent(
    world: World, lines: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    token = world.token()
    with caplog.at_level(logging.DEBUG):
        await world.call(path=f"/{token}", headers=[("Authorization", f"bearer {token}")])
        await world.call(
            "POST", f"/api/{token}", token=token, query=f"token={token}".encode(), body=token.encode()
        )
        await world.call(
            "POST", f"{_API}/runs/set-tag", token=token, headers=[("X-Amzn-Trace-Id", token + "\n")]
        )
    assert len(lines) == 3
    text = caplog.text + json.dumps(lines)
    assert not [part for part in token.split(".") if part[:60] in text]


async def test_a_line_that_cannot_be_written_does_not_change_the_response(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(world.gate._audit, "_deliver", fail)
    assert (await world.call("POST", f"{_API}/runs/create", token=world.token())).status == 200
    assert (await world.call("POST", f"{_API}/runs/create")).status == 401


async def test_failure_behind_the_gate_is_recorded_and_passed_on(
    world: World, lines: list[dict[str, Any]]
) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("behind")

    world.gate._app = fails
    with pytest.raises(RuntimeError, match="behind"):
        await world.call("POST", f"{_API}/runs/create", token=world.token())
    assert (lines[0]["audit"], lines[0]["status"]) == ("failed", 500)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "changed"),
        (403, "refused"),
        (409, "refused"),
        (412, "refused"),
        (404, "failed"),
        (500, "failed"),
    ],
)
async def test_line_says_how_it_ended(
    world: World, lines: list[dict[str, Any]], status: int, outcome: str
) -> None:
    world.behind.status = status
    await world.call("POST", f"{_API}/runs/set-tag", token=world.token())
    assert (lines[0]["audit"], lines[0]["status"]) == (outcome, status)


async def test_line_is_written_before_the_caller_has_the_answer(
    world: World, lines: list[dict[str, Any]]
) -> None:
    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        assert not lines
        await send({"type": "http.response.body", "body": b"}"})
        assert len(lines) == 1

    world.gate._app = behind
    assert (await world.call("POST", f"{_API}/runs/set-tag", token=world.token())).status == 200
    assert len(lines) == 1


async def test_hostile_path_is_recorded_on_one_line_of_ascii(
    world: World, lines: list[dict[str, Any]]
) -> None:
    await world.call(path="/caf%C3%A9%E2%80%A8x", token=world.token())
    assert lines[0]["path"].isascii()
