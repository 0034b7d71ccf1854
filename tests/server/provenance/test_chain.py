"""A model's history is one chain over all of its versions: what is missing or altered shows."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import secrets
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.provenance.harness import (
    ALICE,
    Answer,
    Principal,
    Server,
    chain_of,
    entries_of,
    seal_of,
    verified,
)

STAGE, ALIAS, DELETION = "model-versions/transition-stage", "registered-models/alias", "model-versions/delete"
PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}


def _stage(server: Server, model: str, version: str, stage: str) -> None:
    server.post(STAGE, {"name": model, "version": version, "stage": stage})


def _alias(server: Server, model: str, version: str, alias: str = "champion") -> None:
    server.post(ALIAS, {"name": model, "version": version, "alias": alias})


def _delete(server: Server, model: str, version: str, **request: Any) -> Answer:
    return server.send("DELETE", DELETION, {"name": model, "version": version}, **request)


def _busy(server: Server, name: str) -> str:
    """A model with three versions and five changes, of which the second and the fifth are of version 2."""
    server.new_model(name, versions=3)
    _stage(server, name, "1", "Staging")
    _stage(server, name, "2", "Staging")
    _alias(server, name, "1")
    _alias(server, name, "3")
    _stage(server, name, "2", "Archived")
    return name


def _put_clock(server: Server, monkeypatch: pytest.MonkeyPatch, *times: datetime.datetime) -> None:
    moments = iter(times)
    monkeypatch.setattr(server.app._promotions, "_now", lambda: next(moments))  # type: ignore[attr-defined]


def test_chain_runs_over_stages_aliases_and_versions(server: Server, name: str) -> None:
    _busy(server, name)
    assert server.send("DELETE", ALIAS, {"name": name, "alias": "champion"}).status == 200
    chain = chain_of(server, name)
    assert [(entry["number"], entry["version"], entry["action"]) for entry in chain] == [
        (1, "1", "stage"),
        (2, "2", "stage"),
        (3, "1", "alias"),
        (4, "3", "alias"),
        (5, "2", "stage"),
        (6, "3", "alias-removed"),
    ]
    values = list(entries_of(server, name).values())
    assert [entry["before"] for entry in chain] == [
        "",
        *(hashlib.sha256(value.encode()).hexdigest() for value in values[:-1]),
    ]


def test_models_have_chains_of_their_own(server: Server, name: str) -> None:
    other = f"{name}-other"
    for model in (name, other):
        server.new_model(model, versions=1)
        _stage(server, model, "1", "Staging")
    assert [entry["number"] for entry in chain_of(server, other)] == [1]


@pytest.mark.parametrize("missing", range(4))
def test_missing_entry_shows(server: Server, name: str, missing: int) -> None:
    entries = entries_of(server, _busy(server, name))
    assert len(verified(entries)) == 5
    del entries[list(entries)[missing]]
    with pytest.raises(AssertionError, match=rf"entry {missing + 1} is missing"):
        verified(entries)


@pytest.mark.parametrize("altered", range(4))
def test_altered_entry_shows(server: Server, name: str, altered: int) -> None:
    entries = entries_of(server, _busy(server, name))
    key = list(entries)[altered]
    entries[key] = json.dumps({**json.loads(entries[key]), "principal": "cognito:mallory"})
    with pytest.raises(AssertionError, match=rf"the entry before {altered + 2} was altered"):
        verified(entries)


def test_two_servers_that_promote_at_once_leave_one_chain(server: Server, name: str) -> None:
    server.new_model(name, versions=4)
    servers = (server, server.another())

    async def all_of_them() -> list[Answer]:
        calls = []
        for i in range(12):
            version = str(1 + i % 4)
            path, more = (ALIAS, {"alias": f"a{i}"}) if i % 3 else (STAGE, {"stage": "Staging"})
            calls.append(servers[i % 2].call("POST", path, {"name": name, "version": version, **more}))
        return list(await asyncio.gather(*calls))

    answers = server.loop.run_until_complete(all_of_them())
    server.loop.run_until_complete(servers[1].fast_path.shutdown())
    assert {answer.status for answer in answers} == {200}
    assert [entry["number"] for entry in chain_of(server, name)] == list(range(1, 13))


def test_chain_holds_without_the_advisory_lock(server: Server, name: str) -> None:
    """A failover ends the lock's connection, and with it the lock, while the change still runs."""
    server.new_model(name, versions=4)
    other = server.another()

    class _Lost:
        def hold(self, _model: str) -> Any:
            return self

        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_: object) -> None: ...

    locks = [(each, each.app._promotions._locks) for each in (server, other)]  # type: ignore[attr-defined]

    async def all_of_them() -> list[Answer]:
        calls = [
            (server, other)[i % 2].call(
                "POST", ALIAS, {"name": name, "version": str(1 + i % 4), "alias": f"a{i}"}
            )
            for i in range(12)
        ]
        return list(await asyncio.gather(*calls))

    try:
        for each, _ in locks:
            each.app._promotions._locks = _Lost()  # type: ignore[attr-defined]
        answers = server.loop.run_until_complete(all_of_them())
    finally:
        for each, own in locks:
            each.app._promotions._locks = own  # type: ignore[attr-defined]
    server.loop.run_until_complete(other.fast_path.shutdown())
    assert {answer.status for answer in answers} == {200}
    assert [entry["number"] for entry in chain_of(server, name)] == list(range(1, 13))


def test_order_holds_when_the_clock_goes_backwards(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.new_model(name, versions=2)
    noon = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
    hour = datetime.timedelta(hours=1)
    _put_clock(server, monkeypatch, noon, noon - hour, noon, noon + hour)
    for version in "1212":
        _alias(server, name, version)
    chain = chain_of(server, name)
    assert [entry["version"] for entry in chain] == ["1", "2", "1", "2"]
    tick = datetime.timedelta(microseconds=1)
    at = [datetime.datetime.fromisoformat(entry["at"]) for entry in chain]
    assert at == [noon, noon + tick, noon + 2 * tick, noon + hour]


def test_entries_from_before_the_chain_come_before_it(server: Server, name: str) -> None:
    server.new_model(name, versions=2)
    old = {"at": "2020-01-01T00:00:00.000000+00:00", "principal": ALICE, "action": "stage", "previous": None}
    for version, second in (("2", "01"), ("1", "02")):
        key, value = (
            f"mlflow_aws.history.20200101T0000{second}.000000Z-00ff",
            json.dumps({**old, "n": second}),
        )
        server.sql("INSERT INTO model_version_tags (name, version, key, value) VALUES ($1, $2, $3, $4)",
                   name, int(version), key, value)  # fmt: skip
    _stage(server, name, "2", "Production")
    _stage(server, name, "1", "Production")
    chain = chain_of(server, name)
    assert [entry["number"] for entry in chain] == [1, 2]
    last_of_old = json.dumps({**old, "n": "02"})
    assert chain[0]["before"] == hashlib.sha256(last_of_old.encode()).hexdigest()


def test_task_from_before_the_chain_does_not_make_numbers_begin_anew(server: Server, name: str) -> None:
    """While a deployment replaces tasks, both write."""
    server.new_model(name, versions=1)
    _stage(server, name, "1", "Staging")
    server.sql("INSERT INTO model_version_tags (name, version, key, value) VALUES ($1, 1, $2, $3)",
               name, "mlflow_aws.history.29990101T000000.000000Z-0000", '{"action": "stage"}')  # fmt: skip
    _stage(server, name, "1", "Production")
    entries = entries_of(server, name)
    key = list(entries)[-1]
    assert key.startswith("mlflow_aws.history.29990101T000000.000001Z-")
    assert json.loads(entries[key])["number"] == 2


@pytest.mark.parametrize("value", [None, "", "[]", "{", '{"number": "x"}', '{"number": -1, "before": 5}'])
def test_entry_that_cannot_be_read_stops_nobody(server: Server, name: str, value: str | None) -> None:
    """Somebody wrote it into the database itself; it shows, but a rollback must go on working."""
    server.new_model(name, versions=1)
    _stage(server, name, "1", "Staging")
    server.sql("UPDATE model_version_tags SET value = $2 WHERE name = $1 AND key ~ 'history'", name, value)
    _stage(server, name, "1", "Archived")
    assert _delete(server, name, "1").status == 200


def test_deletion_of_a_version_stays_in_the_chain(server: Server, name: str) -> None:
    _busy(server, name)
    answer = _delete(server, name, "2", principal=Principal("cognito:bob"))
    assert (answer.status, answer.json) == (200, {})
    assert server.versions(name) == ["1", "3"]
    *_, last = chain_of(server, name)
    assert datetime.datetime.fromisoformat(last.pop("at"))
    values = {json.loads(value)["number"]: value for value in entries_of(server, name).values()}
    gone = last.pop("gone")
    assert [(span["first"], span["last"]) for span in gone] == [(2, 2), (5, 5)]
    assert [span["before"] for span in gone] == [
        hashlib.sha256(values[n].encode()).hexdigest() for n in (1, 4)
    ]
    [(value,)] = server.sql(
        "SELECT value FROM model_version_tags WHERE name = $1 AND version = 2 AND key ~ 'history'"
        " ORDER BY key DESC LIMIT 1",
        name,
    )
    assert last == {
        "number": 6,
        "before": hashlib.sha256(value.encode()).hexdigest(),
        "version": "2",
        "principal": "cognito:bob",
        "action": "version-deleted",
        "stage": "Archived",
        "alias": None,
        "archive_existing_versions": False,
        "previous": None,
        "seal": seal_of(name, "2"),
        "decision": None,
        "figures": None,
    }
    _stage(server, name, "3", "Staging")
    assert chain_of(server, name)[-1]["number"] == 7


@pytest.mark.parametrize("altered", ["1", "3"])
def test_entry_before_those_of_a_deleted_version_cannot_be_altered_either(
    server: Server, name: str, altered: str
) -> None:
    _busy(server, name)
    _delete(server, name, "2")
    entries = entries_of(server, name)
    key = [key for key, value in entries.items() if json.loads(value)["version"] == altered][-1]
    entries[key] = json.dumps({**json.loads(entries[key]), "principal": "cognito:mallory"})
    with pytest.raises(AssertionError, match="was altered"):
        verified(entries)


def test_deletion_of_a_version_with_a_long_history_is_told_in_several_entries(
    server: Server, name: str
) -> None:
    server.new_model(name, versions=2)
    for _ in range(30):
        _alias(server, name, "1")
        _alias(server, name, "2")
    assert _delete(server, name, "1", principal=Principal("cognito:" + "\U0001f600" * 128)).status == 200
    told = [entry for entry in chain_of(server, name) if entry["action"] == "version-deleted"]
    assert [len(entry["gone"]) for entry in told] == [25, 5]


def test_deletion_through_the_browsers_path_is_recorded_too(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    body = {"name": name, "version": "1"}
    assert server.send("DELETE", f"/ajax-api/2.0/mlflow/{DELETION}", body).status == 200
    assert [entry["action"] for entry in chain_of(server, name)] == ["version-deleted"]


@pytest.mark.parametrize(("version", "status"), [("9", 404), ("x", 400), ("0", 400), ("9" * 30, 400)])
def test_deletion_of_nothing_leaves_no_entry(server: Server, name: str, version: str, status: int) -> None:
    server.new_model(name, versions=1)
    assert _delete(server, name, version).status == status
    assert _delete(server, f"{name}-absent", "1").status == 404
    assert entries_of(server, name) == {}


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("Production", "in the stage Production"),
        ("Staging", "in the stage Staging"),
        ("", "alias 'champion'"),
    ],
)
@pytest.mark.parametrize("role", ["approver", "admin"])
def test_version_that_is_loaded_by_a_name_cannot_be_deleted(
    server: Server, name: str, place: str, what: str, role: str
) -> None:
    server.new_model(name, versions=2)
    if place:
        _stage(server, name, "1", place)
    else:
        _alias(server, name, "1")
    answer = _delete(server, name, "1", principal=Principal(role=role))
    assert (answer.status, answer.code) == (409, "RESOURCE_CONFLICT")
    assert what in answer.json["message"]
    assert "first" in answer.json["message"]
    if place:
        _stage(server, name, "1", "Archived")
    else:
        _alias(server, name, "2")
    assert _delete(server, name, "1", principal=Principal(role=role)).status == 200


def test_deleted_version_cannot_be_promoted_or_deleted_again(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    _delete(server, name, "1")
    assert _delete(server, name, "1").status == 404
    assert server.send("POST", ALIAS, {"name": name, "version": "1", "alias": "x"}).status == 404
    assert len(chain_of(server, name)) == 1


def test_chain_goes_with_a_model_that_is_renamed(server: Server, name: str) -> None:
    _busy(server, name)
    _delete(server, name, "2")
    before = entries_of(server, name)
    server.post("registered-models/rename", {"name": name, "new_name": f"{name}-renamed"})
    assert entries_of(server, f"{name}-renamed") == before
    _stage(server, f"{name}-renamed", "3", "Production")
    assert [entry["number"] for entry in chain_of(server, f"{name}-renamed")][-1] == 7
    # The old name is free for another model, whose chain is its own.
    server.new_model(name, versions=1)
    _stage(server, name, "1", "Staging")
    assert [entry["number"] for entry in chain_of(server, name)] == [1]


def test_version_is_written_as_the_database_counts_it(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    _stage(server, name, "01", "Staging")
    [entry] = chain_of(server, name)
    assert entry["version"] == "1"
    assert entry["seal"] == seal_of(name, "1")


def test_prompt_has_a_chain_without_seals(server: Server, name: str) -> None:
    server.post("registered-models/create", {"name": name, "tags": [PROMPT]})
    server.post("model-versions/create", {"name": name, "source": "prompt-template", "tags": [PROMPT]})
    _alias(server, name, "1", "production")
    [entry] = server.history(name, "1")
    assert entry["number"] == 1
    assert (entry["action"], entry["alias"], entry["seal"]) == ("alias", "production", None)


@pytest.mark.parametrize("stage", ["Staging", "Production"])
def test_nothing_goes_live_without_a_seal(server: Server, name: str, stage: str) -> None:
    from mlflow_aws_server.provenance.errors import later

    server.new_model(name, versions=1)
    server.seals.refusal = later("Sealing has begun.", seconds=5)
    try:
        for path, more in ((STAGE, {"stage": stage}), (ALIAS, {"alias": "champion"})):
            answer = server.send("POST", path, {"name": name, "version": "1", **more})
            assert (answer.status, answer.headers[b"retry-after"]) == (503, b"5")
    finally:
        server.seals.refusal = None
    assert server.version(name, "1")["current_stage"] == "None"
    assert entries_of(server, name) == {}
    assert server.sql("SELECT alias FROM registered_model_aliases WHERE name = $1", name) == []


def test_others_promote_while_a_version_of_the_model_is_being_sealed(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.new_model(name, versions=2)
    copying, copied = asyncio.Event(), asyncio.Event()

    async def slow(model: str, version: str) -> object:
        if version == "2":
            copying.set()
            await copied.wait()
        return await server.seals.ensure(model, version)

    monkeypatch.setattr(server.app._promotions, "_ensure_seal", slow)  # type: ignore[attr-defined]
    body = {"name": name, "alias": "champion"}

    async def both() -> tuple[Answer, Answer]:
        large = asyncio.create_task(server.call("POST", ALIAS, {**body, "version": "2"}))
        await copying.wait()
        small = await server.call("POST", ALIAS, {**body, "version": "1"})
        copied.set()
        return small, await large

    assert [answer.status for answer in server.loop.run_until_complete(both())] == [200, 200]
    assert [(entry["version"], entry["previous"]) for entry in chain_of(server, name)] == [
        ("1", None),
        ("2", "1"),
    ]


def test_seal_that_is_only_claimed_moves_nothing(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def claims(_name: str, _version: str) -> object:
        return object()

    server.new_model(name, versions=1)
    monkeypatch.setattr(server.app._promotions, "_ensure_seal", claims)  # type: ignore[attr-defined]
    answer = server.send("POST", STAGE, {"name": name, "version": "1", "stage": "Production"})
    assert (answer.status, answer.code) == (503, "TEMPORARILY_UNAVAILABLE")
    assert server.version(name, "1")["current_stage"] == "None"


def test_what_goes_nowhere_live_is_not_sealed(server: Server, name: str) -> None:
    server.new_model(name, versions=1)
    asked = len(server.seals.asked)
    for stage in ("Archived", "None"):
        _stage(server, name, "1", stage)
    assert _delete(server, name, "1").status == 200
    assert server.send("POST", ALIAS, {"name": name, "version": "1", "alias": "x"}).status == 404
    assert server.seals.asked[asked:] == []
    assert {entry["seal"] for entry in chain_of(server, name)} == {None}


_VERSIONS = st.sampled_from("123")
_CHANGES = st.one_of(
    st.tuples(st.just("stage"), _VERSIONS, st.sampled_from(("Staging", "Production")), st.booleans()),
    st.tuples(st.just("stage"), _VERSIONS, st.sampled_from(("Archived", "None")), st.just(False)),
    st.tuples(st.just("alias"), _VERSIONS, st.sampled_from(("champion", "challenger"))),
    st.tuples(st.just("alias-removed"), st.sampled_from(("champion", "challenger"))),
    st.tuples(st.just("deletion"), _VERSIONS),
)  # fmt: skip


def _make(server: Server, model: str, change: Any) -> Answer:
    match change:
        case ("stage", version, stage, archive):
            body = {"version": version, "stage": stage, "archive_existing_versions": archive}
            return server.send("POST", STAGE, {"name": model, **body})
        case ("alias", version, alias):
            return server.send("POST", ALIAS, {"name": model, "version": version, "alias": alias})
        case ("alias-removed", alias):
            return server.send("DELETE", ALIAS, {"name": model, "alias": alias})
    return _delete(server, model, change[1])


@given(changes=st.lists(_CHANGES, min_size=1, max_size=12))
@settings(max_examples=6, deadline=None)
def test_whatever_was_done_the_chain_tells_how_things_stand(server: Server, changes: list[Any]) -> None:
    model = server.new_model(f"model-{secrets.token_hex(4)}", versions=3)
    answers = [_make(server, model, change) for change in changes]
    assert {answer.status for answer in answers} <= {200, 400, 404, 409}

    chain_of(server, model)
    # With the entries of deleted versions, which MLflow keeps and shows to nobody.
    kept = server.sql(
        "SELECT key, value FROM model_version_tags WHERE name = $1 AND key ~ 'history' UNION ALL"
        " SELECT key, value FROM registered_model_tags WHERE name = $1 AND key ~ 'history'",
        model,
    )
    chain = verified(dict(kept))
    assert [entry["number"] for entry in chain] == list(range(1, len(chain) + 1))
    stages, aliases = dict.fromkeys("123", "None"), dict[str, str]()
    for entry in chain:
        version = entry["version"]
        if entry["action"] == "stage":
            if entry["archive_existing_versions"]:
                stages = {v: "Archived" if s == entry["stage"] else s for v, s in stages.items()}
            stages[version] = entry["stage"]
        elif entry["action"] == "alias":
            assert entry["previous"] == aliases.get(entry["alias"])
            aliases[entry["alias"]] = version
        elif entry["action"] == "alias-removed":
            assert aliases.pop(entry["alias"]) == version
        else:
            assert stages.pop(version) == entry["stage"]
    found = server.send("GET", "registered-models/get", query=f"name={model}").json["registered_model"]
    assert {each["alias"]: str(each["version"]) for each in found.get("aliases", ())} == aliases
    assert {v: server.version(model, v)["current_stage"] for v in server.versions(model)} == stages
