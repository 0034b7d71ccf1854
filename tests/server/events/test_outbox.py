"""An event is written with the change that it tells of, and docs/events.md shows each as it is."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from mlflow_aws_server.events.outbox import add, create
from mlflow_aws_server.events.refusals import Refusals

from local.state import PROJECT
from tests.conftest import RdsLike
from tests.server.provenance.harness import ALICE, Server

STAGE, ALIAS, DELETION = "model-versions/transition-stage", "registered-models/alias", "model-versions/delete"

# The change fails when it is committed, after its event was written; and the event fails.
_BROKEN = (
    (
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'",
        "CREATE CONSTRAINT TRIGGER broken AFTER UPDATE ON model_versions DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION broken()",
        "DROP TRIGGER broken ON model_versions",
    ),
    (
        "ALTER TABLE mlflow_aws.events ADD CONSTRAINT broken CHECK (type <> 'Model Stage Changed') NOT VALID",
        "ALTER TABLE mlflow_aws.events DROP CONSTRAINT broken",
    ),
)


def _outbox(server: Server, model: str) -> list[tuple[str, dict[str, Any]]]:
    rows = server.sql("SELECT type, detail FROM mlflow_aws.events WHERE about = $1 ORDER BY number", model)
    return [(kind, json.loads(detail)) for kind, detail in rows]


def _lived(server: Server) -> list[tuple[str, dict[str, Any]]]:
    """The events of a model that went through everything."""
    model = server.new_model(f"model-{secrets.token_hex(4)}", versions=2)
    stage = {"name": model, "stage": "Production", "archive_existing_versions": True}
    server.post(STAGE, {**stage, "version": "1"})
    server.post(STAGE, {**stage, "version": "2"})
    server.post(ALIAS, {"name": model, "alias": "champion", "version": "2"})
    assert server.send("DELETE", ALIAS, {"name": model, "alias": "champion"}).status == 200
    assert server.send("DELETE", DELETION, {"name": model, "version": "1"}).status == 200
    return _outbox(server, model)


def test_each_change_of_a_model_is_an_event_with_its_verified_principal(server: Server) -> None:
    events = _lived(server)
    assert [kind for kind, _ in events] == [
        "Model Registered",
        "Model Version Registered",
        "Model Version Registered",
        "Model Stage Changed",
        "Model Stage Changed",
        "Model Alias Set",
        "Model Alias Removed",
        "Model Version Deleted",
    ]
    # The harness has no gate, which tells who creates a registered model.
    assert {detail["principal"] for _, detail in events[1:]} == {ALICE}
    second = events[4][1]
    assert (second["version"], second["previous"], second["archived"]) == ("2", "1", ["1"])
    assert [detail["history"] for _, detail in events[3:]] == [1, 2, 3, 4, 5]


def test_there_is_no_event_without_its_change_and_no_change_without_its_event(server: Server) -> None:
    model = server.new_model(f"model-{secrets.token_hex(4)}", versions=1)
    before = _outbox(server, model)
    stage = {"name": model, "version": "1", "stage": "Production"}
    refused = server.send("POST", STAGE, stage, headers={"if-match": '"7"'})
    assert refused.status == 412
    for broken in _BROKEN:
        for statement in broken[:-1]:
            server.sql(statement)
        try:
            assert server.send("POST", STAGE, stage).status != 200
        finally:
            server.sql(broken[-1])
        assert server.version(model, "1")["current_stage"] == "None"
    assert _outbox(server, model) == before


def test_refusals_are_counted_and_bounded_whatever_an_attacker_does() -> None:
    refusals = Refusals()
    for number in range(5000):
        refusals.count(f"role-{number % 100}", f"reason-{number}")
        refusals.count(None, "no token")
    details = refusals.take()
    assert len(details) <= 21
    assert sum(each["count"] for each in details) == 10_000
    assert max(len(each["reasons"]) for each in details) <= 11
    assert refusals.take() == []


def test_a_restore_is_told_once_and_an_import_with_its_rows(rds: RdsLike) -> None:
    import psycopg2

    database = rds.new_database()
    owner = psycopg2.connect(
        dbname=database, host=str(rds.postgres.socket_directory), port=rds.port, user="postgres"
    )
    owner.autocommit = True
    for snapshot in (None, "snapshot-1", "snapshot-1", "snapshot-2"):
        create(owner, server=rds.master, restored_from=snapshot)
    with owner.cursor() as cursor:
        add(cursor, "Import Finished", {"archive": "mlruns"})
        cursor.execute("SELECT type, detail::json ->> 'snapshot' FROM mlflow_aws.events ORDER BY number")
        assert cursor.fetchall() == [
            ("Database Restored", "snapshot-1"),
            ("Database Restored", "snapshot-2"),
            ("Import Finished", None),
        ]
    owner.close()


def test_every_type_of_event_is_documented_as_the_code_writes_it(server: Server) -> None:
    document = (PROJECT / "docs" / "events.md").read_text()
    shown = {
        kind: json.loads(block)
        for kind, block in re.findall(r"### ([A-Z][\w ]+)\n.*?```json\n(.*?)```", document, re.DOTALL)
    }
    refusals = Refusals()
    refusals.count("someone", "no role")
    written = [*_lived(server), ("Access Refused", refusals.take()[0])]
    kinds = {kind for kind, _ in written} | {"Import Finished", "Database Restored"}
    assert shown.keys() == kinds
    for kind, detail in written:
        optional = {"archived", "seal", "stage"}
        assert shown[kind].keys() - optional == {"id", "at", *detail} - optional, kind
