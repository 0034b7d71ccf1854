"""`make relocate`: the artifacts of a restored database become this deployment's, URIs and all.

After a restore in another region or account, the database names a bucket that is elsewhere. Its objects are
copied below `relocated/` of this one, from there or from a replica of it, and the database's URIs rewritten.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from operations import task
from operations.command import Command, Report, Say
from operations.deployment import Deployment
from operations.errors import CannotRunError, FailedError
from operations.imports import artifacts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What it is asked with."""
    parser.add_argument(
        "--old", required=True, metavar="URI", help="the artifact root that the database names, s3://…"
    )
    parser.add_argument(
        "--copies", metavar="URI", help="where its objects are, such as the replica; by default there"
    )
    parser.add_argument("--dry-run", action="store_true", help="compare the objects, and change nothing")


def run(deployment: Deployment, options: argparse.Namespace, say: Say) -> Report:
    """Copy what is missing, compare all of it, and only then rewrite the URIs."""
    old, copies = options.old, options.copies or options.old
    for uri in (old, copies):
        if not uri.startswith("s3://"):
            raise CannotRunError(f"{uri} is not a place in S3; write s3://BUCKET or s3://BUCKET/PREFIX")
    # Read at last, and known at first.
    deployment.place("Relocate")
    bucket, prefix = deployment.output("ArtifactBucket"), deployment.environment.artifacts.prefix
    new = "/".join(filter(None, [f"s3://{bucket}", prefix, "relocated"]))
    root = artifacts.Root(old=old, at=copies, new=new)
    copied = artifacts.copy(deployment.client("s3"), [root], say=say, dry_run=options.dry_run)
    files = copied.document["files"]
    if options.dry_run:
        text = f"{files['there']} files at {copies}, {files['differing']} of them to copy to {new}"
        return Report(text=text, document=copied.document)
    if files["differing"]:
        raise FailedError(f"{files['differing']} files differ at {new}; no URI was changed; run this again")
    document = task.run(deployment, "Relocate", arguments=["--old", old, "--new", new], follow=say)
    return Report(text=_text(document, copied, copies), document={**document, "artifacts": copied.document})


def _text(document: Mapping[str, Any], copied: artifacts.Copied, copies: str) -> str:
    rows: Mapping[str, int] = document["rows"]
    return "\n".join(
        [
            f"{copied.here} files, {copied.bytes_here} bytes, from {copies} are at {document['new']}",
            *(f"{column}: {count} rows" for column, count in rows.items()),
        ]
    )


COMMAND = Command(
    name="relocate",
    help="copy the artifacts of a restored database here, and rewrite its URIs",
    run=run,
    add_arguments=add_arguments,
)
