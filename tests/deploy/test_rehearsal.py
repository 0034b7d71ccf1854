"""Upgrades are rehearsed and backups tried on copies of a deployed database, which are gone afterwards."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.conftest import SERVICE, EmulatedAccount
from tests.documents import blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def deployed(emulated: EmulatedAccount) -> EmulatedAccount:
    emulated.shell.does("make bootstrap ENV=dev")
    emulated.shell.does('make deploy ENV=dev PREFLIGHT=no ARGS="--require-approval never"')
    assert emulated.status(SERVICE) == "CREATE_COMPLETE"
    return emulated


def as_printed(command: str) -> str:
    """The line of the document that begins so."""
    (line,) = (
        each.commands.strip() for each in blocks("docs/operations.md") if each.commands.startswith(command)
    )
    return line


def result(said: str) -> dict[str, Any]:
    """The JSON that ends what a command says."""
    document: dict[str, Any] = json.loads(said[said.rindex("\n{\n") :])
    return document


def nothing_is_left(account: EmulatedAccount) -> None:
    rds = account.aws.client("rds")
    assert len(rds.describe_db_instances()["DBInstances"]) == 1
    assert [
        each["DBSnapshotIdentifier"]
        for each in rds.describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
        if "scratch" in each["DBSnapshotIdentifier"]
    ] == []
    assert account.status("MlflowOnAws-dev-Scratch") == ""


def test_an_upgrade_is_rehearsed_on_a_fresh_snapshot(deployed: EmulatedAccount) -> None:
    said = deployed.shell.does(as_printed("make rehearse") + " ARGS=--json")
    report = result(said)
    assert (report["differences"], report["drain"]) == ([], False)
    assert {"snapshot", "restore", "image", "rehearse", "remove"} == set(report["seconds"])
    nothing_is_left(deployed)


def test_a_drill_restores_database_object_and_model(deployed: EmulatedAccount) -> None:
    report = result(deployed.shell.does(as_printed("make drill") + " ARGS=--json"))
    assert report["differences"] == []
    assert {each["table"] for each in report["tables"] if not each["same"]} == set()
    assert report["rpo_seconds"] == 0
    assert report["object"]["bytes"] == 1 << 16
    bucket = deployed.stack(SERVICE).outputs["ArtifactBucket"]
    left = deployed.aws.client("s3").list_object_versions(Bucket=bucket, Prefix="drill/")
    assert left.get("Versions", []) + left.get("DeleteMarkers", []) == []
    nothing_is_left(deployed)
