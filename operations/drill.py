"""Tries the backups, and says what a disaster would lose and how long its repair takes."""

from __future__ import annotations

import argparse
import datetime as dt
from typing import Any

from operations import task
from operations.command import Command, Report, Say
from operations.database import Database
from operations.deployment import Deployment
from operations.scratch import TAG, scratch, timed
from operations.versions import read_a_model, restore_an_object


def _drill(deployment: Deployment, _options: argparse.Namespace, say: Say) -> Report:
    seconds: dict[str, float] = {}
    chosen: list[dt.datetime] = []

    def restore(database: Database, name: str) -> str:
        chosen.append(database.newest_time.replace(microsecond=0))
        say(f"the newest time that can be restored is {chosen[0]:%Y-%m-%d %H:%M:%S} UTC")
        return database.at(chosen[0], name, {TAG: deployment.name})

    begun = dt.datetime.now(dt.UTC)
    with scratch(deployment, restore, say, seconds) as made:
        at = int(chosen[0].timestamp() * 1000)
        with timed("compare", seconds, say):
            report = task.run(
                deployment,
                "Drill",
                arguments=[*made.arguments, "--at", str(at)],
                follow=say,
                place=made.place("Drill"),
            )
        s3, bucket = deployment.client("s3"), deployment.output("ArtifactBucket")
        with timed("object", seconds, say):
            report["object"] = restore_an_object(s3, bucket)
        if report["model"]:
            with timed("model", seconds, say):
                report["model"] |= read_a_model(s3, report["model"]["files"])
    document = {
        "environment": deployment.name,
        "at": chosen[0].isoformat(),
        # Of a disaster at the moment when the drill began.
        "rpo_at_most_seconds": round((begun - chosen[0]).total_seconds()),
        "rto_seconds": round(seconds["restore"] + seconds["compare"], 1),
        "seconds": seconds,
        **report,
    }
    return Report(text=_told(document), document=document, good=not report["differences"])


def _told(report: dict[str, Any]) -> str:
    tables = report["tables"]
    rows = sum(each["restored"] or 0 for each in tables)
    changed = [each["table"] for each in tables if not each["same"]]
    model = report["model"]
    lines = [
        f"drill of {report['environment']}: the database as it was at {report['at']}",
        f"RPO          {report['rpo_seconds']} s between the newest rows there and here; "
        f"{report['rpo_at_most_seconds']} s by RDS's word",
        f"RTO          {report['rto_seconds']} s until the restored database is there and compared",
        f"rows         {rows:,} in {len(tables)} tables; changed since: {', '.join(changed) or 'none'}",
        f"answers      {report['answers']} of MLflow on the restored database",
        f"object       {report['object']['bytes']:,} bytes written, deleted, restored and compared",
        f"model        {model['name']} {model['version']}: {model['files']} files, {model['bytes']:,} bytes"
        if model
        else "model        there is none",
        "time         " + ", ".join(f"{phase} {taken:.0f} s" for phase, taken in report["seconds"].items()),
        *(f"✗ {each}" for each in report["differences"]),
    ]
    return "\n".join(lines if report["differences"] else [*lines, "✓ all that was there came back"])


COMMAND = Command(
    name="drill",
    help="restore a copy of the database at a point in time, an object and a model; report RPO and RTO",
    run=_drill,
)
