"""Stages and aliases move one at a time, only as the caller believed, and never without a trace."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import re
from typing import Any

import pytest
from mlflow_aws_server.provenance import chain
from mlflow_aws_server.provenance.locks import ModelLocks, lock_key

from tests.server.provenance.harness import ALICE, Answer, Principal, Server, chain_of, seal_of

STAGE, ALIAS = "model-versions/transition-stage", "registered-models/alias"
DELETION = "model-versions/delete"


def _stage(model: str, version: str, stage: str = "Production", **more: object) -> dict[str, object]:
    return {"name": model, "version": version, "stage": stage, **more}


def _alias(model: str, version: str, alias: str = "champion") -> dict[str, object]:
    return {"name": model, "version": version, "alias": alias}


def _alias_of(server: Server, model: str) -> str | None:
    got = server.send("GET", "registered-models/get", query=f"name={model}").json["registered_model"]
    return next((str(a["version"]) for a in got.get("aliases", ()) if a["alias"] == "champion"), None)


def test_history_tells_who_moved_a_version_where_and_what_was_there_before(server: Server, name: str) -> None:
    server.new_model(name, versions=2)
    before = datetime.datetime.now(datetime.UTC)
    server.post(STAGE, _stage(name, "1"))
    server.post(STAGE, _stage(name, "2", archive_existing_versions=True), principal=Principal("cognito:bob"))
    after = datetime.datetime.now(datetime.UTC)

    [first], [second] = server.history(name, "1"), server.history(name, "2")
    assert before <= datetime.datetime.fromisoformat(first.pop("at")) <= after
    assert before <= datetime.datetime.fromisoformat(second.pop("at")) <= after
    assert first == {
        "principal": ALICE,
        "action": "stage",
        "stage": "Production",
        "alias": None,
        "archive_existing_versions": False,
        "previous": None,
        "number": 1,
        "before": "",
        "version": "1",
        "seal": seal_of(name, "1"),
        "decision": None,
        "figures": None,
    }
    assert re.fullmatch("[0-9a-f]{64}", second.pop("before"))
    assert second == {
        "principal": "cognito:bob",
        "action": "stage",
        "stage": "Production",
        "alias": None,
        "archive_existing_versions": True,
        "previous": "1",
        "number": 2,
        "version": "2",
        "seal": seal_of(name, "2"),
        "decision": None,
        "figures": None,
    }
    assert server.version(name, "1")["current_stage"] == "Archived"


def test_history_of_an_alias(server: Server, name: str) -> None:
    server.new_model(name, versions=2)
    server.post(ALIAS, _alias(name, "1"))
    server.post(f"/ajax-api/2.0/mlflow/{ALIAS}", _alias(name, "2"))
    assert server.send("DELETE", ALIAS, {"name": name, "alias": "champion"}).status == 200
    told = [
        (version, entry["action"], entry["alias"], entry["stage"], entry["previous"])
        for version in "12"
        for entry in server.history(name, version)
    ]
    assert told == [
        ("1", "alias", "champion", None, None),
        ("2", "alias", "champion", None, "1"),
        ("2", "alias-removed", "champion", None, "2"),
    ]
    assert _alias_of(server, name) is None


def test_names_of_history_tags_sort_by_time(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    for stage in ("Staging", "Production", "Archived"):
        server.post(STAGE, _stage(name, "1", stage))
    keys = [key for key in server.tags_of_version(name, "1") if key.startswith("mlflow_aws.history.")]
    form = r"mlflow_aws\.history\.\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{4}"
    assert all(re.fullmatch(form, key) for key in keys)
    assert [entry["stage"] for entry in server.history(name, "1")] == ["Staging", "Production", "Archived"]


def test_stage_is_told_as_mlflow_names_it(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    server.post(STAGE, {"name": name, "version": "1", "stage": "pRODUCTION", "archiveExistingVersions": True})
    [entry] = server.history(name, "1")
    assert (entry["stage"], entry["archive_existing_versions"]) == ("Production", True)


def test_removing_an_alias_that_does_not_exist_leaves_no_entry(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    assert server.send("DELETE", ALIAS, {"name": name, "alias": "champion"}).status == 200
    assert server.history(name, "1") == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (STAGE, {"version": "1", "stage": "Production"}, 400),
        (STAGE, {"name": "no-such-model", "version": "1", "stage": "Production"}, 404),
        (STAGE, {"name": "{name}", "version": "9", "stage": "Production"}, 404),
        (STAGE, {"name": "{name}", "version": "1", "stage": "Nowhere"}, 400),
        (STAGE, {"name": "{name}", "version": 1, "stage": "Production"}, 400),
        (
            STAGE,
            {"name": "{name}", "version": "1", "stage": "Production", "archive_existing_versions": "yes"},
            400,
        ),
        (ALIAS, {"name": "{name}", "version": "9", "alias": "champion"}, 404),
        (ALIAS, {"name": "{name}", "version": "1", "alias": "latest"}, 400),
        (ALIAS, {"name": "{name}", "version": "1"}, 400),
    ],
)
def test_refused_change_leaves_no_entry(
    server: Server, name: str, path: str, body: dict[str, Any], status: int
) -> None:
    server.new_model(name, versions=1)
    if "name" in body:
        body = {**body, "name": body["name"].format(name=name)}
    answer = server.send("POST", path, body)
    assert (answer.status, bool(answer.code)) == (status, True)
    assert server.history(name, "1") == []
    assert server.version(name, "1")["current_stage"] == "None"


def test_alias_moves_only_from_the_version_the_caller_saw(server: Server, name: str) -> None:
    server.new_model(name, versions=3)
    first = server.send("POST", ALIAS, _alias(name, "1"), headers={"if-none-match": "*"})
    late = server.send("POST", ALIAS, _alias(name, "2"), headers={"if-none-match": "*"})
    second = server.send("POST", ALIAS, _alias(name, "2"), headers={"if-match": '"1"'})
    stale = server.send("POST", ALIAS, _alias(name, "3"), headers={"if-match": '"1"'})
    removal = server.send("DELETE", ALIAS, {"name": name, "alias": "champion"}, headers={"if-match": '"1"'})
    assert [a.status for a in (first, late, second, stale, removal)] == [200, 412, 200, 412, 412]
    assert late.code == stale.code == removal.code == "RESOURCE_CONFLICT"
    assert "version 2" in stale.json["message"]
    assert "version 1" in stale.json["message"]
    assert _alias_of(server, name) == "2"
    assert server.history(name, "3") == []


def test_stage_moves_only_from_the_version_the_caller_saw(server: Server, name: str) -> None:
    server.new_model(name, versions=3)
    first = server.send("POST", STAGE, _stage(name, "1"), headers={"if-none-match": "*"})
    stale = server.send("POST", STAGE, _stage(name, "2"), headers={"if-match": '"7"'})
    second = server.send("POST", STAGE, _stage(name, "3"), headers={"if-match": '"1"'})
    assert [a.status for a in (first, stale, second)] == [200, 412, 200]
    assert server.version(name, "2")["current_stage"] == "None"


def test_of_several_versions_in_a_stage_the_newest_holds_it(server: Server, name: str) -> None:
    server.new_model(name, versions=3)
    for version in "21":
        server.post(STAGE, _stage(name, version))
    refused = server.send("POST", STAGE, _stage(name, "3"), headers={"if-match": '"1"'})
    assert refused.status == 412
    assert server.send("POST", STAGE, _stage(name, "3"), headers={"if-match": '"2"'}).status == 200


def test_condition_that_cannot_be_read_changes_nothing(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    answer = server.send("POST", ALIAS, _alias(name, "1"), headers={"if-match": "1"})
    assert (answer.status, answer.code) == (400, "INVALID_PARAMETER_VALUE")
    assert _alias_of(server, name) is None


@pytest.mark.parametrize(("path", "change"), [(STAGE, _stage), (ALIAS, _alias)])
def test_of_two_promotions_at_once_exactly_one_wins(
    server: Server, name: str, path: str, change: Any
) -> None:
    """Two servers that share nothing but the database, as two tasks do."""
    server.new_model(name, versions=3)
    server.post(path, change(name, "1"))
    servers = (server, server.another())

    async def both() -> list[Answer]:
        calls = [
            one.call(
                "POST",
                path,
                change(name, version),
                headers={"if-match": '"1"'},
                principal=Principal(f"cognito:{version}"),
            )
            for one, version in zip(servers, "23", strict=True)
        ]
        return list(await asyncio.gather(*calls))

    answers = server.loop.run_until_complete(both())
    server.loop.run_until_complete(servers[1].fast_path.shutdown())
    assert sorted(answer.status for answer in answers) == [200, 412]
    won, lost = ("2", "3") if answers[0].status == 200 else ("3", "2")
    [entry] = server.history(name, won)
    assert (entry["principal"], entry["previous"]) == (f"cognito:{won}", "1")
    assert server.history(name, lost) == []
    if path == ALIAS:
        assert _alias_of(server, name) == won
    else:
        assert server.version(name, won)["current_stage"] == "Production"
        assert server.version(name, lost)["current_stage"] == "None"


def test_history_of_many_at_once_is_one_chain(server: Server, name: str) -> None:
    """Each caller finds what the one before left, and says so."""
    server.new_model(name, versions=4)
    servers = (server, server.another())

    async def all_of_them() -> list[Answer]:
        calls = [servers[i % 2].call("POST", ALIAS, _alias(name, str(1 + i % 4))) for i in range(8)]
        return list(await asyncio.gather(*calls))

    answers = server.loop.run_until_complete(all_of_them())
    server.loop.run_until_complete(servers[1].fast_path.shutdown())
    assert {answer.status for answer in answers} == {200}
    told = sorted(
        (entry["at"], version, entry["previous"])
        for version in "1234"
        for entry in server.history(name, version)
    )
    assert len(told) == 8
    holder = None
    for _, version, previous in told:
        assert previous == holder
        holder = version
    assert _alias_of(server, name) == holder


def test_busy_model_is_told_to_come_back_and_others_are_not(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.new_model(name, versions=1)
    monkeypatch.setattr(_locks(server), "_wait_seconds", 0.2)

    second = server.another()
    other: ModelLocks = _locks(second)

    async def while_held() -> Answer:
        async with other.hold(name):
            return await server.call("POST", ALIAS, _alias(name, "1"))

    answer = server.loop.run_until_complete(while_held())
    assert (answer.status, answer.code) == (503, "TEMPORARILY_UNAVAILABLE")
    assert answer.headers[b"retry-after"] == b"1"
    server.loop.run_until_complete(second.fast_path.shutdown())
    assert _alias_of(server, name) is None
    server.post(ALIAS, _alias(name, "1"))


def test_waiting_for_a_turn_in_one_process_is_bounded_too(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_locks(server), "_wait_seconds", 0.2)

    async def while_held() -> Answer:
        async with _locks(server).hold("another"):
            return await server.call("POST", ALIAS, _alias(name, "1"))

    assert server.loop.run_until_complete(while_held()).status == 503


def test_nothing_changes_when_the_lock_cannot_be_had(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.new_model(name, versions=1)

    async def unreachable() -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(_locks(server), "_open", unreachable)
    answer = server.send("POST", ALIAS, _alias(name, "1"))
    assert (answer.status, answer.code) == (503, "TEMPORARILY_UNAVAILABLE")
    assert _alias_of(server, name) is None


def test_nothing_changes_when_the_registry_cannot_be_read(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.new_model(name, versions=1)
    behind = _Faulty(server.app._promotions._app, failing="registered-models/get", times=1)  # type: ignore[attr-defined]
    monkeypatch.setattr(server.app._promotions, "_app", behind)  # type: ignore[attr-defined]
    assert server.send("POST", ALIAS, _alias(name, "1")).status == 503
    assert _alias_of(server, name) is None


class _Faulty:
    """An application that fails on one path so many times."""

    def __init__(self, app: Any, *, failing: str, times: int) -> None:
        self.app, self.failing, self.times = app, failing, times

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.times and scope["path"].endswith(self.failing):
            self.times -= 1
            await send({"type": "http.response.start", "status": 500, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        await self.app(scope, receive, send)


def test_change_and_entry_are_one_transaction(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    server.post(STAGE, _stage(name, "1"))
    moved = server.sql("SELECT xmin::text FROM model_versions WHERE name = $1", name)
    noted = server.sql("SELECT xmin::text FROM model_version_tags WHERE name = $1 AND key ~ 'history'", name)
    assert len(moved) == 1
    assert moved == noted


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", STAGE, {"version": "2", "stage": "Archived"}),
        ("POST", ALIAS, {"version": "2", "alias": "champion"}),
        ("POST", ALIAS, {"version": "1", "alias": "champion"}),
        ("DELETE", ALIAS, {"alias": "champion"}),
        ("DELETE", DELETION, {"version": "2"}),
    ],
)
def test_change_is_undone_when_its_entry_cannot_be_written(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch, method: str, path: str, body: dict[str, str]
) -> None:
    server.new_model(name, versions=2)
    server.post(ALIAS, _alias(name, "1"))

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(chain, "_append", fail)
        assert server.send(method, path, {"name": name, **body}).status == 500
    assert _alias_of(server, name) == "1"
    assert server.version(name, "2")["current_stage"] == "None"
    assert server.send(method, path, {"name": name, **body}).status == 200
    assert [entry["number"] for entry in chain_of(server, name)] == [1, 2]


def test_change_of_an_mlflow_that_no_longer_tells_is_in_the_log(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.new_model(name, versions=1)
    monkeypatch.setattr(chain, "SqlRegisteredModelAlias", type("Renamed", (), {}))
    with caplog.at_level(logging.ERROR, logger="mlflow_aws_server.provenance"):
        server.post(ALIAS, _alias(name, "1"))
    [line] = [r.getMessage() for r in caplog.records if r.name == "mlflow_aws_server.provenance.promotion"]
    told = json.loads(line[line.index('{"model"') :])
    assert (told["model"], told["version"], told["principal"]) == (name, 1, ALICE)


def test_lock_ends_with_a_change_that_fails(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    for _ in range(3):
        assert server.send("POST", ALIAS, _alias(name, "9")).status == 404
    server.post(ALIAS, _alias(name, "1"))


def test_caller_cannot_speak_through_headers_to_the_server_itself(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    headers = {"authorization": "Bearer x", "cookie": "a=b", "origin": "http://localhost", "expect": "x"}
    assert server.send("POST", ALIAS, _alias(name, "1"), headers=headers).status == 200
    assert len(server.history(name, "1")) == 1


def test_locks_of_models_differ() -> None:
    keys = {lock_key(model) for model in ("a", "b", "ä", "A", "", "\ud800")}
    assert len(keys) == 6
    assert all(-(2**63) <= key < 2**63 for key in keys)


def _locks(server: Server) -> Any:
    return server.app._promotions._locks  # type: ignore[attr-defined]
