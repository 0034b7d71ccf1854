"""Rehearses the next upgrade on a copy of the database."""

from __future__ import annotations

import argparse
from typing import Any

from operations import task
from operations.command import Command, Report, Say
from operations.database import Database, Snapshot, database_of
from operations.deployment import Deployment
from operations.errors import CannotRunError
from operations.scratch import TAG, scratch, timed


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--snapshot", help="the snapshot to rehearse on; without it, the newest")
    which.add_argument("--fresh", action="store_true", help="take a snapshot first, and remove it in the end")


def _rehearse(deployment: Deployment, options: argparse.Namespace, say: Say) -> Report:
    seconds: dict[str, float] = {}
    chosen: list[Snapshot] = []
    tags = {TAG: deployment.name}
    if not options.fresh:
        chosen.append(_snapshot(database_of(deployment), options.snapshot))

    def restore(database: Database, name: str) -> str:
        if options.fresh:
            with timed("snapshot", seconds, say):
                chosen.append(database.take_snapshot(name, tags))
        say(f"snapshot {chosen[0].name} of {chosen[0].made:%Y-%m-%d %H:%M} UTC, {chosen[0].gib} GiB")
        return database.from_snapshot(chosen[0].name, name, tags)

    with scratch(deployment, restore, say, seconds) as made, timed("rehearse", seconds, say):
        report = task.run(
            deployment, "Rehearse", arguments=made.arguments, follow=say, place=made.place("Rehearse")
        )
    document = {
        "environment": deployment.name,
        "snapshot": chosen[0].name,
        "snapshot_made": chosen[0].made.isoformat(),
        "seconds": seconds,
        **report,
    }
    return Report(text=_told(document), document=document, good=not report["differences"])


def _snapshot(database: Database, name: str | None) -> Snapshot:
    found = database.snapshots()
    if name is None and found:
        return found[-1]
    for each in found:
        if each.name == name:
            return each
    missing = f"no snapshot {name}" if name else "no snapshot"
    raise CannotRunError(f"{database.name} has {missing} that is complete: take one with FRESH=yes")


def _told(report: dict[str, Any]) -> str:
    pending = report["revisions"]
    draining = [each for each in pending if each["drains"]]
    tables = [each for each in report["tables"] if each["before"] is not None]
    rows = sum(each["before"] for each in tables)
    written = sum(bool(each["changed_by"]) for each in tables)
    size = {when: f"{report['bytes'][when] / 2**20:,.0f} MiB" for when in ("before", "after")}
    slowest = sorted(pending, key=lambda each: -each["seconds"])[:3]
    lines = [
        f"rehearsal of {report['environment']} on snapshot {report['snapshot']}",
        f"schema       {report['from']} → {report['to']}, {len(pending)} revisions",
        f"drain        {_drain(draining, report['migrate_seconds'])}",
        f"migration    {report['migrate_seconds']} s"
        + "".join(f"; {each['revision']} {each['seconds']} s" for each in slowest if each["seconds"]),
        f"size         {size['before']} → {size['after']}",
        f"rows         {rows:,} in {len(tables)} tables, {written} of which a revision writes to",
        f"answers      {report['answers']} of runs, models and searches compared",
        "time         "
        + ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in report["seconds"].items()),
        *(f"✗ {each}" for each in report["differences"]),
    ]
    return "\n".join(lines if report["differences"] else [*lines, "✓ nothing differs"])


def _drain(draining: list[dict[str, Any]], seconds: float) -> str:
    if not draining:
        return "none: the servers stay while the schema changes"
    first = f"{draining[0]['revision']}: {draining[0]['drains']}"
    return f"needed, for about {seconds:.0f} s, by {len(draining)} revisions, such as {first}"


COMMAND = Command(
    name="rehearse",
    help="migrate a copy of the database with the image that this tree would deploy, and compare",
    run=_rehearse,
    add_arguments=_add_arguments,
)
