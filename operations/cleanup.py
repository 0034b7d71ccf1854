"""`gc`: what was deleted goes for good, now."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

from operations import task
from operations.command import Command, Report, Say
from operations.deployment import Deployment
from operations.errors import CannotRunError

# Of what was kept: all of it is in the result for programs.
_SHOWN = 20


def _run(deployment: Deployment, options: argparse.Namespace, say: Say) -> Report:
    configured = deployment.environment.cleanup.deleted_days
    days = configured if options.days is None else options.days
    if days is None:
        raise CannotRunError(
            f"after how many days what was deleted goes is not set: DAYS=30, or cleanup.deleted_days in "
            f"config/{deployment.name}.toml"
        )
    arguments = ["--days", str(days), *(["--dry-run"] if options.dry_run else [])]
    report = task.run(deployment, "Gc", arguments=arguments, follow=say)
    return Report(text=_text(report), document=report)


def _text(report: Mapping[str, Any]) -> str:
    kept, elsewhere = list(report["kept"].items()), report["elsewhere"]
    lines = [
        "would go:" if report["dry_run"] else "went:",
        *(f"  {number:>12,} rows of {table}" for table, number in report["rows"].items()),
        f"  {report['objects']:>12,} objects, {report['bytes']:,} bytes, which S3 keeps for noncurrent_days",
        f"kept, though deleted: {len(kept)}",
        *(f"  {what}: {why}" for what, why in kept[:_SHOWN]),
        *([f"  and {len(kept) - _SHOWN} more: --json"] if len(kept) > _SHOWN else []),
        *(["not under the artifact root, left to you:"] if elsewhere else []),
        *(f"  {uri}" for uri in elsewhere[:_SHOWN]),
    ]
    return "\n".join(lines)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=days, help="only what was deleted so many days ago")
    parser.add_argument("--dry-run", action="store_true", help="say what would go; change nothing")


def days(text: str) -> float:
    """How long ago."""
    given = float(text)
    # What was deleted in the future would be everything.
    if not 0 <= given < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days")
    return given


COMMAND = Command(
    name="gc",
    help="remove runs, logged models and experiments for good that were deleted long enough ago",
    run=_run,
    add_arguments=_arguments,
)
