"""A restore stops the service, keeps what is there, changes one line of the file, and starts the service."""

from __future__ import annotations

import dataclasses
import datetime as dt
import tomllib
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from operations import restore as module
from operations.database import Instance
from operations.errors import CannotRunError, FailedError
from operations.restore import restore, with_snapshot
from tests.operations.answers import Scripted, deployment, error

MOMENT = dt.datetime(2026, 11, 28, 10, tzinfo=dt.UTC)
FILE = '# why\n[network]\nnat = "instance"\n\n[database] # ours\nport = 6000\n'


class Account:
    """RDS and ECS of one deployment; `done` is what was asked, in order."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, name: str = "database") -> None:
        self.done: list[str] = []
        self.snapshots = {"kept"}
        self.file = tmp_path / "dev.toml"
        self.file.write_text(FILE)
        self.fails, self.name = False, name
        rds = Scripted({"describe_db_snapshots": self.described})
        monkeypatch.setattr(module, "database_of", lambda _: Instance(rds, self.name))
        monkeypatch.setattr(module, "_scale", lambda _, tasks: self.done.append(f"{tasks} tasks"))
        monkeypatch.setattr(Instance, "take_snapshot", lambda *asked: self.taken(*asked))
        monkeypatch.setattr(Instance, "newest_time", MOMENT + dt.timedelta(hours=1))
        for phase in ("at", "wait", "remove"):
            monkeypatch.setattr(Instance, phase, lambda *_, phase=phase: self.done.append(phase))

    def described(self, **asked: str) -> dict[str, Any]:
        if asked["DBSnapshotIdentifier"] not in self.snapshots:
            raise error("DBSnapshotNotFound")
        return {"DBSnapshots": [{"Status": "available"}]}

    def taken(self, database: Any, name: str, _tags: Any) -> None:
        self.done.append(f"snapshot of {database.name}")
        self.snapshots.add(name)

    def deploy(self) -> None:
        self.done.append("deploy")
        if self.fails:
            raise FailedError("it failed")

    def restore(self, **options: Any) -> dict[str, Any]:
        asked = Namespace(**{"snapshot": None, "at": None, "yes": True, "no_smoke": True, **options})
        report = restore(deployment({}), asked, lambda _: None, deploy=self.deploy, file=self.file)
        return dict(report.document)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    return Account(tmp_path, monkeypatch)


def test_a_snapshot_is_restored_between_a_last_one_and_the_start(account: Account) -> None:
    report = account.restore(snapshot="kept")
    assert account.done == ["0 tasks", "snapshot of database", "deploy", "1 tasks"]
    assert tomllib.loads(account.file.read_text())["database"] == {"restore_from": "kept", "port": 6000}
    assert report["last_snapshot"] in account.snapshots
    assert set(report["seconds"]) == {"last snapshot", "deploy", "start"}


def test_a_moment_becomes_a_snapshot_before_the_service_stops(account: Account) -> None:
    account.restore(at=MOMENT)
    target = "mlflowonaws-dev-service-at-20261128t100000z"
    assert account.done == [
        "remove", "at", "wait", f"snapshot of {target}-copy", "remove",
        "0 tasks", "snapshot of database", "deploy", "1 tasks",
    ]  # fmt: skip
    assert f'restore_from = "{target}"' in account.file.read_text()
    account.done.clear()
    # An attempt after that has the snapshot.
    account.restore(at=MOMENT)
    assert account.done[:2] == ["remove", "0 tasks"]


def test_a_moment_that_is_not_yet_restorable_stops_nothing(account: Account) -> None:
    with pytest.raises(CannotRunError, match="is later than"):
        account.restore(at=MOMENT + dt.timedelta(hours=2))
    assert account.done == ["remove"]


def test_a_snapshot_that_is_not_there_stops_nothing(account: Account) -> None:
    with pytest.raises(CannotRunError, match="no snapshot other"):
        account.restore(snapshot="other")
    assert not account.done


def test_the_service_runs_again_after_a_deployment_that_failed(account: Account) -> None:
    account.fails = True
    with pytest.raises(FailedError):
        account.restore(snapshot="kept")
    assert account.done[-2:] == ["deploy", "1 tasks"]
    assert account.file.read_text() == FILE


def test_the_file_names_the_database_that_is_there_after_a_deployment_that_failed(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deployed_in_part() -> None:
        account.name = "database-79f076ab"
        raise FailedError("the service failed")

    monkeypatch.setattr(account, "deploy", deployed_in_part)
    with pytest.raises(FailedError):
        account.restore(snapshot="kept")
    assert 'restore_from = "kept"' in account.file.read_text()


def test_a_restore_ends_with_the_smoke_client_and_names_the_way_back(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def smoke(_deployment: Any, _say: Any) -> None:
        account.done.append("smoke")
        raise raised

    monkeypatch.setattr(module, "smoke", smoke)
    monkeypatch.setattr(module, "later", lambda _: "make smoke URL=…")
    raised: Exception = CannotRunError("no way there")
    assert account.restore(snapshot="kept", no_smoke=False)["smoke"].startswith(
        "not run: no way there; later"
    )
    assert account.done[-2:] == ["1 tasks", "smoke"]
    raised = FailedError("a step failed")
    with pytest.raises(FailedError, match=r"make restore ENV=dev SNAPSHOT=mlflowonaws-dev-service-before-"):
        account.restore(snapshot="kept", no_smoke=False)


def test_what_is_in_place_is_not_snapshotted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The suffix of `kept`, as the stacks make it.
    account = Account(tmp_path, monkeypatch, name="database-79f076ab")
    account.restore(snapshot="kept")
    assert account.done == ["0 tasks", "deploy", "1 tasks"]


def test_scaling_is_off_before_the_tasks_stop_for_it_would_start_them_again() -> None:
    asked: list[tuple[str, Any]] = []

    class Ecs:
        def update_service(self, *, cluster: str, service: str, desiredCount: int) -> None:  # noqa: N803
            asked.append((f"{cluster}/{service}", desiredCount))

        def get_waiter(self, name: str) -> Any:
            return SimpleNamespace(wait=lambda **_: asked.append(("wait", name)))

    scaling = Scripted(
        {"register_scalable_target": lambda **new: asked.append((new["ResourceId"], new["SuspendedState"]))},
        service="application-autoscaling",
    )
    base = deployment({"ecs": Ecs(), "application-autoscaling": scaling})
    module._scale(dataclasses.replace(base, outputs={"ClusterName": "c", "ServiceName": "s"}), 0)
    off = {"DynamicScalingInSuspended": True, "DynamicScalingOutSuspended": True}
    assert asked == [("service/c/s", off), ("c/s", 0), ("wait", "services_stable")]


def test_one_line_of_the_file_changes() -> None:
    once = with_snapshot(FILE, "kept")
    assert once == FILE.replace("ours\n", 'ours\nrestore_from = "kept"\n')
    assert with_snapshot(once, "other") == once.replace("kept", "other")
    with pytest.raises(CannotRunError, match=r"no line \[database\]"):
        with_snapshot("[network]\n", "kept")
