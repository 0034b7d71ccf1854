"""A new version takes over while clients of several processes log: as ECS does it, behind the load balancer.

The new version is this one with one more of MLflow's migration scripts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mlflow_aws_server import schema

from tests.conftest import rds_like
from tests.faults.fleet import LogDriver, Servers, balanced, doubled, missing_rows
from tests.faults.relay import LoopThread
from tests.faults.writers import POINTS, Acknowledged
from tests.server.conftest import PROJECT, Deployment, Process, deployment, issuers, request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_CLIENTS = 3
_WAIT_SECONDS = 240
# Of the target group; 30 in the stack.
_DEREGISTRATION_SECONDS = 3.0
_GATE = 0x67617465
_ADDS = """
    op.add_column("runs", sa.Column("rolled", sa.Text()))
    op.create_table(
        "rolled", sa.Column("run", sa.String(32), sa.ForeignKey("runs.run_uuid", ondelete="CASCADE"))
    )
"""
_REWRITES = f"""
    op.execute("UPDATE runs SET rolled = 'yes'")
    op.execute("SELECT pg_advisory_xact_lock({_GATE})")
    op.alter_column("runs", "rolled", nullable=False, server_default="yes")
"""


def _version(where: Path, *upgrades: str) -> dict[str, str]:
    """The environment of an MLflow with these revisions more."""
    package = schema.installed_versions().parents[2]
    for inside in ("", "store", "store/db_migrations", "store/db_migrations/versions"):
        folder = where / "mlflow" / inside
        folder.unlink(missing_ok=True) if inside else None
        folder.mkdir(parents=True)
        for each in (package / inside).iterdir():
            if each.name != "__pycache__":
                (folder / each.name).symlink_to(each)
    below = schema.installed().head
    for number, upgrade in enumerate(upgrades):
        revision = f"{number:012x}"
        (folder / f"{revision}_.py").write_text(
            "import sqlalchemy as sa\nfrom alembic import op\n\n"
            f"revision = {revision!r}\ndown_revision = {below!r}\n\n\ndef upgrade():{upgrade}"
        )
        below = revision
    return {"PYTHONPATH": str(where)}


@dataclass
class Seen:
    """What clients in processes of their own, and one that asks all the time, saw from beginning to end."""

    refused: int = 0
    failed: list[str] = field(default_factory=list)
    points: int = 0
    lost: list[Acknowledged] = field(default_factory=list)
    doubled: int = 0
    paused: float = 0.0
    """The longest time in which a client got nothing stored."""
    outage: float = 0.0
    """The longest time in which no question was answered."""


@dataclass(kw_only=True)
class Site(Servers):
    """A deployment."""

    made: Deployment
    refused: list[int]
    token: str
    experiment: str = ""

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """As the database's superuser."""
        return self.made.rds.administer(statement, database=self.made.database)

    def call(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """As a contributor, through the load balancer."""
        port = int(self.url.rpartition(":")[2])
        headers = {"Authorization": f"Bearer {self.token}"}
        return request(port, method, f"/api/2.0/mlflow/{path}", body, headers=headers, role=None)

    def end(self) -> None:
        """End every server."""
        for each in self.servers:
            each.end()

    def migrate(self, version: dict[str, str]) -> Process:
        """The task."""
        return self.made.start("migrate", port=None, **version)

    def roll(self, version: dict[str, str]) -> None:
        """Start new ones; when they are healthy, deregister the old ones and end them, as ECS does."""
        old = list(self.servers)
        for new in [self.start(wait=False, **version) for _ in old]:
            self.until(new, "healthy")
        for each in old:
            self.deregister(each)
        time.sleep(_DEREGISTRATION_SECONDS)
        for each in old:
            each.signal(signal.SIGTERM)
            each.process.wait(_WAIT_SECONDS)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        identity = stack.enter_context(issuers(tmp_path_factory.mktemp("issuers")))
        made = stack.enter_context(deployment(stack.enter_context(rds_like()), identity))
        finished = made.migrate()
        assert finished.returncode == 0, finished.stderr
        loop = stack.enter_context(LoopThread().running())
        log_driver = LogDriver()
        stack.callback(log_driver.stop)
        group, url, refused = balanced(loop)
        site = Site(
            log_driver=log_driver, environ=made.environ, url=url, group=group, made=made, refused=refused,
            token=identity.token("contributor"),
        )  # fmt: skip
        stack.callback(site.end)
        for each in [site.start(wait=False) for _ in range(2)]:
            site.until(each, "healthy")
        status, answer = site.call("POST", "experiments/create", {"name": "rolling"})
        assert status == 200, answer
        site.experiment = json.loads(answer)["experiment_id"]
        yield site


class Clients:
    """Processes that log all the time."""

    def __init__(self, site: Site) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.faults.writers", site.url, site.experiment],
                cwd=PROJECT,
                env={
                    **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                    "MLFLOW_TRACKING_TOKEN": site.token,
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(_CLIENTS)
        ]

    def go_on(self) -> None:
        """Return once each has stored something that it began after now."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "\n", "a client has ended"

    def stop(self) -> list[dict[str, Any]]:
        """End them; what each remembers."""
        told = [process.communicate(timeout=_WAIT_SECONDS)[0] for process in self._processes]
        return [json.loads(each) for each in told]

    def kill(self) -> None:
        """Whatever state they are in."""
        for process in self._processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _watched(site: Site) -> Iterator[tuple[Clients, Seen]]:
    """Clients log from the beginning of the block to its end."""
    seen, clients, end = Seen(), Clients(site), threading.Event()
    answered: list[float] = []

    def ask() -> None:
        while not end.wait(0.1):
            with contextlib.suppress(OSError):
                if site.call("GET", f"experiments/get?experiment_id={site.experiment}")[0] == 200:
                    answered.append(time.monotonic())

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        clients.go_on()
        before = len(site.refused)
        yield clients, seen
        clients.go_on()
        told = clients.stop()
    finally:
        end.set()
        asking.join()
        clients.kill()
    seen.refused = len(site.refused) - before
    seen.failed = [each for one in told for each in one["failed"]]
    acknowledged = [[Acknowledged(**each) for each in one["acknowledged"]] for one in told]
    runs = [run for one in told for run in one["runs"]]
    seen.points = POINTS * sum(each.kind == "points" for each in itertools.chain(*acknowledged))
    seen.lost = missing_rows(site.ask, runs, itertools.chain(*acknowledged))
    seen.doubled = doubled(site.ask, runs)
    seen.paused = max(_longest_gap([each.ended for each in one]) for one in acknowledged)
    seen.outage = _longest_gap(answered)
    print(seen)


def _longest_gap(moments: list[float]) -> float:
    return max(after - before for before, after in itertools.pairwise(moments))


def test_a_revision_that_only_adds_rolls_without_a_refused_request(site: Site, tmp_path: Path) -> None:
    newer = _version(tmp_path, _ADDS)
    with _watched(site) as (clients, seen):
        # Two deployments at once: the second migration waits for the first, and finds nothing to do.
        migrations = [site.migrate(newer), site.migrate(newer)]
        assert [each.wait(_WAIT_SECONDS) for each in migrations] == [0, 0], migrations[0].output()
        assert not any('"phase":"drain"' in each.output() for each in migrations)
        clients.go_on()
        assert site.ask("SELECT version_num FROM alembic_version") == [("000000000000",)]
        site.roll(newer)
    assert (seen.lost, seen.doubled, seen.failed, seen.refused) == ([], 0, [], 0)


def test_a_drain_loses_no_point_also_if_the_database_is_restarted_during_its_migration(
    site: Site, tmp_path: Path
) -> None:
    newer = _version(tmp_path, _ADDS, _REWRITES)
    with _watched(site) as (clients, seen):
        with site.made.rds.postgres.cursor(site.made.database) as gate:
            gate.execute(f"SELECT pg_advisory_lock({_GATE})")
            migration = site.migrate(newer)
            while not site.ask(f"SELECT 1 FROM pg_locks WHERE objid = {_GATE} AND NOT granted"):
                assert migration.poll() is None, migration.output()
                time.sleep(0.05)
            site.made.rds.postgres.stop(immediate=True)
            site.made.rds.postgres.start()
        assert migration.wait(_WAIT_SECONDS) == 1
        assert "The schema is unchanged, and the former version serves it" in migration.output()
        # The former version goes on.
        clients.go_on()
    assert (seen.lost, seen.doubled, seen.failed) == ([], 0, [])
    with _watched(site) as (clients, seen):
        migration = site.migrate(newer)
        assert migration.wait(_WAIT_SECONDS) == 0, migration.output()
        assert '"phase":"drain"' in migration.output()
        site.roll(newer)
    assert (seen.lost, seen.doubled, seen.failed) == ([], 0, [])
    assert seen.refused
    assert site.ask("SELECT count(*) FROM runs WHERE rolled <> 'yes'") == [(0,)]
